"""Commands that are files of their own; `dpo/cli.py` has the others."""
