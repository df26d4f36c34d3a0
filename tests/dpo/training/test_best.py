"""The best evaluation is kept, and runs that no longer improve end; both resume to the bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dpo.artifacts.summary import RunSummary, read_summary
from dpo.config import TrainConfig
from dpo.errors import TrainingError, UsageError
from dpo.saving_config import EarlyStopping
from dpo.training.best import Watch
from dpo.training.loop import train
from tests.dpo.conftest import open_alone

ConfigOf = Callable[..., TrainConfig]
KL = "eval/kl_estimate"
RISES: dict[str, Any] = {
    "steps": 12, "eval_every": 2, "optimizer": {"learning_rate": 5e-2}, "keep_checkpoints": 1,
}  # fmt: skip
"""At so high a rate `eval/kl_estimate` is best long before the last step."""


def watch(config_of: ConfigOf, **changes: Any) -> Watch:
    return Watch(config_of(eval_every=1, **changes))


def summary_of(out: Path) -> RunSummary:
    found = read_summary(out)
    assert found is not None
    return found


def evaluations(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[KL] for line in lines if KL in line}


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("eval/loss", [0.7, 0.5, 0.6, 0.5], 2), ("eval/kl_estimate", [1.0, 2.0], 1),
        ("eval/rewards/margins", [0.1, 0.3, 0.2], 2), ("eval/logps/rejected", [-5.0, -7.0], 2),
        ("eval/rewards/accuracies/hh.jsonl", [0.5, float("nan"), 0.5], 1),
        ("eval/loss", [float("nan"), 0.5], 2),
    ],
)  # fmt: skip
def test_a_metrics_name_decides_what_is_best(
    metric: str, values: list[float], best: int, config_of: ConfigOf
) -> None:
    seen = watch(config_of, keep_best=metric)
    for step, value in enumerate(values, 1):
        seen.sees(step, {metric: value})

    assert seen.best is not None
    assert seen.best.step == best


def test_patience_counts_evaluations_without_a_large_enough_improvement(
    config_of: ConfigOf,
) -> None:
    stop = {"patience": 2, "min_delta": 0.1}
    seen = watch(config_of, early_stopping=stop)
    over = []
    for step, value in enumerate([0.7, 0.5, 0.45, 0.39, 0.35, 0.31], 1):
        seen.sees(step, {"eval/loss": value})
        over.append(seen.is_over)

    assert over == [False, False, False, False, False, True]
    assert seen.why == "eval/loss has not improved on 0.39 of step 4 in 2 evaluations"


@pytest.mark.parametrize("metric", ["loss", "eval/los", "eval/rewards", "test/loss"])
def test_a_metric_that_evaluations_do_not_have_is_refused(metric: str, config_of: ConfigOf) -> None:
    with pytest.raises(UsageError, match=r"keep_best: .* is not a metric of an evaluation.*T122"):
        config_of(keep_best=metric, eval_every=1)


@pytest.mark.parametrize(
    "setting", [{"keep_best": "eval/loss"}, {"early_stopping": {"patience": 1}}]
)
def test_what_watches_evaluations_needs_them(setting: dict[str, Any], config_of: ConfigOf) -> None:
    with pytest.raises(UsageError, match=r"need eval_every.*T122"):
        config_of(**setting)
    with pytest.raises(UsageError, match=r"no evaluation of this run has.*T149"):
        open_alone(config_of(keep_best="eval/rewards/accuracies/no.jsonl", eval_every=1))


@pytest.fixture(scope="module")
def best_run(arena: Any, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Train with a rate that is too high, keeping the best step."""
    out = tmp_path_factory.mktemp("best") / "run"
    value = {"model": str(arena.model), "data": arena.data, "out": out, "global_batch_size": 4}
    config = TrainConfig(**value, **RISES, keep_best=KL, checkpoint_every=1)
    shutil.copytree(_trained_keeping_copies(config), out / "copies")
    return config


