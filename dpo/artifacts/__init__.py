"""Outputs of a run: run.json (summary), the model (save) with its card, its page, and the Hub."""
