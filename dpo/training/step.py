"""One optimizer step of exactly `global_batch_size` units, for any packs and ranks.

packs → forward → loss → backward → clip → step, from top to bottom.

Losses of single pairs need one pass over the packs. Losses that couple the pairs of a step need the
log-probs of all of them first: a pass without gradients, then the loss and its gradient by every
log-prob, then a second pass that backpropagates it. So gradients are exact for any packs and ranks.
The load-balancing loss of a mixture of experts, which couples a step's tokens, is added the same
way.
"""

import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from dpo.data.packing import PromptWithCompletions, pack
from dpo.data.sampler import pack_units
from dpo.errors import TrainingError
from dpo.loss import PairLogps
from dpo.model.float32 import is_float32
from dpo.model.moe import balance_loss, experts_per_token
from dpo.model.policy import PolicyOutput
from dpo.model.spot_check import check_first_loss, check_first_margins
from dpo.training.distributed import is_sharded, whole
from dpo.training.metrics import SUMS, by_name, means, pair_sums
from dpo.training.mfu import work_of
from dpo.training.optimizer import learning_rate, set_rate
from dpo.training.setup import TrainContext
from dpo.training.split import Split


def train_step(run: TrainContext, step: int) -> dict[str, float]:
    """Take step `step` (from 1) and return its metrics, from before the update.

    The loss is the sum of weight · loss over the step's pairs, divided by their number; if
    averaged over groups, the mean of their means.
    """
    started = time.perf_counter()
    rate = learning_rate(step, total=run.total_steps, config=run.config.optimizer)
    set_rate(run.optimizer, rate)
    found, reference_loss = _gradients(run, step)
    _refuse_nonfinite(run, step, found)
    if step == 1 and run.starts_as_reference and not run.config.dropout:
        _check_first(run, found, reference_loss)
    seed_draws(run, step)  # of weights that are rounded stochastically
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.scale.settle()
    work, ranks = work_of(run.train.pairs, run.order.step(step)), run.accelerator.num_processes
    seconds = time.perf_counter() - started
    return found | {
        "learning_rate": rate,
        "tokens_per_second": work.tokens / seconds,
        "step_seconds": seconds,
        "mfu": run.machine.utilization(work, seconds=seconds, processes=ranks),
        **work.spared(),
    }


def _gradients(run: TrainContext, step: int) -> tuple[dict[str, float], float]:
    """Compute the step's clipped gradients; return its metrics and the reference's loss.

    If the loss scale makes gradients overflow, everything is repeated at half the scale.
    """
    packs, scale, seen = packs_of(run, step), run.scale.now, dict(run.objective.seen)
    while True:
        sums = by_name(run.accelerator.reduce(run_packs(run, packs, step), "sum"))
        found = means(sums, has_reference=run.reference_hash is not None)
        if run.config.router_aux_loss_coef is not None:
            found["aux_loss"] = sums["aux_loss"]
        if run.scale.moves:
            found["loss_scale"] = run.scale.now.value
        run.scale.divide_out(run.policy.parameters())
        limit = run.config.optimizer.max_grad_norm or math.inf
        norm = run.accelerator.clip_grad_norm_(run.policy.parameters(), limit)
        found["grad_norm"] = math.nan if norm is None else float(whole(norm))
        overflows = math.isfinite(found["loss"]) and not math.isfinite(found["grad_norm"])
        if not overflows or not run.scale.halve():
            if overflows:  # at every scale, so the scale is not the cause
                run.scale.now = scale
            return found, sums["reference_loss"] / sums["pairs"]
        run.optimizer.zero_grad(set_to_none=True)
        run.objective.seen.clear()
        run.objective.seen.update(seen)


def packs_of(run: TrainContext, step: int) -> list[list[int]]:
    """Return this rank's packs of a step, as rows; every rank gets the same number of packs."""
    units, ranks = run.order.step(step), run.accelerator.num_processes
    run.train.check([row for unit in units for row in unit])  # all ranks raise the same error
    packs = pack_units(run.train.pairs, units, budget=run.config.pack_size, ranks=ranks)
    return packs[run.accelerator.process_index]


def run_packs(run: TrainContext, packs: list[list[int]], step: int) -> Tensor:
    """Add the gradients of this rank's packs; return its sums, (len(SUMS),), float64."""
    couples = run.objective.is_coupled or run.config.router_aux_loss_coef is not None
    return (backward_two_pass if couples else backward_pass)(run, packs, step)


