"""Losses against the papers' formulas in float64 numpy, TRL's values, and their limits."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dpo.config import LossConfig
from dpo.loss import COUPLED, LOSSES, ON_MARGINS, PairLogps, diverge, settings
from dpo.training.objective import Objective

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "trl_losses.json"
"""Values of TRL 1.16's `DPOTrainer`, which was given the same log-probs."""

nats = st.floats(-80, -0.1)
lengths = st.integers(1, 60)


def pairs(rows: list[list[float]]) -> PairLogps:
    """Return pairs from rows of (lw, ll, rw, rl, nw, nl, margin), each its own group."""
    groups = torch.arange(len(rows))
    columns = torch.tensor(rows, dtype=torch.float64).T
    ones = torch.ones_like(columns[0])
    return PairLogps(*columns, group=groups, winner=torch.zeros_like(groups), weight=ones)


def pair(values: list[float], sizes: list[int] | None = None, margin: float = 1.5) -> PairLogps:
    return pairs([[*values, *(sizes or [1, 1]), margin]])


def s(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def ls(x: float) -> float:
    return float(-np.logaddexp(0, -x))


def kl(p: float, q: float) -> float:
    return float(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


class Given:
    """Inputs of a loss, by the letters of the papers."""

    def __init__(self, values: list[float], sizes: list[int], margin: float) -> None:
        self.lw, self.ll, self.rw, self.rl = values
        self.nw, self.nl = sizes
        self.m = margin
        self.hw, self.hl = self.lw - self.rw, self.ll - self.rl
        self.d = self.hw - self.hl
        self.dn = self.hw / self.nw - self.hl / self.nl
        self.aw, self.al = self.lw / self.nw, self.ll / self.nl


def odds(a: float) -> float:
    return float(a - np.log(-np.expm1(a)))


FORMULAS: dict[str, Callable[[Given], float]] = {
    "dpo": lambda g: -ls(0.1 * g.d),
    "cdpo": lambda g: -0.9 * ls(0.1 * g.d) - 0.1 * ls(-0.1 * g.d),
    "robust": lambda g: (-0.9 * ls(0.1 * g.d) + 0.1 * ls(-0.1 * g.d)) / 0.8,
    "ipo": lambda g: (g.d - 5) ** 2,
    "ipo_norm": lambda g: (g.dn - 5) ** 2,
    "hinge": lambda g: max(0.0, 1 - 0.1 * g.d),
    "dpo_norm": lambda g: -ls(5 * g.dn),
    "exo_pair": lambda g: (
        s(0.1 * g.d) * (ls(0.1 * g.d) - np.log(0.999))
        + s(-0.1 * g.d) * (ls(-0.1 * g.d) - np.log(0.001))
    ),
    "discopop": lambda g: (
        (1 - s(2 * g.d)) * -ls(0.1 * g.d) + s(2 * g.d) * float(np.exp(-0.1 * g.d))
    ),
    "r_dpo": lambda g: -ls(0.1 * g.d + 0.01 * (g.nw - g.nl)),
    "dpop": lambda g: -ls(0.1 * (g.d - 50 * max(0.0, g.rw - g.lw))),
    "sppo_hard": lambda g: (g.hw - 5) ** 2 + (g.hl + 5) ** 2,
    "nca_pair": lambda g: -ls(0.1 * g.hw) - 0.5 * ls(-0.1 * g.hw) - 0.5 * ls(-0.1 * g.hl),
    "bco_pair": lambda g: -ls(0.1 * g.hw) - ls(-0.1 * g.hl),
    "apo_zero": lambda g: 1 - s(0.1 * g.hw) + s(0.1 * g.hl),
    "apo_down": lambda g: s(0.1 * g.hw) + 1 - s(0.1 * g.d),
    "cal_dpo": lambda g: -ls(g.d) + (g.hw - 5) ** 2 + (g.hl + 5) ** 2,
    "dpo_margin": lambda g: -ls(0.1 * g.d - g.m),
    "odpo": lambda g: -ls(0.1 * g.d - np.log(g.m)),
    "rpo_square": lambda g: (0.1 * g.d - g.m) ** 2,
    "rpo_backward_kl": lambda g: kl(s(g.m), s(0.1 * g.d)),
    "rpo_forward_kl": lambda g: kl(s(0.1 * g.d), s(g.m)),
    "sft": lambda g: -g.lw,
    "sft_norm": lambda g: -g.aw,
    "unlikelihood": lambda g: -g.lw + g.ll,
    "simpo": lambda g: -ls(2.5 * g.aw - 2.5 * g.al - 0.5),
    "alphapo": lambda g: -ls(2.5 * (np.exp(-0.25 * g.al) - np.exp(-0.25 * g.aw)) / 0.25 - 0.5),
    "orpo": lambda g: -g.aw - 0.1 * ls(odds(g.aw) - odds(g.al)),
    "cpo": lambda g: -ls(0.1 * (g.lw - g.ll)) - g.lw,
    "slic": lambda g: max(0.0, 1 - g.lw + g.ll) - 0.1 * g.lw,
    # for a step of one pair
    "sft_tokens": lambda g: -g.lw / g.nw,
    "kto_pair": lambda g: (
        1 - s(0.1 * (g.hw - max(0.0, g.hl))) + 1 - s(0.1 * (max(0.0, g.hw) - g.hl))
    ),
    "aot": lambda g: -ls(0.1 * g.d),
    "aot_unpaired": lambda g: -ls(0.1 * g.d),
    "dr_dpo": lambda g: -ls(0.1 * g.d),
    "beta_dpo": lambda g: -ls(max(1e-3, 0.1 * (1 + 0.6 * g.d)) * g.d),
    # for a group of one pair
    "plackett_luce": lambda g: -ls(0.1 * g.d),
}


@pytest.mark.parametrize("name", LOSSES)
@given(
    st.lists(nats, min_size=4, max_size=4),
    st.lists(lengths, min_size=2, max_size=2),
    st.floats(0.1, 5),
)
def test_each_loss_is_its_papers_formula(
    name: str, values: list[float], sizes: list[int], margin: float
) -> None:
    loss = LOSSES[name](pair(values, sizes, margin)).item()

    assert loss == pytest.approx(FORMULAS[name](Given(values, sizes, margin)), rel=1e-8, abs=1e-8)


def held_kto(held: PairLogps, now: PairLogps) -> torch.Tensor:
    up, down = held.chosen_logratios.mean().relu(), held.rejected_logratios.mean().relu()
    gains = (0.1 * (now.chosen_logratios - down)).sigmoid()
    return 2 - gains - (0.1 * (up - now.rejected_logratios)).sigmoid()


def held_beta(held: PairLogps, now: PairLogps) -> torch.Tensor:
    own = 0.1 * (1 + 0.6 * held.margins.mean())
    return -torch.nn.functional.logsigmoid(own * now.margins)


HELD = {"kto_pair": held_kto, "beta_dpo": held_beta}


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_has_the_gradient_that_differences_give(name: str) -> None:
    rows = [[-10.0, -12.5, -11.0, -12.0, 4, 5, 0.7], [-9.0, -7.5, -8.0, -7.9, 3, 6, 1.2]]
    logps = pairs(rows)
    chosen, rejected = (x.clone().requires_grad_() for x in (logps.chosen, logps.rejected))

    def of_name(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return LOSSES[name](logps._replace(chosen=chosen, rejected=rejected))

    loss = of_name
    if name in HELD:  # no gradient flows through its means: compare with them held

        def loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
            return HELD[name](pairs(rows), logps._replace(chosen=chosen, rejected=rejected))

        found, wanted = (
            torch.autograd.grad(way(chosen, rejected).sum(), (chosen, rejected))
            for way in (of_name, loss)
        )
        assert torch.allclose(torch.stack(found), torch.stack(wanted))
    assert torch.autograd.gradcheck(loss, (chosen, rejected))


@given(st.lists(nats, min_size=2, max_size=2))
def test_a_policy_that_is_its_reference_has_loss_ln_2(values: list[float]) -> None:
    logps = pair([-1.0, -2.0, *values]).at_reference()

    assert LOSSES["dpo"](logps).item() == pytest.approx(np.log(2))
    assert LOSSES["ipo"](logps).item() == pytest.approx(25)


@given(st.lists(nats, min_size=4, max_size=4))
def test_swapping_a_pair_is_flipping_every_label(values: list[float]) -> None:
    lw, ll, rw, rl = values
    swapped = LOSSES["dpo"](pair([ll, lw, rl, rw])).item()

    assert LOSSES["cdpo"](pair(values), label_smoothing=1.0).item() == pytest.approx(swapped)


LIMITS = [
    ("cdpo", {"label_smoothing": 0.0}, "dpo", {}),
    ("robust", {"label_smoothing": 0.0}, "dpo", {}),
    ("r_dpo", {"alpha": 0.0}, "dpo", {}),
    ("dpop", {"penalty": 0.0}, "dpo", {}),
    ("dpo_margin", {"alpha": 0.0}, "dpo", {}),
    ("odpo", {"alpha": 0.0}, "dpo", {}),
    ("unlikelihood", {"alpha": 0.0}, "sft", {}),
    ("orpo", {"alpha": 0.0}, "sft_norm", {}),
    ("alphapo", {"alpha": 0.0}, "simpo", {}),
    ("alphapo", {"alpha": 1e-7}, "simpo", {}),
]


@pytest.mark.parametrize(("name", "given_settings", "other", "others"), LIMITS)
def test_each_limit_is_the_loss_that_it_should_be(
    name: str, given_settings: dict[str, float], other: str, others: dict[str, float]
) -> None:
    logps = pairs([[-10.0, -12.5, -11.0, -12.0, 4, 5, 0.7], [-9.0, -7.5, -8.0, -7.9, 3, 6, 1.2]])

    found, wanted = LOSSES[name](logps, **given_settings), LOSSES[other](logps, **others)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_a_large_temperature_makes_dr_dpo_dpo_and_a_small_one_the_easiest_pair() -> None:
    logps = pairs([[-10.0, -12.5, -11.0, -12.0, 4, 5, 0.7], [-9.0, -7.5, -8.0, -7.9, 3, 6, 1.2]])
    each = LOSSES["dpo"](logps)

    assert LOSSES["dr_dpo"](logps, beta_prime=1e6).mean().item() == pytest.approx(
        each.mean().item(), abs=1e-6
    )
    assert LOSSES["dr_dpo"](logps, beta_prime=1e-4).mean().item() == pytest.approx(
        each.min().item(), abs=1e-4
    )


def test_odds_are_exact_where_probabilities_are_near_0_and_1() -> None:
    from dpo.loss.reference_free import _log1mexp

    logs = torch.tensor([-1e-9, -1e-3, -0.6931, -0.6932, -5.0, -40.0], dtype=torch.float64)
    assert torch.allclose(
        _log1mexp(logs), torch.tensor(np.log(-np.expm1(logs.numpy()))), rtol=1e-12
    )
    logs.requires_grad_()
    assert torch.autograd.gradcheck(_log1mexp, (logs.detach()[1:5].requires_grad_(),))


TRL = [
    ("sigmoid", [("dpo", {})]),
    ("hinge", [("hinge", {})]),
    ("ipo", [("ipo_norm", {})]),
    ("exo_pair:ls=0.001", [("exo_pair", {})]),
    ("nca_pair", [("nca_pair", {})]),
    ("robust:ls=0.1", [("robust", {})]),
    ("bco_pair", [("bco_pair", {})]),
    ("sppo_hard", [("sppo_hard", {})]),
    ("aot", [("aot", {})]),
    ("aot_unpaired", [("aot_unpaired", {})]),
    ("apo_zero", [("apo_zero", {})]),
    ("apo_down", [("apo_down", {})]),
    ("discopop", [("discopop", {})]),
    ("sft", [("sft_tokens", {})]),
    ("sigmoid_norm", [("dpo_norm", {"beta": 0.1})]),
    ("sigmoid:fdiv=forward_kl", [("dpo", {"divergence": "forward_kl"})]),
    ("sigmoid:fdiv=js_divergence", [("dpo", {"divergence": "js"})]),
    (
        "sigmoid:fdiv=alpha_divergence",
        [("dpo", {"divergence": "alpha", "divergence_alpha": 0.5})],
    ),
    (
        "sigmoid+bco_pair+sft:weights=[0.8, 0.2, 1.0]",
        [("dpo", {"weight": 0.8}), ("bco_pair", {"weight": 0.2}), ("sft_tokens", {})],
    ),
]


@pytest.mark.skipif(not GOLDEN.exists(), reason="TRL's values are not here")
@pytest.mark.parametrize(("theirs", "ours"), TRL)
def test_losses_equal_trls(theirs: str, ours: list[tuple[str, dict[str, object]]]) -> None:
    golden = json.loads(GOLDEN.read_text())
    inputs = golden["inputs"]
    sides = [inputs["chosen_token_logps"], inputs["rejected_token_logps"]]
    sums = [[sum(row) for row in side] for side in sides]
    counts = [[len(row) for row in side] for side in sides]
    refs = [inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]
    rows = zip(*sums, *refs, *counts, [0.0] * len(counts[0]), strict=True)
    objective = Objective(tuple(LossConfig(name=name, **given) for name, given in ours))

    found = objective(pairs([list(map(float, row)) for row in rows]))
    assert found.mean().item() == pytest.approx(golden["values"][theirs]["loss"], abs=1e-6)
    if len(ours) == 1 and theirs != "sft":  # a scalar there
        each = golden["values"][theirs]["per_sequence_last_loss_type"]
        assert sorted(found.tolist()) == pytest.approx(sorted(each), abs=1e-6)


def test_trls_values_are_all_compared() -> None:
    """Except one: its sigmoid ignores label_smoothing, so cDPO is compared with its paper."""
    names = set(json.loads(GOLDEN.read_text())["values"])

    assert names - {theirs for theirs, _ in TRL} == {"sigmoid:ls=0.2"}


@given(st.lists(nats, min_size=4, max_size=4), st.floats(-2, 3))
def test_a_divergence_acts_on_each_log_ratio(values: list[float], alpha: float) -> None:
    g = Given(values, [1, 1], 0)
    shown = {
        "forward_kl": np.exp(-g.hl) - np.exp(-g.hw),
        "js": ls(g.hw) - ls(g.hl),
        "alpha": g.d
        if alpha == 1
        else (np.exp((alpha - 1) * g.hw) - np.exp((alpha - 1) * g.hl)) / (alpha - 1),
    }
    for name, margin in shown.items():
        given_alpha = alpha if name == "alpha" else None
        found = diverge(pair(values), name, given_alpha).margins.item()
        assert found == pytest.approx(margin, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"name": "dpoo"}, "did you mean 'dpo'"),
        ({"name": "dpo", "gamma": 1.0}, "gamma is not used by dpo"),
        ({"name": "sft", "beta": 0.1}, "takes no settings"),
        ({"name": "simpo", "divergence": "js"}, "supports only reverse_kl"),
        ({"name": "dpo", "divergence": "alpha"}, "need each other"),
        ({"name": "dpo", "divergence_alpha": 0.5}, "need each other"),
        ({"name": "exo_pair", "label_smoothing": 0.0}, "above 0"),
        ({"name": "cdpo", "label_smoothing": 0.5}, "less than 0.5"),
    ],
)
def test_a_setting_that_a_loss_does_not_use_is_an_error(
    value: dict[str, object], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        LossConfig.model_validate(value)


def test_every_setting_of_every_loss_can_be_given() -> None:
    for name in LOSSES:
        for setting, default in settings(name).items():
            config = LossConfig.model_validate({"name": name, setting: default})
            assert config.settings[setting] == default
    assert ON_MARGINS.keys().isdisjoint(COUPLED)
