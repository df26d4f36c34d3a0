"""Texts for supervised fine-tuning, prompts, and pairs, from the quickstart's files."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).resolve().parents[2] / "quickstart"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def sft_rows() -> list[dict[str, Any]]:
    """Return whole sentences of reviews, good and bad, each split after its given beginning.

    Pairs are what dpo-train reads, and `loss: sft` uses only the chosen side: the rejected one is a
    period.
    """
    return [
        {"prompt": beginning, "chosen": completion["text"][len(beginning) :], "rejected": "."}
        for row in read_rows(QUICKSTART / "samples.jsonl")
        for beginning in [row["meta"]["beginning"]]
        for completion in row["completions"]
        if completion["ended"] and completion["text"].startswith(beginning + " ")
    ]


def prompt_rows(name: str, count: int) -> list[dict[str, Any]]:
    """Return the beginnings of `prompts` or `held_out` as prompts that a model continues.

    Every n-th is taken, so that few prompts have many topics too.
    """
    rows = read_rows(QUICKSTART / f"{name}.jsonl")
    some = islice(rows, 0, None, max(1, len(rows) // count))
    return [{"prompt": row["meta"]["beginning"]} for row in islice(some, count)]


def keep_ended(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with completions that the model ended, if two of them differ in score.

    A lexicon's score grows with length, so truncated sentences would teach the model never to end.
    """
    kept = []
    for row in rows:
        ended = [completion for completion in row["completions"] if completion["ended"]]
        if len({completion["score"] for completion in ended}) > 1:
            kept.append(row | {"completions": ended})
    return kept
