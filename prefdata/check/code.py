"""One code as data: the source of reports, `prefdata explain` and docs/codes.md."""

from typing import Literal, NamedTuple

Severity = Literal["E", "W", "I", "off"]
Scope = Literal["row", "set", "tokens"]
Stage = Literal["reading", "checking", "comparing", "building"]


class Check(NamedTuple):
    """One code. Its meaning never changes; a new meaning gets a new code."""

    code: str
    name: str
    severity: Severity  # E: the row is refused (a set: the build fails); W: reported; I: counted
    scope: Scope  # one row, rows together, or the tokens of a row
    found: Stage  # reading a row, checking a record, comparing all records, building tokens
    meaning: str
    advice: str
    example: str
