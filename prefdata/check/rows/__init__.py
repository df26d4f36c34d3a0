"""Checks of single rows: expressions over a batch first, then slow checks of its candidates.

`rules.py` contains the expressions and `slow.py` the slow checks; `run.py` applies both. Input: a
batch of records. Output: the kept records, the refused ones, and the findings.
"""
