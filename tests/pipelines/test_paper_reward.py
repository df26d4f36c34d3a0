"""A policy as a reward model: accuracy by subset on RewardBench's two layouts."""

import json
from pathlib import Path

import polars as pl
import pytest
import yaml

from dpo import load_tokenizer
from pipelines.commands import RecipeError
from pipelines.paper.reward.result import schema, summarize
from pipelines.paper.reward.run import measure, read
from tests.dpo.tiny import save_tiny, tiny_model
from tests.pipelines.invoked import Invoked

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "pipelines" / "paper" / "reward"


def test_rewards_are_counted_by_subset(tmp_path: Path) -> None:
    reference = save_tiny(tmp_path / "reference")
    tokenizer = load_tokenizer(reference)
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_model(vocabulary=len(tokenizer), seed=1).save_pretrained(tmp_path / "model")
    values = yaml.safe_load((HERE / "settings.yaml").read_text("utf-8"))
    places = {
        "model": str(tmp_path / "model"), "reference": reference, "out": str(tmp_path / "out"),
        "data": [str(HERE / "rows.jsonl")],
    }  # fmt: skip
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(values | places))
    invoked = Invoked()

    found = measure(read(file), invoked)

    assert invoked.names == ["dpo-score"]
    assert list(found.by) == ["arithmetic", "chat", "length-trap", "refusal"]
    assert [(of.pairs.pairs, of.rows.pairs) for of in found.by.values()] == [(6, 6)] * 4
    assert found.overall.pairs.pairs == 24
    assert found.left_out == 0
    scores = pl.read_parquet(tmp_path / "out" / "scores" / "scores.parquet")
    chat = scores.filter(pl.col("subset") == "chat")
    assert found.by["chat"].pairs.accuracy == pytest.approx((chat["margin"] > 0).mean(), abs=1e-6)
    written = json.loads((tmp_path / "out" / "result.json").read_bytes())
    assert written["settings"]["beta"] == 0.1


def test_a_row_counts_if_its_right_answer_is_above_all_wrong_ones() -> None:
    scores = pl.DataFrame(
        {
            "source": ["f"] * 5, "line": [1, 1, 1, 2, 2], "subset": ["a"] * 5,
            "margin": [0.2, 0.1, -0.3, 0.5, 0.1],
        }
    )  # fmt: skip

    found = summarize(scores, "subset", left_out=1, settings={}).by["a"]

    assert (found.pairs.accuracy, found.rows.accuracy, found.rows.pairs) == (0.8, 0.5, 2)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text((HERE / "settings.yaml").read_text("utf-8") + "modle: x\n")

    with pytest.raises(RecipeError, match="modle: no such key; did you mean 'model'"):
        read(file)
    assert read(HERE / "full.yaml").by == "subset"


def test_the_schema_of_the_result_is_current() -> None:
    remedy = "run `python -m pipelines.paper.reward.result schemas/reward.schema.json`"

    assert (ROOT / "schemas" / "reward.schema.json").read_text("utf-8") == schema(), remedy
