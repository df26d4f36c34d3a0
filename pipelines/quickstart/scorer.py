"""Sentiment of a text by the published lexicon VADER (Hutto and Gilbert, 2014)."""

from collections.abc import Sequence
from functools import cache
from typing import Any


@cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def compound(*, prompts: Sequence[Any], completions: Sequence[str]) -> list[float]:
    """Return VADER's compound score of each completion, mapped to [0, 1]; 0.5 is neutral."""
    assert len(prompts) == len(completions)
    found = [_analyzer().polarity_scores(text)["compound"] for text in completions]
    return [round((score + 1) / 2, 5) for score in found]
