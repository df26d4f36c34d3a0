"""The recipe's data is what its sources make, and what its README says."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.quickstart.make_data import HERE, SAMPLING, keep_clear, prompt_lines
from pipelines.quickstart.result import schema
from pipelines.quickstart.scorer import compound

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_bytes().splitlines()]


@pytest.mark.parametrize(("part", "name"), [("pairs", "prompts"), ("held_out", "held_out")])
def test_prompts_are_those_of_the_beginnings(part: str, name: str) -> None:
    assert (HERE / f"{name}.jsonl").read_text(encoding="utf-8") == prompt_lines(part)


def test_every_beginning_is_short_and_told_once() -> None:
    parts = yaml.safe_load((HERE / "beginnings.yaml").read_text(encoding="utf-8"))
    counts = {part: sum(map(len, topics.values())) for part, topics in parts.items()}
    beginnings = [b for topics in parts.values() for found in topics.values() for b in found]

    assert counts == {"pairs": 480, "held_out": 120}
    assert len({b.lower().strip(" ,.") for b in beginnings}) == len(beginnings)
    assert all(2 <= len(b.split()) <= 8 for b in beginnings)


def test_every_prompt_has_four_samples_ranked_by_the_scorer() -> None:
    rows = read("samples.jsonl")

    assert [row["meta"] for row in rows] == [row["meta"] for row in read("prompts.jsonl")]
    for row in rows:
        texts = [completion["text"] for completion in row["completions"]]
        scores = compound(prompts=[row["prompt"]] * len(texts), completions=texts)
        assert len(texts) == int(SAMPLING["-k"])
        assert [completion["score"] for completion in row["completions"]] == scores
        assert scores == sorted(scores, reverse=True)


def test_pairs_are_those_of_the_samples() -> None:
    samples = (HERE / "samples.jsonl").read_text(encoding="utf-8")

    assert (HERE / "pairs.jsonl").read_text(encoding="utf-8") == keep_clear(samples)
    assert len(read("pairs.jsonl")) >= 350


def test_cut_completions_and_faint_preferences_are_left_out_and_the_rest_ranked_anew() -> None:
    def row(*items: tuple[str, float, bool]) -> str:
        completions = [{"text": t, "score": s, "ended": e, "rank": 9} for t, s, e in items]
        return json.dumps({"completions": completions}) + "\n"

    mixed = row(("a", 0.9, False), ("b", 0.8, True), ("c", 0.4, True), ("d", 0.4, True))
    lone = row(("a", 0.9, True), ("b", 0.1, False))
    faint = row(("a", 0.9, True), ("b", 0.8, True))
    cut = row(("a", 0.9, False), ("b", 0.1, False))

    (kept,) = [json.loads(x) for x in keep_clear(mixed + lone + faint + cut).splitlines()]

    assert [(c["text"], c["rank"]) for c in kept["completions"]] == [("b", 1), ("c", 2), ("d", 2)]


def test_the_data_is_small() -> None:
    assert sum(path.stat().st_size for path in HERE.glob("*.jsonl")) <= 2_000_000


def test_the_scorer_knows_praise_from_complaint() -> None:
    texts = ["A wonderful, delightful meal.", "It has a door.", "A horrible, disgusting meal."]

    good, neutral, bad = compound(prompts=[""] * 3, completions=texts)

    assert good > 0.8
    assert neutral == 0.5
    assert bad < 0.2


def test_the_schema_of_the_result_is_current() -> None:
    remedy = "run `python -m pipelines.quickstart.result schemas/result.schema.json`"

    assert (ROOT / "schemas/result.schema.json").read_text(encoding="utf-8") == schema(), remedy
