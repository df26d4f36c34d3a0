"""The recipe's data is what its sources make, and what its README says."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.quickstart.make_data import HERE, SAMPLING, keep_whole, prompt_lines
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


def test_pairs_are_whole_sentences_ranked_by_the_scorer() -> None:
    rows = read("pairs.jsonl")

    for row in rows:
        texts = [completion["text"] for completion in row["completions"]]
        scores = compound(prompts=[row["prompt"]] * len(texts), completions=texts)
        ranks = [completion["rank"] for completion in row["completions"]]
        assert 2 <= len(texts) <= int(SAMPLING["-k"])
        assert all(completion["ended"] for completion in row["completions"])
        assert [completion["score"] for completion in row["completions"]] == scores
        assert scores == sorted(scores, reverse=True)
        assert ranks == [sorted(set(scores), reverse=True).index(s) + 1 for s in scores]
        assert ranks[-1] > 1


def test_nearly_every_beginning_gives_a_pair() -> None:
    told = {row["meta"]["beginning"] for row in read("pairs.jsonl")}
    asked = {row["meta"]["beginning"] for row in read("prompts.jsonl")}

    assert told <= asked
    assert len(told) >= 460


def test_cut_completions_are_left_out_and_the_rest_ranked_anew() -> None:
    def row(*items: tuple[str, float, bool]) -> str:
        completions = [{"text": t, "score": s, "ended": e, "rank": 9} for t, s, e in items]
        return json.dumps({"completions": completions}) + "\n"

    mixed = row(("a", 0.9, False), ("b", 0.8, True), ("c", 0.5, True), ("d", 0.5, True))
    lone = row(("a", 0.9, True), ("b", 0.8, False))

    (kept,) = [json.loads(line) for line in keep_whole(mixed + lone).splitlines()]

    assert [(c["text"], c["rank"]) for c in kept["completions"]] == [("b", 1), ("c", 2), ("d", 2)]


def test_the_raw_file_is_small() -> None:
    assert (HERE / "pairs.jsonl").stat().st_size <= 2_000_000


def test_the_scorer_knows_praise_from_complaint() -> None:
    texts = ["A wonderful, delightful meal.", "It has a door.", "A horrible, disgusting meal."]

    good, neutral, bad = compound(prompts=[""] * 3, completions=texts)

    assert good > 0.8
    assert neutral == 0.5
    assert bad < 0.2


def test_the_schema_of_the_result_is_current() -> None:
    remedy = "run `python -m pipelines.quickstart.result schemas/result.schema.json`"

    assert (ROOT / "schemas/result.schema.json").read_text(encoding="utf-8") == schema(), remedy
