"""LD-DPO, SamPO and WPO against their equations, row by row."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from dpo.config import TrainConfig
from dpo.data.packing import PromptWithCompletions, pack
from dpo.data.token_weights import TokenWeights, weigh, weigh_reference
from dpo.model.load import load_model
from dpo.training.loop import train
from tests.dpo.conftest import open_alone
from tests.dpo.training.test_gradients import lines

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
        listed = tuple(None if mask is None else np.array(mask, bool) for mask in masks)
        rows.append(PromptWithCompletions(ids[0], (ids[1], ids[2]), listed))
    flat = torch.tensor(np.concatenate([np.concatenate(sides) for sides in logps]))
    sides = torch.arange(2 * len(rows)).reshape(-1, 2)

    way = TokenWeights(alpha)
    counts = [[counted(n, m) for n, m in zip((5, 3), pair, strict=True)] for pair in MASKS]
    weights = [way.weights("", pair) for pair in counts]
    found = weigh(pack(rows), flat, sides, weights)
    turned = weigh(pack(rows), flat, sides.flip(0), weights[::-1])
    assert found.numpy() == pytest.approx(np.array(expected), rel=1e-12)
    assert torch.equal(turned, found.flip(0))

    kinds = {"logps": pa.large_list(pa.float64()), "mask": pa.list_(pa.bool_())}
    stored = pa.table(
        {"pair_id": pa.array([bytes(16)] * len(MASKS))}
        | {
            f"{name}_mask": pa.array(
                [pair[side] and list(map(bool, pair[side])) for pair in MASKS], kinds["mask"]
            )
            for side, name in enumerate(("chosen", "rejected"))
        }
        | {
            f"ref_{name}_token_logps": pa.array([pair[side] for pair in logps], kinds["logps"])
            for side, name in enumerate(("chosen", "rejected"))
        }
    )
    assert weigh_reference(way, stored) == pytest.approx(np.array(expected), rel=1e-6)
    few = weigh_reference(way, stored.take([1, 0]))
    assert few == pytest.approx(np.array(expected)[[1, 0]], rel=1e-6)


def test_gradients_flow_by_these_weights() -> None:
    ids = [np.zeros(n, np.int32) for n in (2, 4, 2)]
    batch = pack([PromptWithCompletions(ids[0], (ids[1], ids[2]), (None, None))])
    logps = torch.zeros(6, requires_grad=True)
    weights = [TokenWeights(0.25).weights("", (4, 2))]
    weigh(batch, logps, torch.tensor([[0, 1]]), weights).sum().backward()
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
    run = open_alone(config_of(ld_alpha=0.5))
    plain = open_alone(config_of())
    lighter = np.asarray(run.train.ref_logps) - np.asarray(plain.train.ref_logps)
    assert (lighter > -1e-4).all()
    assert (lighter > 1.0).any(1).sum() > len(lighter) / 2


def test_sampo_counts_as_many_tokens_of_both_and_each_as_often() -> None:
    """Check that each token of the longer completion is drawn equally often."""
    drawn = [TokenWeights(None, seed=3).weights(str(n), (6, 2)) for n in range(3000)]

    assert all(w.sum() == 2 and set(w.tolist()) <= {0.0, 1.0} for pair in drawn for w in pair)
    often = np.mean([pair[0] for pair in drawn], 0)
    assert often == pytest.approx(np.full(6, 2 / 6), abs=0.04)
    again, other = (TokenWeights(None, seed=seed).weights("7", (6, 2))[0] for seed in (3, 4))
    assert np.array_equal(again, drawn[7][0])
    assert any(
        not np.array_equal(TokenWeights(None, seed=4).weights(str(n), (6, 2))[0], drawn[n][0])
        for n in range(9)
    ), other


def test_a_run_of_sampo_sees_the_drawn_tokens_on_both_sides(config_of: ConfigOf) -> None:
    run = open_alone(config_of(sampo=True, seed=5))
    rows = list(range(6))
    batch = run.train.batch(rows, run.accelerator.device)
    with torch.no_grad():
        found = run.train.pair_logps(batch, run.policy(batch.pack))
        whole = batch.pack.sums(run.policy(batch.pack).logps_N)[batch.pair_index_R2]

    assert torch.allclose(found.chosen, found.ref_chosen, atol=1e-4)  # policy = reference
    assert torch.allclose(found.rejected, found.ref_rejected, atol=1e-4)
    assert torch.equal(found.chosen_length, found.rejected_length)
    lengths = batch.pack.lengths()[batch.pair_index_R2]
    assert torch.equal(found.chosen_length, lengths.amin(1))
    longer = (lengths[:, 0] > lengths[:, 1]).long()
    for row, side in enumerate(longer.tolist()):
        of = (found.rejected, found.chosen)[side][row], whole[row, 1 - side]
        assert (of[0] > of[1]) == (lengths[row, 0] != lengths[row, 1])
        shorter = (found.chosen, found.rejected)[side][row], whole[row, side]
        assert torch.isclose(*shorter, atol=1e-4)
    log = [line["loss"] for line in lines(train(run.config).out) if "loss" in line]
    assert log[0] == pytest.approx(np.log(2), abs=1e-5)
    assert log[-1] < log[0]


@pytest.mark.parametrize("loss", ["dpo", "kto_pair"])
def test_wpo_weighs_pairs_by_how_likely_the_policy_is_to_say_them(
    loss: str, config_of: ConfigOf
) -> None:
    """Compare with transformers' own logits; no gradient flows through the weight."""
    config = config_of(wpo=True, loss={"name": loss}, global_batch_size=6, eval_split=None)
    run = open_alone(config)
    rows = run.order.rows(1)
    model, weights = load_model(config.model), []
    for row in rows:
        pair, logs = run.train.pairs[row], []
        for completion in pair.completions:
            ids = torch.from_numpy(np.concatenate([pair.prompt, completion]).astype(np.int64))
            logps = model(ids[None]).logits[0, len(pair.prompt) - 1 : -1].log_softmax(-1)
            own = logps.gather(1, ids[len(pair.prompt) :, None])[:, 0]
            logs.append((own - (2 * logps).logsumexp(-1)).mean())
        weights.append(min(1.0, float(torch.exp(logs[0] + logs[1]).detach())))
    assert 0 < min(weights) < max(weights)
    batch = run.train.batch(rows, run.accelerator.device)
    found = run.train.pair_logps(batch, run.policy(batch.pack))
    assert found.weight.tolist() == pytest.approx(weights, rel=1e-3)
    assert not found.weight.requires_grad

    at_start = float((run.objective(found.at_reference()) * torch.tensor(weights)).mean())
    log = [line["loss"] for line in lines(train(config).out) if "loss" in line]
    assert log[0] == pytest.approx(at_start, rel=1e-3)
    assert log[-1] < log[0]
