"""Sharing builds on the Hub: push, pull, verify; a shared set by its name."""
