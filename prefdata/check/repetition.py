"""Completions that are the same few words again and again."""

from collections.abc import Iterable

N_GRAM = 10
MAX_REPEATED = 0.5
MIN_CHARS = 100
_PROBE = 16  # characters
_PROBES = (0.35, 0.6, 0.85)


def loops(texts: Iterable[str]) -> list[bool]:
    """Whether each text is degenerate; only those with a probe found thrice are looked at whole.

    Where more than half of a text repeats, one of three places of it is in the repetition.
    """
    return [
        len(text) >= MIN_CHARS and _is_suspect(text) and repeated_share(text) > MAX_REPEATED
        for text in texts
    ]


def _is_suspect(text: str) -> bool:
    for share in _PROBES:
        at = int(share * (len(text) - _PROBE))
        if text.count(text[at : at + _PROBE]) >= 3:
            return True
    return False


def repeated_share(text: str) -> float:
    """Share of the words in a run of ten that stood earlier; of characters where words are few.

    >>> repeated_share("one two three four five six seven eight nine ten eleven twelve")
    0.0
    >>> repeated_share("no " * 40)
    0.75
    """
    words = text.split()
    items = words if len(words) > 2 * N_GRAM else list(text)
    seen: set[tuple[str, ...]] = set()
    covered, end = 0, 0
    for start in range(len(items) - N_GRAM + 1):
        run = tuple(items[start : start + N_GRAM])
        if run in seen:
            stop = start + N_GRAM
            covered += stop - max(start, end)
            end = stop
        seen.add(run)
    return covered / len(items) if items else 0.0