def _trained_keeping_copies(config: TrainConfig) -> Path:
    """Train, and keep a copy of the checkpoints after each step."""
    copies = config.out.parent / "copies"

    def copy(step: int, _: int, __: dict[str, float]) -> None:
        if (config.out / "checkpoints").is_dir():
            shutil.copytree(config.out / "checkpoints", copies / f"{step}", dirs_exist_ok=True)

    train(config, report=copy)
    return copies


def test_the_weights_of_the_best_evaluation_are_saved(
    best_run: TrainConfig, config_of: ConfigOf
) -> None:
    found = evaluations(best_run.out)
    best = min(found, key=lambda step: found[step])
    assert best < 12, "the rate is high enough for this test"
    plain = config_of(**RISES | {"steps": best, "eval_every": None})
    train(plain)
    summary = summary_of(best_run.out)

    assert summary.best is not None
    assert (summary.best["step"], summary.best[KL]) == (best, found[best])
    mine, wanted = weights(best_run.out), weights(plain.out)
    assert all(torch.equal(mine[name], wanted[name]) for name in wanted)
    kept = {path.name for path in (best_run.out / "checkpoints").iterdir()}
    assert kept == {f"step-{best:08d}", "step-00000011"}
    assert f"step {best}, the best by {KL}" in (best_run.out / "model/README.md").read_text()
    assert f"best, of step {best}" in (best_run.out / "report.html").read_text()


@pytest.mark.parametrize("step", [3, 6, 9, 11])
def test_a_run_that_died_keeps_the_same_best(
    step: int, best_run: TrainConfig, config_of: ConfigOf
) -> None:
    config = config_of(**RISES, keep_best=KL, checkpoint_every=1)
    shutil.copytree(best_run.out / "copies" / str(step), config.out / "checkpoints")
    train(config)

    mine, whole = summary_of(config.out), summary_of(best_run.out)
    assert mine.best == whole.best
    mine_weights, wanted = weights(config.out), weights(best_run.out)
    assert all(torch.equal(mine_weights[name], wanted[name]) for name in wanted)


def test_a_lost_best_checkpoint_is_an_error(config_of: ConfigOf) -> None:
    config = config_of(**RISES, keep_best=KL)

    def lose(step: int, _: int, __: dict[str, float]) -> None:
        if step == 12:
            shutil.rmtree(config.out / "checkpoints", ignore_errors=True)

    with pytest.raises(TrainingError, match="T312"):
        train(config, report=lose)
    assert not (config.out / "run.json").exists()


def test_a_run_that_does_not_improve_ends_early_and_is_finished(config_of: ConfigOf) -> None:
    settings = RISES | {"early_stopping": {"patience": 1, "metric": KL}, "keep_best": KL}
    config = config_of(**settings)
    heard: list[str] = []
    train(config, on_message=heard.append)
    found = evaluations(config.out)
    summary = summary_of(config.out)

    assert summary.steps == max(found) < 12
    assert summary.stopped_early is not None
    assert any(f"ends after step {summary.steps}" in line for line in heard)
    assert "Ended early" in (config.out / "report.html").read_text()
    again = train(config)
    assert (again.summary, again.steps) == (summary, summary.steps), "it is finished"
    patient = settings | {"early_stopping": {"patience": 2, "metric": KL}}
    assert train(config_of(**patient)).steps > summary.steps, "more patience continues it"


def test_a_finished_run_does_not_ignore_another_form(config_of: ConfigOf) -> None:
    train(config_of())

    with pytest.raises(UsageError, match=r"another `save`; export a checkpoint.*T141"):
        train(config_of(save={"dtype": "bfloat16"}))


def test_settings_of_before_do_not_count_and_are_reported(config_of: ConfigOf) -> None:
    train(config_of(steps=2, checkpoint_every=1))
    heard: list[str] = []
    train(config_of(steps=4, eval_every=1, keep_best=KL), on_message=heard.append)

    assert any("evaluations up to step 1 do not count" in line for line in heard)
    assert EarlyStopping(patience=1).metric == "eval/loss"
