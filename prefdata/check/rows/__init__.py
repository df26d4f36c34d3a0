"""Checks of single rows: expressions over a batch first, then slow checks of its candidates.

`rules.py` contains the expressions, `slow.py` the slow checks and `own.py` those of a user; `run.py`
applies them. Input: a batch of records. Output: the kept records, the refused ones, the findings.
"""
