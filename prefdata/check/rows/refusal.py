"""Answers that begin as a refusal (best effort, English)."""

import polars as pl

HEAD_CHARS = 160  # a refusal begins within them
_NO_HELP = (
    "help|assist|provide|answer|comply|do that|do this|tell|give|support|recommend|create|write|"
    "share|discuss|fulfill|engage|advise|encourage|offer|participate|generate|advocate|condone"
)
REFUSAL = (
    r"(?i)\bas an? (?:ai|(?:large )?language model)\b"
    rf"|\bi (?:can['’]?t|can ?not|won['’]t|will not|don['’]t want to|refuse to) (?:{_NO_HELP})\b"
    r"|\bi(?:['’]m| am) (?:just )?(?:not able|unable|not going|not comfortable|not willing) "
    r"|\bsorry\b.{0,40}\b(?:can['’]?t|can ?not|won['’]t|unable|not able|not going)\b"
    r"|\bi (?:must|have to) decline\b"
)
# Every refusal contains one of these; most answers do not, and skip the regular expression.
_MARKS = [
    *("as an ai", "as a ai", "language model", "can't", "can’t", "cant ", "cannot", "can not"),
    *("won't", "won’t", "will not", "don't want to", "don’t want to", "refuse to"),
    *("not able ", "unable", "not going", "not comfortable ", "not willing ", "decline"),
]


def refuse(texts: pl.Series) -> pl.Series:
    """Return a mask of the texts that begin as a refusal.

    >>> refuse(pl.Series(["I'm sorry, but I can't help with that.", "Sure!"])).to_list()
    [True, False]
    """
    heads = texts.str.head(HEAD_CHARS)
    may = heads.str.contains_any(_MARKS, ascii_case_insensitive=True).arg_true()
    found = pl.Series([False]).new_from_index(0, len(texts))
    return found.scatter(may, heads.gather(may).str.contains(REFUSAL))
