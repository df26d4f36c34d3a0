"""Groups: all pairs of a prompt in one step, each distinct completion of it run once."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpo.config import TrainConfig
from dpo.config_file import parse_config
from dpo.data.packing import Pack
from dpo.data.sampler import make_order, packs_in_order
from dpo.errors import TrainingError, UsageError
from dpo.loss import LOSSES, PairLogps
from dpo.training.evaluate import evaluate
from dpo.training.loop import train
from dpo.training.memory_check import check_memory
from dpo.training.setup import TrainContext
from dpo.training.step import backward_pass, backward_two_pass, packs_of
from tests.dpo.conftest import COMPLETIONS, open_alone
from tests.dpo.training.test_gradients import gradients, move

ConfigOf = Callable[..., TrainConfig]


@pytest.fixture
def groups_of(config_of: ConfigOf, ranked: Path) -> ConfigOf:
    def make(**changes: Any) -> TrainConfig:
        return config_of(**{"data": str(ranked), "batch_unit": "groups"} | changes)

    return make


def opened(config: TrainConfig) -> TrainContext:
    """Open a run and move its policy away from the reference."""
    return move(open_alone(config))


def pairs_alone(run: TrainContext, rows: list[int]) -> PairLogps:
    """Return log-probs of pairs, each in its own pack."""
    parts = []
    for row in rows:
        batch = run.train.batch([row], run.accelerator.device)
        parts.append(run.train.pair_logps(batch, run.policy(batch.pack)))
    whole = PairLogps(*(torch.cat(column) for column in zip(*parts, strict=True)))
    winners = run.train.pairs.share_prompts(rows).sides[:, 0]
    return whole._replace(winner=torch.from_numpy(winners))


def test_a_group_is_one_prompt_with_each_completion_once(groups_of: ConfigOf) -> None:
    run = opened(groups_of())
    pairs = run.train.pairs
    seen = set()
    for rows in map(list, run.order.units):
        joined = pairs.share_prompts(rows)
        (prompt,) = joined.prompts
        count = len(prompt.completions)
        seen.add(count)
        assert len(rows) == count * (count - 1) // 2
        assert pairs.num_tokens(rows) == len(prompt.prompt) + sum(map(len, prompt.completions))
        for row, (chosen, rejected) in zip(rows, joined.sides, strict=True):
            alone = pairs[row]
            assert np.array_equal(alone.prompt, prompt.prompt)
            assert np.array_equal(alone.completions[0], prompt.completions[chosen])
            assert np.array_equal(alone.completions[1], prompt.completions[rejected])
    assert seen == set(COMPLETIONS)


def test_an_epoch_has_each_group_once_and_whole(groups_of: ConfigOf) -> None:
    run = opened(groups_of(global_batch_size=3, steps=None, epochs=1))
    groups = np.asarray(run.train.pairs.groups)
    drawn: list[int] = []
    for step in range(1, run.total_steps + 1):
        rows = run.order.rows(step)
        packed = sorted(row for pack in packs_of(run, step) for row in pack)
        assert packed == sorted(rows)
        drawn += rows
    assert len(set(drawn)) == len(drawn)
    for group in set(groups[drawn].tolist()):
        assert set(np.flatnonzero(groups == group)) <= set(drawn)
    assert run.total_steps == len(run.order) // 3
    assert run.order.num_pairs(run.total_steps) == len(drawn)


@pytest.mark.parametrize(
    ("loss", "weigh"),
    [
        *product(("dpo", "ipo", "aot"), ("pairs", "groups")),
        ("plackett_luce", "groups"),
    ],
)
def test_the_gradient_is_that_of_pairs_in_packs_of_their_own(
    loss: str, weigh: str, groups_of: ConfigOf
) -> None:
    config = groups_of(loss={"name": loss}, average_over=weigh, pack_tokens=100)
    run = opened(config)
    rows = run.order.rows(1)
    losses = LOSSES[loss](pairs_alone(run, rows))
    if weigh == "pairs":
        wanted_loss = losses.mean()
    else:
        numbers = torch.from_numpy(run.train.pairs.groups[rows])
        means = [losses[numbers == number].mean() for number in numbers.unique()]
        wanted_loss = torch.stack(means).mean()
    wanted_loss.backward()
    wanted = gradients(run)

    packs = packs_of(run, 1)
    assert len(packs) > 1
    passed = backward_two_pass if run.objective.is_coupled else backward_pass
    sums = passed(run, packs, 1)
    assert float(sums[0] / len(rows)) == pytest.approx(float(wanted_loss.detach()), rel=1e-5)
    for key, gradient in gradients(run).items():
        assert (gradient - wanted[key]).norm() <= 1e-4 * wanted[key].norm(), key


def test_the_reference_of_a_group_is_that_of_its_pairs(
    groups_of: ConfigOf,
) -> None:
    run = open_alone(groups_of())
    rows = list(range(len(run.train.pairs)))
    with torch.no_grad():
        alone = pairs_alone(run, rows)
    stored = torch.from_numpy(np.asarray(run.train.ref_logps))
    assert torch.allclose(alone.chosen, stored[:, 0], atol=1e-4)
    assert torch.allclose(alone.rejected, stored[:, 1], atol=1e-4)
    for shares in packs_in_order(run.train.pairs, len(rows), budget=300, ranks=3):
        assert len({len(share) for share in shares}) == 1
        assert sorted(row for share in shares for some in share for row in some) == rows
    windows = packs_in_order(run.train.pairs, len(rows), budget=120, ranks=1)
    assert sorted(row for (share,) in windows for some in share for row in some) == rows


def test_evaluation_counts_each_pair_once(groups_of: ConfigOf) -> None:
    run = opened(groups_of(eval_rows=5))
    assert run.test is not None
    found = evaluate(run, run.test)
    test = replace(run, train=run.test, order=make_order(run.test.pairs, run.config))
    with torch.no_grad():
        alone = pairs_alone(test, list(range(5)))
    assert found["eval/loss"] == pytest.approx(float(LOSSES["dpo"](alone).mean()), rel=1e-5)


def test_a_run_of_groups_resumes_bit_by_bit(groups_of: ConfigOf, tmp_path: Path) -> None:
    settings = {
        "loss": {"name": "plackett_luce"}, "average_over": "groups", "steps": 6, "dropout": True,
        "global_batch_size": 3, "checkpoint_every": 3, "pack_tokens": 150,
    }  # fmt: skip
    whole = train(groups_of(**settings, out=str(tmp_path / "whole")))
    half = groups_of(**settings, out=str(tmp_path / "half"))
    later = shutil.ignore_patterns("model", "run.json", "step-00000006")
    shutil.copytree(whole.out, half.out, ignore=later)
    again = train(half)
    assert whole.summary is not None
    assert again.summary is not None
    left, right = ((one.out / "model" / "model.safetensors").read_bytes() for one in (whole, again))
    assert left == right
    assert whole.summary.pairs == again.summary.pairs > 6 * 3


@pytest.mark.parametrize("count", [2, 3, 5])
def test_plackett_luce_is_the_papers_formula(count: int) -> None:
    """Compare with appendix A.3 of the paper in numpy; two completions give DPO."""
    torch.manual_seed(count)
    policy, reference = -20 * torch.rand(2, count, dtype=torch.float64)
    heights = 0.3 * (policy - reference).numpy()
    formula = -sum(heights[place] - np.log(np.exp(heights[place:]).sum()) for place in range(count))
    better, worse = torch.combinations(torch.arange(count)).T
    ones = torch.ones(len(better), dtype=torch.float64)
    order = torch.randperm(len(better))

    def loss(policy: torch.Tensor) -> torch.Tensor:
        columns = (policy[better], policy[worse], reference[better], reference[worse], ones, ones)
        logps = PairLogps(*columns, margin=ones, group=0 * better + 7, winner=better, weight=ones)
        shuffled = PairLogps(*(column[order] for column in logps))
        return LOSSES["plackett_luce"](shuffled, beta=0.3)

    assert loss(policy).numpy() == pytest.approx(np.full(len(better), formula), rel=1e-12)
    torch.autograd.gradcheck(loss, (policy.clone().requires_grad_(),))
    if count == 2:
        margin = float(heights[0] - heights[1])
        assert float(loss(policy)) == pytest.approx(np.logaddexp(0, -margin), rel=1e-12)


def test_plackett_luce_separates_groups_and_is_exact_at_large_margins() -> None:
    chosen = torch.tensor([-1e4, -3.0, -3.0, -1.0], dtype=torch.float64)
    zeros = torch.zeros_like(chosen)
    logps = PairLogps(
        chosen, zeros, zeros, zeros, zeros + 1, zeros + 1, zeros,
        group=torch.tensor([0, 1, 1, 2]), winner=torch.tensor([0, 0, 1, 0]), weight=zeros + 1,
    )  # fmt: skip
    found = LOSSES["plackett_luce"](logps, beta=1.0)
    two = float(np.logaddexp(0, 3.0)) * 2
    assert found.tolist() == pytest.approx([1e4, two, two, float(np.logaddexp(0, 1.0))])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"average_over": "groups"}, "needs `batch_unit: groups`"),
        ({"loss": {"name": "plackett_luce"}}, "plackett_luce needs `batch_unit: groups`"),
        (
            {"loss": {"name": "plackett_luce"}, "batch_unit": "groups"},
            "plackett_luce needs `batch_unit: groups` and `average_over: groups`",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(value: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_config({"model": "m", "data": "d", "out": "o"} | value, place="test")


def test_groups_that_fill_no_step_are_an_error(groups_of: ConfigOf) -> None:
    with pytest.raises(UsageError, match=r"groups do not fill one step of 1,000.*T125"):
        open_alone(groups_of(global_batch_size=1000, steps=None))


def test_the_longest_group_is_rehearsed(groups_of: ConfigOf) -> None:
    run = open_alone(groups_of(pack_tokens=1))
    longest = max(map(list, run.order.units), key=run.train.pairs.num_tokens)

    def starve(_: torch.nn.Module, given: tuple[Pack]) -> None:
        assert len(given[0].input_ids_T) == run.train.pairs.num_tokens(longest)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    run.policy.register_forward_pre_hook(starve)
    name = run.train.pairs.pair_id(longest[0])[:12]
    with pytest.raises(TrainingError, match=f"the group of pair {name} has"):
        check_memory(run)
