"""Gradients of losses that couple a step's pairs, exact for any division into packs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.loss import COUPLED, LOSSES
from dpo.training.loop import train
from dpo.training.setup import TrainContext
from dpo.training.step import (
    backward_pass,
    backward_two_pass,
    forward_logps,
    packs_of,
    seed_draws,
)
from tests.dpo.conftest import open_alone

ConfigOf = Callable[..., TrainConfig]
NARROW, MIDDLE, WIDE = 1, 150, 4096
"""Tokens of a pack: a pair per pack, several packs, one pack."""


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def gradients(run: TrainContext) -> dict[str, torch.Tensor]:
    found = {
        name: parameter.grad.clone()
        for name, parameter in run.policy.named_parameters()
        if parameter.grad is not None
    }
    run.policy.zero_grad()
    return found


def move(run: TrainContext) -> TrainContext:
    """Move away from the reference, where gradients are special."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in run.policy.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return run


@pytest.mark.parametrize("name", sorted(COUPLED))
def test_the_gradient_is_that_of_the_whole_step_at_once(name: str, config_of: ConfigOf) -> None:
    """Compared with autograd through one pack that contains the step."""
    run = move(open_alone(config_of(loss={"name": name}, pack_tokens=WIDE)))
    batch = run.train.batch(run.order.rows(1), run.accelerator.device)
    logps = run.train.pair_logps(batch, run.policy(batch.pack))
    run.objective.update(logps)
    seed_draws(run, 1)
    run.objective(logps).mean().backward()
    wanted = gradients(run)

    for tokens in (NARROW, MIDDLE, WIDE):
        cut = replace(run, config=run.config.model_copy(update={"pack_tokens": tokens}))
        packs = packs_of(cut, 1)
        assert len(packs) == {NARROW: 4, MIDDLE: len(packs), WIDE: 1}[tokens]
        backward_two_pass(cut, packs, 1)
        found = gradients(run)
        assert found.keys() == wanted.keys()
        for key, gradient in found.items():
            assert torch.allclose(gradient, wanted[key], rtol=1e-4, atol=1e-6), key


def test_a_loss_of_single_pairs_is_the_same_either_way(config_of: ConfigOf) -> None:
    run = move(open_alone(config_of(pack_tokens=MIDDLE)))
    packs = packs_of(run, 1)
    direct = backward_pass(run, packs, 1)
    wanted = gradients(run)
    coupled = backward_two_pass(run, packs, 1)

    assert torch.allclose(direct, coupled, rtol=1e-5)
    for key, gradient in gradients(run).items():
        assert torch.allclose(gradient, wanted[key], rtol=1e-4, atol=1e-6)
    logps, _ = forward_logps(run, run.train, packs, run.order.rows(1))
    assert LOSSES["dpo"](logps).sum().item() == pytest.approx(direct[0].item(), rel=1e-6)


@pytest.mark.parametrize("name", sorted(COUPLED))
def test_micro_batches_change_only_rounding(name: str, config_of: ConfigOf, tmp_path: Path) -> None:
    runs = []
    for tokens in (NARROW, MIDDLE, WIDE):
        config = config_of(
            loss={"name": name}, pack_tokens=tokens, steps=6, out=str(tmp_path / str(tokens)),
            optimizer={"learning_rate": 1e-4}, dropout=False,
        )  # fmt: skip
        runs.append([line["loss"] for line in lines(train(config).out) if "loss" in line])

    assert runs[0] == pytest.approx(runs[2], abs=1e-5)
    assert runs[1] == pytest.approx(runs[2], abs=1e-5)


@pytest.mark.parametrize("name", ["sft", "simpo", "orpo", "bco_pair", "exo_pair", "cal_dpo"])
def test_a_run_starts_at_the_loss_of_the_reference_for_every_loss(
    name: str, config_of: ConfigOf
) -> None:
    """A different first loss would be refused (T210)."""
    finished = train(config_of(loss={"name": name}, steps=2))

    assert finished.summary is not None


def test_a_mixture_is_the_sum_of_its_losses(config_of: ConfigOf, tmp_path: Path) -> None:
    def first(name: str, loss: Any) -> float:
        config = config_of(loss=loss, steps=1, out=str(tmp_path / name))
        return float(lines(train(config).out)[0]["loss"])

    parts = [("dpo", 0.8), ("bco_pair", 0.2), ("sft_tokens", 1.0)]
    each = sum(weight * first(name, {"name": name}) for name, weight in parts)
    mixed = first("mixed", [{"name": name, "weight": weight} for name, weight in parts])

    assert mixed == pytest.approx(each, rel=1e-6)


def test_a_loss_that_needs_margins_is_refused_where_there_are_none(config_of: ConfigOf) -> None:
    with pytest.raises(UsageError, match="T126"):
        open_alone(config_of(loss={"name": "odpo"}))
