"""Implicit rewards are the paper's, and pairs that contradict them most are listed first."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

import prefdata
from dpo.cli import score as command
from dpo.errors import UsageError as DpoUsageError
from dpo.scoring.rewards import accuracy_of, calibrate
from dpo.scoring.run import ScoreOptions, score
from prefdata.errors import CodedError
from tests.dpo.conftest import Arena, save_gpt2


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("policy") / "model", seed=7)


def plain_logp(model: Any, prompt: list[int], completion: list[int]) -> float:
    """Return the log-prob by transformers' own forward."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0]
    logps = torch.log_softmax(logits[len(prompt) - 1 : -1].double(), -1)
    return float(logps[range(len(completion)), completion].sum())


def test_rewards_are_beta_times_the_log_ratio_of_plain_forwards(
    arena: Arena, policy: Path, tmp_path: Path
) -> None:
    score([str(arena.data)], tmp_path, ScoreOptions(str(policy), beta=0.3))
    rows = pl.read_parquet(tmp_path / "scores.parquet")
    models = [AutoModelForCausalLM.from_pretrained(p).eval() for p in (policy, arena.model)]
    build = prefdata.open(arena.data)
    tokens = [row for split in build.splits for row in build.tokens(split).to_pylist()]

    assert rows["pair_id"].to_list() == [row["pair_id"].hex() for row in tokens]
    for found, row in list(zip(rows.to_dicts(), tokens, strict=True))[::5]:
        for side in ("chosen", "rejected"):
            ours, ref = (plain_logp(m, row["prompt_ids"], row[f"{side}_ids"]) for m in models)
            assert found[f"reward_{side}"] == pytest.approx(0.3 * (ours - ref), abs=1e-3)
        assert found["chance"] == pytest.approx(1 / (1 + np.exp(-found["margin"])))


def test_a_policy_that_is_its_reference_prefers_nothing(arena: Arena, tmp_path: Path) -> None:
    report = score([str(arena.data)], tmp_path, ScoreOptions(str(arena.model)))

    assert report.overall.accuracy == 0.5
    assert (tmp_path / "suspects.jsonl").read_bytes() == b""


def test_files_are_built_and_accuracy_is_reported_by_source_and_by_meta(
    arena: Arena, policy: Path, tmp_path: Path
) -> None:
    for name, kind in (("a", "x"), ("b", "y")):
        row = {"prompt": f"Tell me {name}", "chosen": " a story", "rejected": " no", "kind": kind}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    options = ScoreOptions(str(policy), reference=str(arena.model), subsets=("kind",))

    report = score(files, tmp_path / "out", options)

    assert [part.pairs for part in report.by["source"]] == [1, 1]
    assert [part.name for part in report.by["kind"]] == ["x", "y"]
    # another policy replaces the first, whose log-probs cannot be used
    again = score(files, tmp_path / "out", options._replace(model=str(arena.model)))
    assert again.overall.accuracy == 0.5


def test_directories_and_globs_are_read_as_a_build_reads_them(arena: Arena, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        row = {"prompt": f"Tell me {name}", "chosen": " a story", "rejected": " no"}
        place = tmp_path / ("more" if name == "c" else "set") / f"{name}.jsonl"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(row) + "\n")
    options = ScoreOptions(str(arena.model), reference=str(arena.model))
    data = [str(tmp_path / "set"), str(tmp_path / "mo*" / "*.jsonl")]

    report = score(data, tmp_path / "out", options)

    assert [part.name for part in report.by["source"]] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert not list(arena.data.glob("scores"))
    score([str(arena.data)], arena.data / "scores", ScoreOptions(str(arena.model)))
    shutil.rmtree(arena.data / "scores")
    for wrong, out, code in (
        ([str(tmp_path / "set")], tmp_path / "set" / "out", "E170"),
        ([*data, str(arena.data)], tmp_path / "other", "T150"),
        ([str(tmp_path)], tmp_path / "out", "E170"),
    ):
        with pytest.raises(CodedError) as caught:
            score(wrong, out, options)
        assert caught.value.code == code


def test_suspects_are_the_pairs_that_the_policy_contradicts_most_first(
    arena: Arena, policy: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(
        command, [str(policy), str(arena.data), "-o", str(tmp_path), "--suspects", "0.3"]
    )
    assert result.exit_code == 0, result.output
    rows = pl.read_parquet(tmp_path / "scores.parquet")
    suspects = [json.loads(line) for line in (tmp_path / "suspects.jsonl").read_text().splitlines()]

    margins = [suspect["margin"] for suspect in suspects]
    assert margins == sorted(margins)
    assert margins[-1] < 0
    assert len(margins) == min(int(np.ceil(0.3 * len(rows))), int((rows["margin"] < 0).sum()))
    assert margins == rows["margin"].sort().head(len(margins)).to_list()


def test_calibration_is_right_for_known_chances() -> None:
    generator = np.random.default_rng(0)
    chance = generator.uniform(0.5, 0.99, 20_000)
    signs = np.where(generator.uniform(size=20_000) < chance, 1, -1)
    margins = signs * np.log(chance / (1 - chance))

    assert all(abs(one.confidence - one.accuracy) < 0.03 for one in calibrate(margins))
    assert accuracy_of("", np.zeros(4)).accuracy == 0.5


def test_two_references_are_one_too_many(arena: Arena, tmp_path: Path) -> None:
    words = [str(arena.model), str(arena.data), "-o", str(tmp_path), "--reference-name", "x"]
    result = CliRunner().invoke(command, [*words, "--reference", str(arena.model)])

    assert result.exit_code == 2
    assert "[T151]" in result.output


def test_a_build_without_the_reference_is_refused(arena: Arena, tmp_path: Path) -> None:
    words = [str(arena.model), str(arena.data), "-o", str(tmp_path), "--reference-name", "none"]
    result = CliRunner().invoke(command, words)

    assert result.exit_code == 2
    assert "[T203]" in result.output


@pytest.mark.parametrize("key", ["margin", "reward_chosen", "pair_id", "[", "", "..x["])
def test_an_invalid_key_is_refused(key: str, arena: Arena, tmp_path: Path) -> None:
    with pytest.raises(DpoUsageError, match="C122"):
        score([str(arena.data)], tmp_path / "o", ScoreOptions("m", subsets=(key,)))
    assert not (tmp_path / "o").exists()