def backward_pass(run: TrainContext, packs: list[list[int]], step: int) -> Tensor:
    """Run the packs once, if the loss of each pair depends on no other pair."""
    seed_step(run, step)
    sums, num_pairs = _no_sums(run), len(run.order.rows(step))
    for place, rows in enumerate(packs):
        with _maybe_no_sync(run, is_last=place == len(packs) - 1):
            sums += _backward(run, rows, num_pairs)
    return sums


def backward_two_pass(run: TrainContext, packs: list[list[int]], step: int) -> Tensor:
    """Run the packs twice, for losses that couple pairs or a load-balancing loss."""
    seed_step(run, step)
    rows = run.order.rows(step)
    whole, loads_2E = forward_logps(run, run.train, packs, rows)
    run.objective.update(whole)
    chosen, rejected = (side.requires_grad_() for side in (whole.chosen, whole.rejected))
    seed_draws(run, step)
    weights = _weights(run, rows, len(rows)).to(chosen) * whole.weight
    losses = run.objective(whole) * weights
    grads = torch.autograd.grad(
        losses.sum() / len(rows), (chosen, rejected), allow_unused=True, materialize_grads=True
    )
    grad_of = dict(zip(rows, torch.stack(grads, 1), strict=True))
    seed_step(run, step)  # the same dropout again
    for place, some in enumerate(packs):
        with _maybe_no_sync(run, is_last=place == len(packs) - 1):
            _backward_from_grads(run, some, grad_of, loads_2E)
    if not run.accelerator.is_main_process:  # every rank has the sums of all pairs: count them once
        return _no_sums(run)
    with torch.no_grad():
        reference_loss = (run.objective(whole.at_reference()) * weights).sum()
    others = {} if loads_2E is None else {"aux_loss": _balance(run, loads_2E, loads_2E)}
    beta = run.objective.beta
    return pair_sums(losses, whole, beta=beta, reference_loss=reference_loss, **others)


def forward_pack(
    run: TrainContext, split: Split, rows: list[int]
) -> tuple[PolicyOutput, PairLogps | None]:
    """Run a pack; return the policy's output and the log-probs of its pairs.

    Ranks that have run out of packs run one of two tokens, without pairs (None), so that the
    collectives of all ranks match: those of sharded weights, and of DDP if a model has buffers.
    """
    device = run.accelerator.device
    with run.autocast():
        if not rows:
            token = np.zeros(1, np.int32)
            return run.policy(
                pack([PromptWithCompletions(token, (token,), (None,))]).to(device)
            ), None
        batch = split.batch(rows, device)
        found = run.policy(batch.pack)
        return found, split.pair_logps(batch, found)


def _backward(run: TrainContext, rows: list[int], num_pairs: int) -> Tensor:
    """Add a pack's gradients; return its sums. The step has `num_pairs`."""
    found, logps = forward_pack(run, run.train, rows)
    if logps is None:
        run.accelerator.backward(found.logps_N.sum() * 0.0)
        return _no_sums(run)
    weights = _weights(run, rows, num_pairs).to(run.accelerator.device) * logps.weight
    losses = run.objective(logps) * weights
    # accelerate averages gradients over ranks, and the step's loss is a mean over all its pairs
    share = run.accelerator.num_processes / num_pairs
    run.accelerator.backward(losses.sum() * (share * run.scale.now.value))
    with torch.no_grad():
        reference_loss = (run.objective(logps.at_reference()) * weights).sum()
    return pair_sums(losses, logps, beta=run.objective.beta, reference_loss=reference_loss)


@torch.no_grad()
def forward_logps(
    run: TrainContext, split: Split, packs: Iterable[list[int]], rows: Sequence[int]
) -> tuple[PairLogps, Tensor | None]:
    """Return the log-probs of pairs, in the order of `rows`, and experts' loads, (2, E).

    Every rank gets those of all ranks.
    """
    loads: list[Tensor] = []
    place = {row: at for at, row in enumerate(rows)}
    columns = torch.zeros((len(rows), len(PairLogps._fields)), dtype=torch.float64)
    columns = columns.to(run.accelerator.device)
    for some in packs:
        found, logps = forward_pack(run, split, some)
        if logps is not None:
            columns[[place[row] for row in some]] = logps.columns()
        if found.loads_2E is not None:
            loads.append(found.loads_2E.double() * (logps is not None))
    whole = PairLogps(*run.accelerator.reduce(columns, "sum").unbind(1))
    return whole, run.accelerator.reduce(torch.stack(loads).sum(0), "sum") if loads else None


