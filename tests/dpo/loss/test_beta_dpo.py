"""β-DPO: its running statistics, the pairs it leaves out, and resumed runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.loss import PairLogps
from dpo.loss.beta_dpo import Margins, beta_dpo, update_running_stats
from dpo.training.loop import train
from dpo.training.step import train_step
from tests.dpo.conftest import open_alone
from tests.dpo.loss.test_loss import pairs
from tests.dpo.training.test_loop import SPEEDS, lines, same, weights

ConfigOf = Callable[..., TrainConfig]


def with_margins(margins: list[float]) -> PairLogps:
    logps = pairs([[-10.0 + margin, -12.0, -10.0, -12.0, 4, 5, 1.0] for margin in margins])
    return logps._replace(chosen=logps.chosen.requires_grad_())


def test_mean_and_deviation_move_with_the_steps() -> None:
    steps = [torch.tensor(step) for step in ([1.0, 3.0], [5.0, 5.0], [0.0, -4.0])]
    seen = None
    for step in steps:
        seen = update_running_stats(seen, step, momentum=0.9)

    mean = 0.9 * (0.9 * 2 + 0.1 * 5) + 0.1 * -2
    deviation = 0.9 * (0.9 * 1 + 0.1 * 0) + 0.1 * 2
    assert seen == pytest.approx((mean, deviation))
    assert update_running_stats(seen, torch.tensor([1.0, torch.nan]), momentum=0.9) == seen


def test_pairs_with_unusual_margins_are_left_out_the_most_often() -> None:
    """Keep eight of ten pairs, each as often as in weighted draws one by one."""
    margins = [0.0, 0.1, -0.1, 0.2, 0.5, 1.0, -1.0, 1.5, -2.0, 2.5]
    logps, draws = with_margins(margins), 1500
    torch.manual_seed(0)
    left_out = np.zeros(10)
    for _ in range(draws):
        (grad_logps,) = torch.autograd.grad(beta_dpo(logps, Margins(0.0, 1.0)).sum(), logps.chosen)
        assert int((grad_logps == 0).sum()) == 2
        left_out += (grad_logps == 0).numpy()

    usual, rng, wanted = np.exp(-np.square(margins) / 2), np.random.default_rng(0), np.ones(10)
    for _ in range(draws):
        kept = rng.choice(10, 8, replace=False, p=usual / usual.sum())
        wanted[kept] -= 1 / draws
    assert left_out / draws == pytest.approx(wanted, abs=0.05)
    assert left_out[9] > 5 * left_out[0]


def test_beta_follows_the_margins_of_the_pairs_that_are_kept() -> None:
    margins = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    logps = with_margins(margins.tolist())
    for seen, own in ((Margins(2.5, 1.0), 0.1 * 1.3), (Margins(9.0, 1.0), 1e-3)):
        found = beta_dpo(logps, seen, keep_fraction=1.0)
        assert torch.allclose(found, -torch.nn.functional.logsigmoid(own * margins))
    with torch.no_grad():
        assert (beta_dpo(logps, Margins(0.0, 0.1), keep_fraction=0.4) > 0).all(), (
            "evaluation sees all pairs"
        )
    far = beta_dpo(with_margins([90.0, 91.0, 99.0]), Margins(0.0, 0.1), keep_fraction=0.4, alpha=0)
    assert int((far != 0).sum()) == 1


def test_it_can_appear_once_since_its_statistics_have_its_name(config_of: ConfigOf) -> None:
    once, twice = [{"name": "beta_dpo"}, {"name": "dpo"}], [{"name": "beta_dpo"}] * 2
    config_of(loss=once)
    with pytest.raises(UsageError, match=r"beta_dpo .* can appear only once.*T122"):
        config_of(loss=twice)


def test_a_run_keeps_statistics_of_the_margins_of_its_steps(config_of: ConfigOf) -> None:
    run = open_alone(config_of(loss={"name": "beta_dpo", "momentum": 0.5}))
    means: list[float] = []
    mean = 0.0
    for step in (1, 2, 3):
        found = train_step(run, step)
        means.append(found["logratios/chosen"] - found["logratios/rejected"])
        mean = means[0] if step == 1 else 0.5 * mean + 0.5 * means[-1]
        assert run.objective.seen["beta_dpo"].mean == pytest.approx(mean, abs=1e-5)
    assert abs(means[-1]) > 1e-3


def test_a_resumed_run_keeps_the_statistics_of_earlier_steps(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    options = {"loss": {"name": "beta_dpo"}, "eval_every": 4, "checkpoint_every": 2}
    whole = config_of(steps=8, out=str(tmp_path / "whole"), **options)
    train(whole)
    train(config_of(steps=5, **options))
    resumed = config_of(steps=8, **options)
    train(resumed)

    assert same(weights(resumed.out), weights(whole.out))
    ends = [
        [{k: v for k, v in line.items() if k not in SPEEDS} for line in lines(out)][-2:]
        for out in (resumed.out, whole.out)
    ]
    assert ends[0] == ends[1]
