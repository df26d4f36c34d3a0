"""Overlap of a summary with its post: a stand-in for a judge, which says nothing of quality."""

import re
from collections.abc import Sequence
from typing import Any

MOST_WORDS = 40
"""Words of a summary that count, so that a longer copy gains nothing."""


def overlap(*, prompts: Sequence[Any], completions: Sequence[str]) -> list[float]:
    """Return F1 of the words of four letters and more that summary and post have in common."""
    return [_f1(_text(prompt), one) for prompt, one in zip(prompts, completions, strict=True)]


def _f1(post: str, summary: str) -> float:
    theirs, mine = _words(post), _words(" ".join(summary.split()[:MOST_WORDS]))
    return 2 * len(theirs & mine) / max(len(theirs) + len(mine), 1)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{4,}", text.lower()))


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
