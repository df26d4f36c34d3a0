"""Pairs with planted noise: swapped labels, and near-copies."""

import random
from pathlib import Path
from typing import Any, NamedTuple

import orjson

ENDINGS = ("Really.", "Honestly.", "Truly.", "Overall.", "Indeed.", "Anyway.", "Period.", "Okay.")
"""Words that a near-copy has at the end of its chosen side, and the original has not."""
Row = dict[str, Any]


class Planted(NamedTuple):
    """Training pairs as they were, with noise, and the held-out pairs."""

    true: list[Row]
    noisy: list[Row]
    held_out: list[Row]


def read_pairs(path: Path) -> list[Row]:
    """Return best against worst of each row of ranked completions."""
    rows = []
    for line in path.read_bytes().splitlines():
        row = orjson.loads(line)
        ranked = sorted(row["completions"], key=lambda one: one["rank"])
        rows.append(_pair(row["prompt"], ranked[0]["text"], ranked[-1]["text"]))
    return rows


def _pair(prompt: Any, chosen: str, rejected: str, **meta: Any) -> Row:
    sides = {"chosen": chosen, "rejected": rejected}
    said = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
    return {"prompt": prompt, **said, "meta": meta}


def plant(rows: list[Row], settings: Any, seed: int) -> Planted:
    """Return pairs with `flipped` of their labels swapped and `copied` of them nearly copied."""
    drawn = random.Random(seed)
    order = drawn.sample(range(len(rows)), len(rows))
    held_out = [rows[at] for at in sorted(order[: settings.held_out])]
    true = [rows[at] for at in sorted(order[settings.held_out :])]
    flips = set(drawn.sample(range(len(true)), round(settings.flipped * len(true))))
    noisy = [_flip(row) if at in flips else row for at, row in enumerate(true)]
    copied = drawn.sample(range(len(true)), round(settings.copied * len(true)))
    copies = [
        _copy(noisy[at], ending)
        for at in copied
        for ending in drawn.sample(ENDINGS, settings.copies)
    ]
    mixed = [*noisy, *copies]
    return Planted(true, drawn.sample(mixed, len(mixed)), held_out)


def _flip(row: Row) -> Row:
    meta = {**row["meta"], "flipped": True}
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"], "meta": meta}


def _copy(row: Row, ending: str) -> Row:
    said = [{"role": "assistant", "content": f"{row['chosen'][0]['content']} {ending}"}]
    return {**row, "chosen": said, "meta": {**row["meta"], "copy": True}}


def folds(rows: list[Row]) -> list[list[Row]]:
    """Return two halves, by prompt, so that copies of a pair are in the same one."""
    prompts = list(dict.fromkeys(orjson.dumps(row["prompt"]) for row in rows))
    half = {prompt: at % 2 for at, prompt in enumerate(prompts)}
    return [[row for row in rows if half[orjson.dumps(row["prompt"])] == fold] for fold in (0, 1)]
