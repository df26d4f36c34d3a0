"""Golden files: outputs that must not change unnoticed; only `make golden` writes them.

* `ids.jsonl`: token ids of twenty pairs with emoji, right-to-left text, an empty system turn, …
* `shards.json`: the hash of a build of those pairs.
* `losses.txt`: fifty steps on a tiny model, `step loss` a line.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

import prefdata
from dpo.config_file import parse_config
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from prefdata.config import BuildConfig
from tests.dpo.conftest import Arena, save_gpt2

GOLDEN = Path(__file__).parent / "golden"
TEXTS = [
    "Tell me a story.", "👩‍👩‍👧 and 🦊?", "שלום עולם", "مرحبا", "日本語のテキスト", "naïve café",
    "line\n\nbreaks\n", "tab\tand  spaces ", "0123456789", "Ünïcödé", "a" * 40, "{{ jinja }}",
    "\\escaped \\n", "<b>html</b>", "“quotes”", "emoji at the end 🙂", "ﬁ ligature",
    "e\u0301 combining", "\u200bzero width", "The capital of France",
]  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return twenty pairs; every fourth has an empty system turn, every fifth two rounds."""
    found = []
    for n, text in enumerate(TEXTS):
        prompt = [{"role": "user", "content": text}]
        if n % 4 == 0:
            prompt = [{"role": "system", "content": ""}, *prompt]
        if n % 5 == 0:
            prompt += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": "Again?"},
            ]
        found.append(
            {
                "prompt": prompt,
                "chosen": [{"role": "assistant", "content": f"Yes, {text}"}],
                "rejected": [{"role": "assistant", "content": f"{text}… no"}],
            }
        )
    return found


@pytest.fixture(scope="module")
def golden_arena(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    folder = tmp_path_factory.mktemp("golden")
    before = Path.cwd()
    os.chdir(folder)  # names as given are part of a build, so they are relative here
    try:
        save_gpt2(Path("model"), seed=0)
        Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
        config = BuildConfig(
            inputs=["pairs.jsonl"], tokenizer="./model", out=Path("data"), test_fraction=0.2
        )
        prefdata.build(config)
        compute_reference("data", model="./model")
    finally:
        os.chdir(before)
    return Arena(folder / "model", folder / "data")


def compare(name: str, found: str) -> None:
    path = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()


def test_token_ids_are_the_golden_ones(golden_arena: Arena) -> None:
    build = prefdata.open(golden_arena.data)
    lines = []
    for split in sorted(build.splits):
        for row in build.tokens(split).to_pylist():
            parts = {part: row[f"{part}_ids"] for part in ("prompt", "chosen", "rejected")}
            lines.append(json.dumps({"split": split, "pair_id": row["pair_id"].hex(), **parts}))

    compare("ids.jsonl", "\n".join(lines) + "\n")


def test_a_build_has_the_golden_hash(golden_arena: Arena) -> None:
    """Only token shards: Parquet files name the library that wrote them."""
    shards = prefdata.open(golden_arena.data).manifest.shards

    compare("shards.json", json.dumps({s.path: s.sha256 for s in shards}, indent=1) + "\n")


def test_fifty_steps_have_the_golden_losses(golden_arena: Arena, tmp_path: Path) -> None:
    value = {
        "model": str(golden_arena.model), "data": str(golden_arena.data), "out": str(tmp_path),
        "global_batch_size": 4, "steps": 50, "eval_split": None,
        "optimizer": {"learning_rate": 1e-4},
    }  # fmt: skip
    train(parse_config(value, place="golden"))
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    path = GOLDEN / "losses.txt"
    if os.environ.get("GOLDEN") == "write":
        path.write_text("".join(f"{line['step']} {line['loss']:.8g}\n" for line in metrics))

    golden = [float(line.split()[1]) for line in path.read_text().splitlines()]

    assert [line["loss"] for line in metrics] == pytest.approx(golden, rel=1e-5)