def _backward_from_grads(
    run: TrainContext, rows: list[int], grad_of: dict[int, Tensor], loads_2E: Tensor | None
) -> None:
    """Run a pack again and backpropagate the gradients of its log-probs."""
    found, logps = forward_pack(run, run.train, rows)
    if logps is None:
        run.accelerator.backward(found.logps_N.sum() * 0.0)
        return
    mine = torch.stack([grad_of[row] for row in rows]).to(logps.chosen)
    total = (logps.chosen * mine[:, 0] + logps.rejected * mine[:, 1]).sum()
    if loads_2E is not None and found.loads_2E is not None:
        balance = _balance(run, found.loads_2E, loads_2E)
        total = total + (run.config.router_aux_loss_coef or 0.0) * balance
    run.accelerator.backward(total * (run.accelerator.num_processes * run.scale.now.value))


def _balance(run: TrainContext, loads_2E: Tensor, total_2E: Tensor) -> Tensor:
    model = run.accelerator.unwrap_model(run.policy).model
    return balance_loss(loads_2E, total_2E, chosen=experts_per_token(model))


def _weights(run: TrainContext, rows: list[int], num_pairs: int) -> Tensor:
    """Return the weight of each pair in the step's mean, (rows,)."""
    return torch.from_numpy(run.train.pairs.weights[rows] * run.order.weights(rows, num_pairs))


def _no_sums(run: TrainContext) -> Tensor:
    return torch.zeros(len(SUMS), dtype=torch.float64, device=run.accelerator.device)


def _maybe_no_sync(run: TrainContext, *, is_last: bool) -> AbstractContextManager[None]:
    """Average gradients over ranks once per step; if weights are sharded, with each pack.

    Whole gradients, kept to the end of a step, would take the memory that sharding saves.
    """
    if is_last or is_sharded(run.policy):
        return nullcontext()
    waiting: AbstractContextManager[None] = run.accelerator.no_sync(run.policy)
    return waiting


def seed_step(run: TrainContext, step: int) -> None:
    """Seed dropout by seed, step and rank, so that no generator's state has to be stored."""
    _seed(f"{run.config.seed}/{step}/{run.accelerator.process_index}")


def seed_draws(run: TrainContext, step: int) -> None:
    """Seed the random draws of a loss and of rounding, the same on every rank."""
    _seed(f"{run.config.seed}/{step}/loss")


def _seed(name: str) -> None:
    digest = hashlib.blake2b(name.encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest))


def _refuse_nonfinite(run: TrainContext, step: int, found: dict[str, float]) -> None:
    if math.isfinite(found["loss"]) and math.isfinite(found["grad_norm"]):
        return
    what = f"loss {found['loss']} and gradient norm {found['grad_norm']}"
    problem = f"{what}, so the step was not taken (pairs {name_pairs(run, step)})"
    remedy = "look at these pairs, lower the learning rate, or set skip_nonfinite and start again"
    if run.config.precision == "fp16":
        remedy = f"use bf16, which has float32's range, {remedy}"
    raise TrainingError("T301", f"step {step:,}", problem, remedy)


def _check_first(run: TrainContext, found: dict[str, float], reference_loss: float) -> None:
    """Check the first step against the reference, as exactly as its precision allows."""
    draws = partial(_draws_at_random, run, 1)
    model = run.accelerator.unwrap_model(run.policy).model
    is_exact = run.config.precision == "no" and is_float32(model)
    if is_exact or run.spread is None:
        check_first_loss(found["loss"], expected=reference_loss, draws=draws)
        return
    tokens = run.train.pairs.lengths[run.order.rows(1)][:, 1:].sum(1)
    check_first_margins(found, run.spread, tokens.tolist(), draws=draws)


@torch.no_grad()
def _draws_at_random(run: TrainContext, step: int) -> bool:
    """Return whether two passes over the first pack of a step differ."""
    rows = packs_of(run, step)[0] or run.order.rows(step)[:1]
    first, second = (forward_pack(run, run.train, rows)[0].logps_N for _ in range(2))
    return not torch.equal(first, second)


def pairs_run(run: TrainContext, step: int) -> list[str]:
    """Return the ids of the pairs that all ranks ran in a step, in the order of the step."""
    mine = [row for rows in packs_of(run, step) for row in rows]
    place = {row: place for place, row in enumerate(run.order.rows(step))}
    everyone = sorted(gather_object(mine), key=lambda row: place.get(row, -1))
    return [run.train.pairs.pair_id(row) for row in everyone]


def name_pairs(run: TrainContext, step: int) -> str:
    """Return the ids of a step's first pairs, for messages."""
    rows = run.order.rows(step)
    ids = [run.train.pairs.pair_id(row)[:12] for row in rows[:8]]
    return ", ".join([*ids, "…"] if len(rows) > len(ids) else ids)
