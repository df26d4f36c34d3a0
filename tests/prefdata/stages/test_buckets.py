"""A build has the same bytes in many tiny buckets as in one."""

import random
from pathlib import Path
from typing import Any

import pytest

import prefdata
from prefdata.config import make_config
from prefdata.engine import exchange
from prefdata.errors import PrefdataError
from prefdata.read.files import chunks
from prefdata.store.reader import Build
from prefdata.validation import ValidateOptions, validate
from tests.prefdata.conftest import write_rows

WORDS = [f"w{number}" for number in range(300)]
Row = dict[str, object]


def rows_of(seed: int, number: int) -> list[Row]:
    """Return rows with copies, near-duplicates, contradictions, cycles and frequent completions."""
    draw = random.Random(seed)
    prompts = [" ".join(draw.choices(WORDS, k=12)) for _ in range(number // 3)]
    rows: list[Row] = []
    while len(rows) < number:
        prompt = draw.choice(prompts)
        if draw.random() < 0.2:
            prompt = f"{prompt} more"
        chosen, rejected = draw.sample(["alpha one", "beta two", "gamma three", "delta"], 2)
        if draw.random() < 0.5:
            chosen = " ".join(draw.choices(WORDS, k=8))
        row: Row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        row |= {"license": draw.choice(["mit", "bsd"])} if draw.random() < 0.5 else {}
        row["conversation_id"] = f"c{draw.randrange(number)}"
        rows.append(dict(draw.choice(rows)) if rows and draw.random() < 0.1 else row)
    return rows


CASES: dict[str, dict[str, Any]] = {
    "prompts": {"severity": {"PD402": "E", "PD403": "E"}},
    "pairs": {
        "severity": {"PD402": "E"},
        "near_duplicates": {"unit": "pair", "keep": "longest", "threshold": 0.4, "words": 2},
    },
    "reported": {"near_duplicates": {"unit": "completion"}, "max_length": 130},
    "leaks": {"inputs": ["train.jsonl", "test.jsonl"], "severity": {"PD402": "E"}},
    "weights": {"inputs": [{"path": "train.jsonl", "weight": 1.5}, {"path": "test.jsonl"}],
                "resplit": True},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_buckets_change_no_byte(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chunks, "PART_BYTES", 4000)
    write_rows(tmp_path / "train.jsonl", rows_of(0, 150))
    write_rows(tmp_path / "test.jsonl", rows_of(0, 20) + rows_of(1, 30))
    values = {"inputs": ["train.jsonl"], "tokenizer": str(tiny), "text": "chat", "shard_rows": 40}
    values |= {"checks": {"max_prompts_per_completion": 5, "max_pairs_per_prompt": 3}}

    def build(name: str) -> Build:
        config = make_config({**values, **CASES[case], "out": name}, place="test")
        return prefdata.build(config)

    one = build("one")
    monkeypatch.setattr(exchange, "BUCKET_ROWS", 11)
    many = build("many")

    assert one.manifest.hash == many.manifest.hash
    assert one.manifest.lines.duplicates
    assert not list((tmp_path / "many").glob(".building/*"))


def test_buckets_change_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "train.jsonl", rows_of(0, 150))
    write_rows(tmp_path / "test.jsonl", rows_of(0, 40) + rows_of(1, 30))
    names = [str(tmp_path / name) for name in ("train.jsonl", "test.jsonl")]

    one = validate(names, ValidateOptions(text="chat"))
    monkeypatch.setattr(exchange, "BUCKET_ROWS", 11)
    many = validate(names, ValidateOptions(text="chat"))

    assert one == many
    assert {"PD406", "PD504", "PD505"} <= {finding.code for finding in one.findings}


def test_a_set_of_which_nothing_is_left_says_why(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BUCKET_ROWS", 2)
    rows = [{"prompt": "p", "chosen": "same", "rejected": "same"}] * 5
    write_rows(tmp_path / "rows.jsonl", rows)

    with pytest.raises(PrefdataError, match=r"PD301 .* 5"):
        prefdata.build(str(tmp_path / "rows.jsonl"), tokenizer=str(tiny), out=tmp_path / "out")
