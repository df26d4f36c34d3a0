"""Secrets and personal data in texts: the class, and at most the last four characters.

Messages quote texts by `quote`, which shows nothing private. Best effort: some may be missed.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import polars as pl

from prefdata.records.secret_patterns import PERSONAL, SECRETS, Pattern

SHOWN = 4
SEARCHED = 400  # characters on either side of a quotation that are searched


class SecretMatch(NamedTuple):
    """One secret or personal datum; only its `ending` is ever shown."""

    kind: str
    is_secret: bool
    """False: personal data."""
    ending: str

    def __str__(self) -> str:
        return f"{self.kind} …{self.ending}"


# Keywords that are also ordinary words; `_IN_USE` matches them only in context.
_WORDS = frozenset(
    [
        *("pass", "Pass", "PASS", "pwd", "PWD", "ecret", "ECRET", "key", "Key", "KEY", "token"),
        *("Token", "TOKEN", "aws", "AWS", "SK", "AC", ":A", "-us", "://", "@"),
    ]
)
_MARKS = sorted({word for one in (*SECRETS, *PERSONAL) for word in one.keywords} - _WORDS)
_DIGIT = re.compile(r"\d")
# Separate patterns: an alternative without a literal would slow down all the others.
_IN_USE = (
    r"(?i:pass|word|passwd|pwd|secret|key|token)[\"']?\s{0,3}[=:>]{1,2}\s{0,3}[\"']?\S{10}",
    r"://[^\s/:@]+:[^\s/@]+@",
    r"\b(?:SK|AC)[0-9a-f]{32}",
    r"[0-9a-f]-us[0-9]",
    r"[0-9]:A[A-Za-z0-9_-]{34}",
    r"[0-9](?:[ .()-]{0,2}[0-9]){8}|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[0-9]{2}[ A-Z0-9]{11}",
    r"[\w.+%-]@[A-Za-z0-9-]+\.",
    "|".join(map(re.escape, _MARKS)),  # half the time of `contains_any`
)


def suspects(content: pl.Expr) -> pl.Expr:
    """Return a mask of the texts that may contain something private; the others are skipped."""
    return pl.any_horizontal(content.str.contains(form) for form in _IN_USE)


def find_private(text: str) -> Iterator[SecretMatch]:
    """Yield everything in a text that looks private: secrets first, without overlaps."""
    for (start, end), pattern, is_secret in _matches(text):
        yield SecretMatch(pattern.name, is_secret, _ending(text[start:end]))


def private_spans(text: str) -> list[tuple[int, int]]:
    """Return the characters of everything in a text that looks private."""
    return sorted(span for span, *_ in _matches(text))


def visible(text: str, start: int = 0, end: int | None = None) -> str:
    """Return the characters from `start` to `end`; of what looks private only its ending.

    >>> visible("Write to jane.doe@corp.org now", 6)
    'to ….org now'
    """
    end, origin = len(text) if end is None else end, max(start - SEARCHED, 0)
    shown, at = list[str](), start
    for begin, stop in private_spans(text[origin : end + SEARCHED]):
        begin, stop = begin + origin, stop + origin
        if stop > at and begin < end:
            shown += [text[at : max(begin, at)], ending_of(text[begin:stop])]
            at = stop
    return "".join([*shown, text[at:end]])


def ending_of(private: str) -> str:
    """Return what is shown of something private: its last characters, if they reveal nothing."""
    return f"…{private[-SHOWN:]}" if len(private) >= 3 * SHOWN else "…"


def quote(text: str, most: int, start: int = 0) -> str:
    """Return at most `most` characters of a text from `start` on, for a message."""
    before = "…" if start else ""
    if len(text) - start <= most:
        return before + visible(text, start)
    return f"{before}{visible(text, start, start + most - 1)}…"


def _matches(text: str) -> Iterator[tuple[tuple[int, int], Pattern, bool]]:
    """Yield span and pattern of each match, and whether it is a secret."""
    taken: list[tuple[int, int]] = []
    has_digits = _DIGIT.search(text) is not None
    for is_secret, patterns in ((True, SECRETS), (False, PERSONAL)):
        for pattern in patterns:
            keywords = pattern.keywords
            if any(word in text for word in keywords) if keywords else has_digits:
                for span in _spans(pattern, text, taken):
                    yield span, pattern, is_secret


def _spans(pattern: Pattern, text: str, taken: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield and take the proven matches of a pattern that no earlier one overlaps."""
    for match in pattern.regex.finditer(text):
        group = 1 if match.re.groups else 0
        start, end = match.span(group)
        if any(start < stop and begin < end for begin, stop in taken):
            continue
        if pattern.proof(match[group]):
            taken.append((start, end))
            yield start, end


def _ending(secret: str) -> str:
    """Return the last four characters, if the secret is long enough that they reveal nothing."""
    return secret[-SHOWN:] if len(secret) >= 3 * SHOWN else "?" * SHOWN


def describe(sightings: Iterable[SecretMatch]) -> str:
    """Format at most five matches for a report."""
    shown = [str(sighting) for sighting in sightings]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more
