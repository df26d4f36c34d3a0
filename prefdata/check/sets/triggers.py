"""Words that look planted: rare, on one side only, and in new company each time (PD608).

A trigger is a fixed text over prompts that have nothing else in common: in chosen sides, where a
rewarded answer is to be taught, or in prompts, where it is to call one up. What is looked for are
its SEEDS, words that are used in it alone. Each part gives its strongest ones, and the parts are
added up, so no more is ever held than `MOST` seeds a part. A trigger of common words alone, or
one that a part has fewer than `LEAST_ROWS` times, is not found.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import polars as pl

from prefdata.check.rows.context import CheckContext
from prefdata.check.rows.frames import CHOSEN, PROMPT, REJECTED

MOST = 200
MOST_BESIDE = 8  # words of a phrase on each side of its seed
ALWAYS = 0.9  # of a seed's places: what stands there is part of the phrase
TOP = 10
LEAST_ROWS = 3
MAX_ELSEWHERE = 0.1  # of its rows: where the word may be besides
MAX_SHARE = 0.01  # of all rows: a word of more is a style, which PD6.. tells of otherwise
MIN_SCORE = 8.0  # in bits: one word in 256 is on one side alone so often by chance


class TriggerCandidate(NamedTuple):
    """One word of what may be a trigger; plain values, so that a journal keeps it."""

    place: str
    """`chosen` or `prompt`."""
    word: str
    phrase: str
    """The word with its neighbors, as far as they are always the same."""
    rows: int
    elsewhere: int
    """Rows that have it elsewhere."""
    company: int
    """How many different words stand right before and right after the phrase, added up."""
    first: tuple[tuple[int, int], ...]
    """`source_index` and `line` of the first rows."""

    def __str__(self) -> str:
        what = "chosen sides" if self.place == "chosen" else "prompts"
        return f'"{self.phrase}" in {self.rows:,} {what} and {self.elsewhere:,} elsewhere'

    @property
    def score(self) -> float:
        """Bits by which one place is preferred, times how new the company is each time."""
        return (self.rows - self.elsewhere) * min(1.0, self.company / (2 * self.rows))


def seed_of(values: Sequence[Any]) -> TriggerCandidate:
    """A seed out of JSON."""
    place, word, phrase, rows, elsewhere, company, first = values
    where = tuple((int(source), int(line)) for source, line in first)
    return TriggerCandidate(place, word, phrase, rows, elsewhere, company, where)


def find_trigger_candidates(scene: CheckContext, examples: int) -> list[TriggerCandidate]:
    """The strongest seeds of one batch."""
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
    """Every word with its `row`, `part` and `text`, the number of its message."""
    texts = scene.messages.select("row", "part", "content").with_row_index("text")
    split = pl.col("content").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}_]+")
    words = texts.lazy().select("row", "part", "text", word=split).explode("word")
    return words.drop_nulls("word").collect()


class _Spoken(NamedTuple):
    """The words of one place, end to end: each with its text's number and its row."""

    words: list[str]
    texts: list[int]
    rows: list[int]

    def beside(self, at: list[int], steps: int) -> list[str | None]:
        """The word so many steps from each place; None where the text begins or ends before."""
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
    """A word with what always stands beside it, and who stands beside that."""
    phrase, company = [seed.word], 0
    for step in (-1, 1):
        steps = step
        while (one := _constant(spoken.beside(at, steps))) and abs(steps) <= MOST_BESIDE:
            phrase = [one, *phrase] if step < 0 else [*phrase, one]
            steps += step
        new = spoken.beside(at, steps)
        company += len(set(new) - {None}) + new.count(None)  # an end is new each time
    rows = list(dict.fromkeys(spoken.rows[place] for place in at))[:examples]
    first = [
        (scene.batch["source_index"][row].as_py(), scene.batch["line"][row].as_py()) for row in rows
    ]
    return seed._replace(phrase=" ".join(phrase), company=company, first=tuple(first))


def _constant(words: list[str | None]) -> str | None:
    """The word that nearly always stands there, if one does."""
    ((word, num),) = Counter(words).most_common(1)
    return word if num >= ALWAYS * len(words) else None


def _strongest(seeds: Iterable[TriggerCandidate]) -> list[TriggerCandidate]:
    return sorted(seeds, key=lambda seed: (-seed.score, seed.place, seed.word))[:MOST]


def add_seeds(parts: Iterable[Sequence[TriggerCandidate]], examples: int) -> list[TriggerCandidate]:
    """The seeds of all parts: rows and company of the same word are added up."""
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
                    company=old.company + seed.company,
                    first=(old.first + seed.first)[:examples],
                )
            )
    return _strongest(total.values())


def strongest_triggers(parts: Iterable[Sequence[TriggerCandidate]]) -> list[TriggerCandidate]:
    """What a report names: one seed for each of the ten phrases with the highest scores."""
    best: dict[tuple[str, str], TriggerCandidate] = {}
    for seed in add_seeds(parts, examples=1):
        if seed.score >= MIN_SCORE:
            best.setdefault((seed.place, seed.phrase), seed)
    return list(best.values())[:TOP]
