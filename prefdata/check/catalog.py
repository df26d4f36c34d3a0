"""Every code that a user can meet in rows and sets, by its code.

This is text alone; what finds the codes lies beside it: `rules.py` those of rows, the files that
`sets.py` names those of sets, and `prefdata/tokens` those that need a tokenizer.
"""

from prefdata.check.code import Check, Scope, Severity, Stage
from prefdata.check.codes import BIAS, CONVERSATION, PAIRS, SETS, STRUCTURE

__all__ = ["CHECKS", "Check", "Scope", "Severity", "Stage"]

CHECKS: dict[str, Check] = {
    check.code: check for family in (STRUCTURE, CONVERSATION, PAIRS, SETS, BIAS) for check in family
}
