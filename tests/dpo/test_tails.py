"""LD-DPO against its equations, row by row, in numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator

from dpo.config import TrainConfig
from dpo.packing import Prompted, pack
from dpo.run import open_run
from dpo.tails import lighten, lighten_reference
from dpo.training import train
from tests.dpo.test_passes import lines

ConfigOf = Callable[..., TrainConfig]
MASKS = [
    (None, None),
    ([1, 1, 0, 1, 1], None),
    (None, [1, 0, 1]),
    ([0, 1, 1, 1, 1], [0, 1, 1]),
    ([0, 0, 0, 1, 1], None),
]


def by_hand(logps: np.ndarray, mask: list[int] | None, shared: int, alpha: float) -> float:
    counted = logps if mask is None else logps[np.array(mask, bool)]
    return float(counted[:shared].sum() + alpha * counted[shared:].sum())


def counted(length: int, mask: list[int] | None) -> int:
    return length if mask is None else sum(mask)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_tail_of_the_longer_completion_counts_for_less(alpha: float) -> None:
    draw = np.random.default_rng(0)
    rows, logps, expected = [], [], []
    for chosen_mask, rejected_mask in MASKS:
        sides = [-draw.random(5), -draw.random(3)]
        masks = [chosen_mask, rejected_mask]
        shared = min(counted(len(s), m) for s, m in zip(sides, masks, strict=True))
        expected.append([by_hand(s, m, shared, alpha) for s, m in zip(sides, masks, strict=True)])
        logps.append(sides)
        ids = [np.zeros(n, np.int32) for n in (2, 5, 3)]
        told = tuple(None if mask is None else np.array(mask, bool) for mask in masks)
        rows.append(Prompted(ids[0], (ids[1], ids[2]), told))
    flat = torch.tensor(np.concatenate([np.concatenate(sides) for sides in logps]))
    sides = torch.arange(2 * len(rows)).reshape(-1, 2)

    found = lighten(pack(rows), flat, sides, alpha=alpha)
    turned = lighten(pack(rows), flat, sides.flip(0), alpha=alpha)
    assert found.numpy() == pytest.approx(np.array(expected), rel=1e-12)
    assert torch.equal(turned, found.flip(0))

    kinds = {"logps": pa.large_list(pa.float64()), "mask": pa.list_(pa.bool_())}
    tokens = pa.table(
        {
            f"{name}_mask": pa.array(
                [pair[side] and list(map(bool, pair[side])) for pair in MASKS], kinds["mask"]
            )
            for side, name in enumerate(("chosen", "rejected"))
        }
    )
    stored = pa.table(
        {
            f"ref_{name}_token_logps": pa.array([pair[side] for pair in logps], kinds["logps"])
            for side, name in enumerate(("chosen", "rejected"))
        }
    )
    again = lighten_reference([tokens, tokens], [stored, stored], alpha=alpha)
    assert again == pytest.approx(np.array(expected * 2), rel=1e-6)


def test_gradients_flow_by_these_weights() -> None:
    ids = [np.zeros(n, np.int32) for n in (2, 4, 2)]
    batch = pack([Prompted(ids[0], (ids[1], ids[2]), (None, None))])
    logps = torch.zeros(6, requires_grad=True)
    lighten(batch, logps, torch.tensor([[0, 1]]), alpha=0.25).sum().backward()
    assert logps.grad is not None
    assert logps.grad.tolist() == [1, 1, 0.25, 0.25, 1, 1]


def test_runs_start_at_log_two_and_alpha_one_is_dpo(config_of: ConfigOf, tmp_path: Path) -> None:
    losses = {}
    for alpha in (None, 1.0, 0.5):
        config = config_of(ld_alpha=alpha, out=str(tmp_path / str(alpha)), eval_every=1)
        losses[alpha] = [line["loss"] for line in lines(train(config).out) if "loss" in line]
    assert losses[1.0] == pytest.approx(losses[None], rel=1e-6)
    assert losses[0.5][0] == pytest.approx(np.log(2), abs=1e-5)
    assert losses[0.5][-1] != pytest.approx(losses[None][-1], abs=1e-5)
    run = open_run(config_of(ld_alpha=0.5), Accelerator(cpu=True))
    plain = open_run(config_of(), Accelerator(cpu=True))
    lighter = run.train.ref_logps - plain.train.ref_logps
    assert (lighter > -1e-4).all()
    assert (lighter > 1.0).any(1).sum() > len(lighter) / 2
