"""Pairs and settings that both sides of a comparison share."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BETA, RATE, LENGTH, BATCH, GROUPS = 0.1, 1e-6, 512, 8, 2
PARTS = ("prompt", "chosen", "rejected")


def choose_rows(folder: Path, options: argparse.Namespace) -> int:
    """Write the rows of all steps in order: a file for our side, messages for TRL."""
    import prefdata
    from dpo.data.sampler import make_order

    whole = prefdata.build(build_config(options.data, options.model, folder / "whole"))
    units = fitting_units(whole, options)
    count = options.steps * units_of_step(options)
    places = [round(n * (len(units) - 1) / (count - 1)) for n in range(count)]
    text = whole.text("train").take([row for place in places for row in units[place]])
    write_lines(folder / "pairs.jsonl", map(plain, text.to_pylist()))
    made = prefdata.build(build_config(folder / "pairs.jsonl", options.model, folder / "order"))
    kept = made.text("train").to_pylist()
    order = make_order(train_pairs(made), train_config(options, folder / "order", folder))
    rows = [row for step in range(1, options.steps + 1) for row in order.rows(step)]
    write_lines(folder / "ordered.jsonl", (plain(kept[row]) for row in rows))
    return len(rows)


def fitting_units(build: Any, options: argparse.Namespace) -> list[list[int]]:
    """Return single pairs, or all pairs of each prompt with `completions` of them, in order."""
    import numpy as np

    pairs = train_pairs(build)
    if options.completions > 2:
        units = map(list, pairs.each_group())
        return [unit for unit in units if len(unit) == pairs_of_unit(options)]
    prompts = np.array([len(pairs[row].prompt) for row in range(len(pairs))])
    is_long = prompts >= options.long_prompts * (np.asarray(pairs.sizes) - prompts) / 2
    return [[int(row)] for row in np.flatnonzero(is_long)]


def pairs_of_unit(options: argparse.Namespace) -> int:
    return int(options.completions * (options.completions - 1) // 2)


def units_of_step(options: argparse.Namespace) -> int:
    return GROUPS if options.completions > 2 else BATCH


def train_pairs(build: Any) -> Any:
    from dpo.data.pairs import Pairs

    return Pairs(build.shards("train"))


def build_config(data: Path | str, model: str, out: Path) -> Any:
    from prefdata.config import BuildConfig

    values = {
        "inputs": [str(data)], "tokenizer": model, "out": str(out), "max_length": LENGTH,
        "test_fraction": 0.0, "pairing": {"strategy": "all"}, "severity": {"PD402": "off"},
    }  # fmt: skip
    return BuildConfig.model_validate(values)


def train_config(options: argparse.Namespace, data: Path, out: Path) -> Any:
    from dpo.config import TrainConfig

    values = {
        "model": options.model, "data": data, "out": out,
        "global_batch_size": units_of_step(options), "steps": options.steps,
        "batch_unit": "groups" if options.completions > 2 else "pairs",
        "loss": {"name": "dpo", "beta": BETA}, "eval_split": None,
        "optimizer": {"learning_rate": RATE}, "mixed_precision": options.precision,
        "pack_tokens": options.pack_tokens,
    }  # fmt: skip
    return TrainConfig.model_validate(values)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row's three parts as messages of role and content, or as text if they are text."""
    return {
        part: row[part]
        if isinstance(row[part], str)
        else [{"role": m["role"], "content": m["content"]} for m in row[part]]
        for part in PARTS
    }


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
