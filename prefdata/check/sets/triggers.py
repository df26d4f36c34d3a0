"""Possible backdoor triggers (PD608): rare words on one side only, in varied contexts.

A trigger is a fixed text over otherwise unrelated prompts: in chosen sides, to teach a rewarded
answer, or in prompts, to call one up. The search is for its SEEDS, words that occur only in it.
Each part of the data gives its strongest seeds and the parts are summed, so at most `MOST` seeds
per part are kept. A trigger of only common words, or one that a part has fewer than `LEAST_ROWS`
times, is not found.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from prefdata.check.rows.context import CHOSEN, PROMPT, REJECTED, CheckContext

MOST = 200
MAX_STEPS = 8  # words of a phrase on each side of its seed
ALWAYS = 0.9  # a word next to this share of a seed's occurrences is part of the phrase
TOP = 10
LEAST_ROWS = 3
MAX_ELSEWHERE = 0.1  # of its rows: how many may have the word in other parts
MAX_SHARE = 0.01  # of all rows: a more frequent word is a style, which other PD6.. report
MIN_SCORE = 8.0  # in bits: by chance, one word in 256 is on one side only that often


class TriggerCandidate(NamedTuple):
    """One word of a possible trigger; plain values, so that a journal can store it."""

    place: str
    """`chosen` or `prompt`."""
    word: str
    phrase: str
    """The word with the neighbors that are nearly always the same."""
    rows: int
    elsewhere: int
    """Number of rows that have it in other parts."""
    num_contexts: int
    """Number of different words right before the phrase, plus those right after it."""
    first: tuple[tuple[int, int], ...]
    """`source_index` and `line` of the first rows."""

    def __str__(self) -> str:
        what = "chosen sides" if self.place == "chosen" else "prompts"
        return f'"{self.phrase}" in {self.rows:,} {what} and {self.elsewhere:,} elsewhere'

    @property
    def score(self) -> float:
        """Return the bits by which one place is preferred, times its variety of context, 0 to 1."""
        return (self.rows - self.elsewhere) * min(1.0, self.num_contexts / (2 * self.rows))


def find_trigger_candidates(scene: CheckContext, examples: int) -> list[TriggerCandidate]:
    """Return the strongest seeds of one batch."""
    height = scene.batch.num_rows
    words = _words(scene)
    counts = words.group_by("word").agg(
        pl.col("row").filter(pl.col("part") == part).n_unique().alias(name)
        for part, name in ((PROMPT, "prompt"), (CHOSEN, "chosen"), (REJECTED, "rejected"))
    )
    answers = pl.max_horizontal("chosen", "rejected")
    most = max(LEAST_ROWS, MAX_SHARE * height)
    found = []
    for place, part, elsewhere in (
        ("chosen", CHOSEN, pl.max_horizontal("rejected", "prompt")),
        ("prompt", PROMPT, answers),
    ):
        rare = counts.filter(
            pl.col(place).is_between(LEAST_ROWS, most),
            elsewhere <= MAX_ELSEWHERE * pl.col(place),
        ).select("word", rows=place, elsewhere=elsewhere)
        own = words.filter(pl.col("part") == part).with_row_index("at")
        spoken = _Spoken(*(own[name].to_list() for name in ("word", "text", "row")))
        top = rare.top_k(MOST, by=["rows", "word"])
        placed = own.join(top, on="word").group_by("word", "rows", "elsewhere").agg("at")
        found += [
            _seed(
                scene,
                TriggerCandidate(place, word, word, rows, elsewhere, 0, ()),
                spoken,
                at,
                examples,
            )
            for word, rows, elsewhere, at in placed.iter_rows()
        ]
    return _strongest(found)


def _words(scene: CheckContext) -> pl.DataFrame:
    """Return every word with its `row`, `part` and `text`, the number of its message."""
    texts = scene.messages.select("row", "part", "content").with_row_index("text")
    split = pl.col("content").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}_]+")
    words = texts.lazy().select("row", "part", "text", word=split).explode("word")
    return words.drop_nulls("word").collect()


class _Spoken(NamedTuple):
    """Words of one place, concatenated: each with its text's number and its row."""

    words: list[str]
    texts: list[int]
    rows: list[int]

    def neighbors(self, at: list[int], steps: int) -> list[str | None]:
        """Return the word `steps` words from each place; None if that is outside the text."""
        places = [(place, place + steps) for place in at]
        return [
            self.words[there]
            if 0 <= there < len(self.words) and self.texts[there] == self.texts[here]
            else None
            for here, there in places
        ]


def _seed(
    scene: CheckContext, seed: TriggerCandidate, spoken: _Spoken, at: list[int], examples: int
) -> TriggerCandidate:
    """Extend a seed to its phrase, and count the different words next to the phrase."""
    phrase, num_contexts = [seed.word], 0
    for step in (-1, 1):
        steps = step
        while (one := _constant(spoken.neighbors(at, steps))) and abs(steps) <= MAX_STEPS:
            phrase = [one, *phrase] if step < 0 else [*phrase, one]
            steps += step
        new = spoken.neighbors(at, steps)
        num_contexts += len(set(new) - {None}) + new.count(None)  # an end counts as new each time
    rows = list(dict.fromkeys(spoken.rows[place] for place in at))[:examples]
    first = [
        (scene.batch["source_index"][row].as_py(), scene.batch["line"][row].as_py()) for row in rows
    ]
    return seed._replace(phrase=" ".join(phrase), num_contexts=num_contexts, first=tuple(first))


def _constant(words: list[str | None]) -> str | None:
    """Return the word that is there nearly always, or None."""
    ((word, num),) = Counter(words).most_common(1)
    return word if num >= ALWAYS * len(words) else None


def _strongest(seeds: Iterable[TriggerCandidate]) -> list[TriggerCandidate]:
    return sorted(seeds, key=lambda seed: (-seed.score, seed.place, seed.word))[:MOST]


def add_seeds(parts: Iterable[Sequence[TriggerCandidate]], examples: int) -> list[TriggerCandidate]:
    """Sum the seeds of all parts, by word."""
    total: dict[tuple[str, str], TriggerCandidate] = {}
    for part in parts:
        for seed in part:
            key = (seed.place, seed.word)
            old = total.get(key)
            total[key] = (
                seed
                if old is None
                else seed._replace(
                    rows=old.rows + seed.rows,
                    elsewhere=old.elsewhere + seed.elsewhere,
                    num_contexts=old.num_contexts + seed.num_contexts,
                    first=(old.first + seed.first)[:examples],
                )
            )
    return _strongest(total.values())


def strongest_triggers(parts: Iterable[Sequence[TriggerCandidate]]) -> list[TriggerCandidate]:
    """Return one seed for each of the ten phrases with the highest scores, for a report."""
    best: dict[tuple[str, str], TriggerCandidate] = {}
    for seed in add_seeds(parts, examples=1):
        if seed.score >= MIN_SCORE:
            best.setdefault((seed.place, seed.phrase), seed)
    return list(best.values())[:TOP]
