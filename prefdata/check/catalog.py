"""Catalog of every code that rows and sets can have, by code.

It contains only texts. `rows/rules.py` finds the codes of rows, the functions in `sets/run.py`
those of sets, and `prefdata/tokens` those that need a tokenizer.
"""

from prefdata.check.code import Check, Scope, Severity, Stage
from prefdata.check.codes import BIAS, CONVERSATION, PAIRS, SETS, STRUCTURE

__all__ = ["CHECKS", "Check", "Scope", "Severity", "Stage"]

CHECKS: dict[str, Check] = {
    check.code: check for family in (STRUCTURE, CONVERSATION, PAIRS, SETS, BIAS) for check in family
}
