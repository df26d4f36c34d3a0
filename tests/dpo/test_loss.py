"""Losses against the papers' formulas in float64 numpy, TRL's values, and their limits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpo.loss import LOSSES, PairLogps, at_reference, settings

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared/golden/trl_golden_losses.json"

nats = st.floats(-80, -0.1)
lengths = st.integers(1, 60)


def pair(values: list[float], sizes: list[int] | None = None) -> PairLogps:
    numbers = [*values, *(sizes or [1, 1])]
    return PairLogps(*(torch.tensor([number], dtype=torch.float64) for number in numbers))


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def formula(name: str, values: list[float], sizes: list[int]) -> float:
    """Each loss as its paper writes it, with this project's defaults."""
    lw, ll, rw, rl = values
    nw, nl = sizes
    d, per_token = (lw - rw) - (ll - rl), (lw - rw) / nw - (ll - rl) / nl
    return {
        "dpo": -np.log(sigmoid(0.1 * d)),
        "cdpo": -0.9 * np.log(sigmoid(0.1 * d)) - 0.1 * np.log(sigmoid(-0.1 * d)),
        "robust": (-0.9 * np.log(sigmoid(0.1 * d)) + 0.1 * np.log(sigmoid(-0.1 * d))) / 0.8,
        "ipo": (d - 5) ** 2,
        "ipo_norm": (per_token - 5) ** 2,
        "hinge": max(0.0, 1 - 0.1 * d),
        "dpo_norm": np.logaddexp(0, -5 * per_token),
    }[name]


@pytest.mark.parametrize("name", LOSSES)
@given(st.lists(nats, min_size=4, max_size=4), st.lists(lengths, min_size=2, max_size=2))
def test_each_loss_is_its_papers_formula(name: str, values: list[float], sizes: list[int]) -> None:
    loss = LOSSES[name](pair(values, sizes)).item()

    assert loss == pytest.approx(formula(name, values, sizes), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_has_the_gradient_that_differences_give(name: str) -> None:
    logps = pair([-10.0, -12.5, -11.0, -12.0], [4, 5])
    chosen, rejected = (x.requires_grad_() for x in (logps.chosen, logps.rejected))

    def loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return LOSSES[name](logps._replace(chosen=chosen, rejected=rejected))

    assert torch.autograd.gradcheck(loss, (chosen, rejected))


@given(st.lists(nats, min_size=2, max_size=2))
def test_a_policy_that_is_its_reference_has_loss_ln_2(values: list[float]) -> None:
    assert LOSSES["dpo"](pair(values * 2)).item() == pytest.approx(np.log(2))
    assert at_reference("dpo", settings("dpo")) == pytest.approx(np.log(2))
    assert at_reference("ipo", settings("ipo")) == pytest.approx(25)


@given(st.lists(nats, min_size=4, max_size=4))
def test_swapping_a_pair_is_flipping_every_label(values: list[float]) -> None:
    lw, ll, rw, rl = values
    swapped = LOSSES["dpo"](pair([ll, lw, rl, rw])).item()

    assert LOSSES["cdpo"](pair(values), label_smoothing=1.0).item() == pytest.approx(swapped)


def test_no_smoothing_is_plain_dpo() -> None:
    logps = pair([-10.0, -12.5, -11.0, -12.0])

    assert LOSSES["cdpo"](logps, label_smoothing=0.0) == LOSSES["dpo"](logps)
    assert LOSSES["robust"](logps, label_smoothing=0.0) == LOSSES["dpo"](logps)


@pytest.mark.skipif(not GOLDEN.exists(), reason="TRL's values are not here")
@pytest.mark.parametrize(
    ("name", "theirs", "given_settings"),
    [
        ("dpo", "sigmoid", {}),
        ("hinge", "hinge", {}),
        ("ipo_norm", "ipo", {}),
        ("robust", "robust:ls=0.1", {}),
        ("dpo_norm", "sigmoid_norm", {"beta": 0.1}),
    ],
)
def test_losses_equal_trls(name: str, theirs: str, given_settings: dict[str, float]) -> None:
    golden = json.loads(GOLDEN.read_text())
    inputs = {
        k: [torch.tensor(row, dtype=torch.float64) for row in v]
        for k, v in golden["inputs"].items()
    }
    chosen, rejected = inputs["chosen_token_logps"], inputs["rejected_token_logps"]
    logps = PairLogps(
        torch.stack([row.sum() for row in chosen]),
        torch.stack([row.sum() for row in rejected]),
        torch.stack(inputs["ref_chosen_logps"]),
        torch.stack(inputs["ref_rejected_logps"]),
        torch.tensor([len(row) for row in chosen], dtype=torch.float64),
        torch.tensor([len(row) for row in rejected], dtype=torch.float64),
    )

    found = LOSSES[name](logps, **given_settings).tolist()

    assert found == pytest.approx(golden["values"][theirs]["per_sequence_last_loss_type"], abs=1e-6)
