"""Sharing of builds on the Hub: push, pull, verify, and shared sets by name."""
