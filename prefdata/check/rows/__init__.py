"""Checks of single rows: expressions over a batch first, then slow checks of its candidates.

`rules.py` contains the expressions, `slow.py` the slow checks and `own.py` those of a user, which
`run.py` applies. Input: a batch of records. Output: records to keep, refused ones, and findings.
"""
