"""Checks of one row: expressions over a batch first, slow looks at what they suspect second.

`rules.py` holds the expressions, `slow.py` the second looks, `run.py` applies both. In: a batch of
records. Out: the records that stay, the refused ones, and what was found.
"""
