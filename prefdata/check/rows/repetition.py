"""Completions that repeat the same few words."""

import re

import polars as pl

N_GRAM = 10
MAX_REPEATED = 0.5
MIN_CHARS = 100
MAX_CHARS = 20_000  # from the start of a text; the rest is ignored
_PROBE = 16  # characters
_PROBES = (0.35, 0.6, 0.85)


def loops(texts: pl.Series) -> pl.Series:
    """Return a mask of the degenerate texts; only those with a probe found 3 times are compared.

    If more than half of a text repeats, one of the three probes is in the repetition.
    """
    texts, text = texts.str.head(MAX_CHARS), pl.col("text")
    places = [(share * (text.str.len_chars() - _PROBE)).cast(pl.Int64) for share in _PROBES]
    often = [
        text.str.count_matches(text.str.slice(place, _PROBE), literal=True) >= 3 for place in places
    ]
    may = texts.to_frame("text").select(
        (text.str.len_chars() >= MIN_CHARS) & pl.any_horizontal(often)
    )
    suspects = may.to_series().arg_true()
    found = pl.Series([False]).new_from_index(0, len(texts))
    shares = [repeated_share(one) > MAX_REPEATED for one in texts.gather(suspects)]
    return found.scatter(suspects, pl.Series(shares, dtype=pl.Boolean))


def repeated_share(text: str) -> float:
    """Return the share of words in repeated runs of ten; of characters, if there are few words.

    >>> repeated_share("one two three four five six seven eight nine ten eleven twelve")
    0.0
    >>> repeated_share("no " * 40)
    0.975
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


def loop_of(text: str) -> tuple[int, int] | None:
    """Return the characters of the first run of ten words that was there before, or None.

    >>> loop_of("no " * 40)
    (3, 32)
    """
    text = text[:MAX_CHARS]
    words = [match.span() for match in re.finditer(r"\S+", text)]
    places = words if len(words) > 2 * N_GRAM else [(at, at + 1) for at in range(len(text))]
    seen: set[tuple[str, ...]] = set()
    for start in range(len(places) - N_GRAM + 1):
        run = places[start : start + N_GRAM]
        items = tuple(text[first:last] for first, last in run)
        if items in seen:
            return run[0][0], run[-1][1]
        seen.add(items)
    return None
