"""Tokens and FLOPs of a step, compared with counts by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dpo.config import TrainConfig
from dpo.training.loop import train
from dpo.training.mfu import MfuMeter, StepTokens, work_of
from tests.dpo.conftest import open_alone
from tests.dpo.training.test_gradients import lines

ConfigOf = Callable[..., TrainConfig]


def test_tokens_are_counted_once_where_they_are_run_once(config_of: ConfigOf, ranked: Path) -> None:
    groups = config_of(data=str(ranked), batch_unit="groups", global_batch_size=3)
    for config in (config_of(global_batch_size=5), groups):
        run = open_alone(config)
        units = run.order.step(2)
        rows = [run.train.pairs[row] for unit in units for row in unit]
        texts = [(row.prompt, side) for row in rows for side in row.completions]
        sides = {(prompt.tobytes(), side.tobytes()): len(side) for prompt, side in texts}
        prompts = {prompt.tobytes(): len(prompt) for prompt, _ in texts}
        lengths = [len(prompt) + len(side) for prompt, side in texts]

        work = work_of(run.train.pairs, units)

        answers = sum(sides.values())
        whole = StepTokens(answers + sum(prompts.values()), answers, sum(lengths), 0)
        assert work == whole._replace(padded=len(lengths) * max(lengths))
        assert 0 < work.spared()["prompt_sharing"] < 1
        assert work.spared()["padding_saved"] == pytest.approx(1 - work.plain / work.padded)


def test_flops_are_six_a_trained_weight_and_four_a_frozen_one(config_of: ConfigOf) -> None:
    """Only weights that are multiplied count: an embedding is looked up."""
    run = open_alone(config_of())
    model = run.policy.model
    head = model.lm_head.weight.numel()
    body = sum(w.numel() for w in model.parameters()) - head  # also the embedding
    assert (run.machine.per_token, run.machine.per_answer) == (6 * body, 6 * head)
    assert run.machine.peak > 1e9

    run = open_alone(config_of(lora={"r": 2}))
    adapter = sum(w.numel() for w in run.policy.parameters() if w.requires_grad)
    assert (run.machine.per_token, run.machine.per_answer) == (4 * body + 6 * adapter, 4 * head)
    half = MfuMeter(per_token=3.0, per_answer=2.0, peak=20.0)
    used = half.utilization(StepTokens(10, 5, 0, 1), seconds=0.5, processes=2)
    assert used == pytest.approx((30 + 10) / 20)


def test_a_step_reports_them(config_of: ConfigOf) -> None:
    found = lines(train(config_of()).out)[1]

    assert 0 < found["mfu"] < 1
    assert 0 < found["padding_saved"] < 1
    assert 0 < found["prompt_sharing"] < 1
    moved = (found["logratios/chosen"] + found["logratios/rejected"]) / 2
    assert found["kl_estimate"] == pytest.approx(-moved, rel=1e-5)
    assert found["logratios/chosen"] == pytest.approx(found["rewards/chosen"] / 0.1, rel=1e-5)
