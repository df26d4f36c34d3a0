"""Gradients of a step, pack by pack, and the sums behind its metrics.

Losses of single pairs need one pass. Losses that couple the pairs of a step need the log-probs of
all of them first: a pass without gradients, then the loss and its gradient by every log-prob, then
a second pass that backpropagates it. So gradients are exact for any packs and ranks. The
load-balancing loss of a mixture of experts, which couples a step's tokens, is added the same way.
"""

import hashlib
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from dpo.data.packing import Pack, PromptWithCompletions, bin_pack, pack
from dpo.loss import PairLogps
from dpo.model.moe import balance_loss, experts_per_token
from dpo.training.distributed import is_sharded
from dpo.training.metrics import METRICS, pair_sums
from dpo.training.setup import TrainContext

NUM_SUMS = len(METRICS) + 3
"""Sums of each metric, of pairs, of the loss at the reference, and of the load-balancing loss."""


def run_packs(run: TrainContext, packs: list[list[int]], step: int) -> Tensor:
    """Add the gradients of this rank's packs; return its sums, (NUM_SUMS,), float64."""
    couples = run.objective.is_coupled or run.config.router_aux_loss_coef is not None
    return (backward_two_pass if couples else backward_pass)(run, packs, step)


def backward_pass(run: TrainContext, packs: list[list[int]], step: int) -> Tensor:
    """Run the packs once, if the loss of each pair depends on no other pair."""
    seed_step(run, step)
    sums, num_pairs = _nothing(run), len(run.order.rows(step))
    for place, rows in enumerate(packs):
        with _maybe_no_sync(run, is_last=place == len(packs) - 1):
            sums += _backward(run, rows, num_pairs)
    return sums


def backward_two_pass(run: TrainContext, packs: list[list[int]], step: int) -> Tensor:
    """Run the packs twice, for losses that couple pairs or a load-balancing loss."""
    seed_step(run, step)
    rows = run.order.rows(step)
    whole, loads_2E = forward_logps(run, packs, rows)
    run.objective.update(whole)
    chosen, rejected = (side.requires_grad_() for side in (whole.chosen, whole.rejected))
    seed_draws(run, step)
    weights = _weights(run, rows, len(rows)).to(chosen) * whole.weight
    losses = run.objective(whole) * weights
    grad_logps = torch.autograd.grad(
        losses.sum() / len(rows), (chosen, rejected), allow_unused=True, materialize_grads=True
    )
    _backward_from_grads(
        run, packs, step, dict(zip(rows, torch.stack(grad_logps, 1), strict=True)), loads_2E
    )
    if not run.accelerator.is_main_process:  # every rank has the sums of all pairs: count them once
        return _nothing(run)
    with torch.no_grad():
        at_reference = (run.objective(whole.at_reference()) * weights).sum()
        sums = pair_sums(losses, whole, beta=run.objective.beta)
        balance = sums.new_zeros(()) if loads_2E is None else _balance(run, loads_2E, loads_2E)
    return torch.cat((sums, torch.stack((at_reference, balance)).to(sums)))


@torch.no_grad()
def forward_logps(
    run: TrainContext, packs: list[list[int]], rows: list[int]
) -> tuple[PairLogps, Tensor | None]:
    """Return the log-probs of a step's pairs, in the order of `rows`, and experts' loads, (2, E).

    Every rank gets those of all ranks.
    """
    loads: list[Tensor] = []
    place = {row: at for at, row in enumerate(rows)}
    columns = torch.zeros(
        (len(rows), len(PairLogps._fields)), dtype=torch.float64, device=run.accelerator.device
    )
    for some in packs:
        if not some:
            found = run.policy(dummy_pack().to(run.accelerator.device))
            loads += [] if found.loads_2E is None else [found.loads_2E.double() * 0.0]
            continue
        batch = run.train.batch(some, run.accelerator.device)
        with run.autocast():
            found = run.policy(batch.pack)
            logps = run.train.pair_logps(batch, found)
        columns[[place[row] for row in some]] = logps.columns()
        loads += [] if found.loads_2E is None else [found.loads_2E.double()]
    whole = PairLogps(*run.accelerator.reduce(columns, "sum").unbind(1))
    return whole, run.accelerator.reduce(torch.stack(loads).sum(0), "sum") if loads else None


def packs_of(run: TrainContext, step: int) -> list[list[int]]:
    """Return this rank's packs of a step, as rows; every rank gets the same number of packs.

    A group is never split across packs.
    """
    units = run.order.step(step)
    sizes = [run.train.pairs.num_tokens(unit) for unit in units]
    ranks = run.accelerator.num_processes
    shares = bin_pack(sizes, budget=run.config.pack_tokens, ranks=ranks)
    mine = [
        [row for place in places for row in units[place]]
        for places in shares[run.accelerator.process_index]
    ]
    return mine + [[]] * (max(map(len, shares)) - len(mine))


def seed_step(run: TrainContext, step: int) -> None:
    """Seed dropout by seed, step and rank, so that no generator's state has to be stored."""
    _seed(f"{run.config.seed}/{step}/{run.accelerator.process_index}")


def seed_draws(run: TrainContext, step: int) -> None:
    """Seed the random draws of a loss, the same on every rank."""
    _seed(f"{run.config.seed}/{step}/loss")


def _seed(name: str) -> None:
    digest = hashlib.blake2b(name.encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest))


def _weights(run: TrainContext, rows: list[int], num_pairs: int) -> Tensor:
    """Return the weight of each pair in the step's mean, (rows,)."""
    return torch.from_numpy(run.train.pairs.weights[rows] * run.order.weights(rows, num_pairs))


def _backward(run: TrainContext, rows: list[int], num_pairs: int) -> Tensor:
    """Add a pack's gradients; return its sums. The step has `num_pairs`."""
    device = run.accelerator.device
    if not rows:
        _run_dummy_pack(run)
        return _nothing(run)
    batch = run.train.batch(rows, device)
    with run.autocast():
        logps = run.train.pair_logps(batch, run.policy(batch.pack))
    weights = _weights(run, rows, num_pairs).to(device) * logps.weight
    losses = run.objective(logps) * weights
    # accelerate averages gradients over ranks, and the step's loss is a mean over all its pairs
    share = run.accelerator.num_processes / num_pairs
    run.accelerator.backward(losses.sum() * (share * run.scale.now.value))
    with torch.no_grad():
        at_reference = (run.objective(logps.at_reference()) * weights).sum()
        sums = pair_sums(losses, logps, beta=run.objective.beta)
    return torch.cat((sums, torch.stack((at_reference.double(), sums.new_zeros(())))))


def _backward_from_grads(
    run: TrainContext,
    packs: list[list[int]],
    step: int,
    grad_logps: dict[int, Tensor],
    loads_2E: Tensor | None,
) -> None:
    """Run the packs again with the same dropout and backpropagate their log-probs' gradients."""
    seed_step(run, step)
    for place, rows in enumerate(packs):
        with _maybe_no_sync(run, is_last=place == len(packs) - 1):
            if not rows:
                _run_dummy_pack(run)
                continue
            batch = run.train.batch(rows, run.accelerator.device)
            with run.autocast():
                found = run.policy(batch.pack)
                logps = run.train.pair_logps(batch, found)
            mine = torch.stack([grad_logps[row] for row in rows]).to(logps.chosen)
            moved = (logps.chosen * mine[:, 0] + logps.rejected * mine[:, 1]).sum()
            if loads_2E is not None:
                balance = _balance(run, found.loads_2E, loads_2E)
                moved = moved + (run.config.router_aux_loss_coef or 0.0) * balance
            run.accelerator.backward(moved * (run.accelerator.num_processes * run.scale.now.value))


def _balance(run: TrainContext, loads_2E: Tensor, total_2E: Tensor) -> Tensor:
    model = run.accelerator.unwrap_model(run.policy).model
    return balance_loss(loads_2E, total_2E, chosen=experts_per_token(model))


def _maybe_no_sync(run: TrainContext, *, is_last: bool) -> AbstractContextManager[None]:
    """Average gradients over ranks once per step; if weights are sharded, with each pack.

    Whole gradients, kept to the end of a step, would take the memory that sharding saves.
    """
    if is_last or is_sharded(run.accelerator):
        return nullcontext()
    waiting: AbstractContextManager[None] = run.accelerator.no_sync(run.policy)
    return waiting


def _run_dummy_pack(run: TrainContext) -> None:
    """Run a pass with zero loss, so that the collectives of all ranks match."""
    with run.autocast():
        found = run.policy(dummy_pack().to(run.accelerator.device))
        run.accelerator.backward(found.logps_N.sum() * 0.0)


def dummy_pack() -> Pack:
    """Return a pack of two tokens, for ranks that have run out of packs: its loss counts zero."""
    one = np.zeros(1, np.int32)
    return pack([PromptWithCompletions(one, (one,), (None,))])


def _nothing(run: TrainContext) -> Tensor:
    return torch.zeros(NUM_SUMS, dtype=torch.float64, device=run.accelerator.device)
