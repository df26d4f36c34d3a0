"""One optimizer step of exactly `global_batch_size` units, for any packs and ranks."""

import math
import time
from functools import partial

import torch
from accelerate.utils import gather_object

from dpo.errors import TrainingError
from dpo.model.spot_check import check_first_loss, check_first_margins
from dpo.training.gradients import packs_of, run_packs
from dpo.training.metrics import means
from dpo.training.mfu import work_of
from dpo.training.optimizer import learning_rate
from dpo.training.setup import TrainContext


def train_step(run: TrainContext, step: int) -> dict[str, float]:
    """Take step `step` (from 1) and return its metrics, from before the update.

    The loss is the sum of weight · loss over the step's pairs, divided by their number; if
    averaged over groups, the mean of their means.
    """
    started = time.perf_counter()
    rate = learning_rate(step, total=run.total_steps, config=run.config.optimizer)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    found, expected = _gradients(run, step)
    _refuse_nonfinite(run, step, found)
    if step == 1 and run.starts_as_reference and not run.config.dropout:
        _check_first(run, found, expected)
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


@torch.no_grad()
def _draws_at_random(run: TrainContext, step: int) -> bool:
    """Return whether two passes over the first pack of a step differ."""
    rows = packs_of(run, step)[0] or run.order.rows(step)[:1]
    pack = run.train.batch(rows, run.accelerator.device).pack
    with run.autocast():
        first, second = (run.policy(pack).logps_N for _ in range(2))
    return not torch.equal(first, second)


def _check_first(run: TrainContext, found: dict[str, float], expected: float) -> None:
    """Check the first step against the reference, as exactly as its precision allows."""
    draws = partial(_draws_at_random, run, 1)
    if run.config.mixed_precision == "no":
        check_first_loss(found["loss"], expected=expected, draws=draws)
        return
    tokens = run.train.pairs.lengths[run.order.rows(1)][:, 1:].sum(1)
    check_first_margins(found, run.spread, tokens.tolist(), draws=draws)


def _gradients(run: TrainContext, step: int) -> tuple[dict[str, float], float]:
    """Compute the step's clipped gradients; return its metrics and the reference's loss.

    If the loss scale makes gradients overflow, everything is repeated at half the scale.
    """
    packs, seen, scale = packs_of(run, step), dict(run.objective.seen), run.scale.now
    while True:
        sums = run.accelerator.reduce(run_packs(run, packs, step), "sum")
        *found_sums, at_reference, balance = sums
        found = means(torch.stack(found_sums))
        if run.config.router_aux_loss_coef is not None:
            found["aux_loss"] = float(balance)
        if run.scale.moves:
            found["loss_scale"] = run.scale.now.value
        run.scale.divide_out(run.policy.parameters())
        found["grad_norm"] = _clip(run)
        overflows = math.isfinite(found["loss"]) and not math.isfinite(found["grad_norm"])
        if not overflows or not run.scale.halve():
            if overflows:  # at every scale, so the scale is not the cause
                run.scale.now = scale
            return found, float(at_reference) / float(found_sums[-1])
        run.optimizer.zero_grad(set_to_none=True)
        run.objective.seen.clear()
        run.objective.seen.update(seen)


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


def _clip(run: TrainContext) -> float:
    """Clip the step's gradient to the limit; return its norm before clipping."""
    limit = run.config.optimizer.max_grad_norm
    norm = run.accelerator.clip_grad_norm_(run.policy.parameters(), limit or math.inf)
    return float(norm) if norm is not None else math.nan


def _refuse_nonfinite(run: TrainContext, step: int, found: dict[str, float]) -> None:
    if math.isfinite(found["loss"]) and math.isfinite(found["grad_norm"]):
        return
    what = f"loss {found['loss']} and gradient norm {found['grad_norm']}"
    problem = f"{what}, so the step was not taken (pairs {name_pairs(run, step)})"
    remedy = "look at these pairs, lower the learning rate, or set skip_nonfinite and start again"
    if run.config.mixed_precision == "fp16":
        remedy = f"use bf16, which has float32's range, {remedy}"
    raise TrainingError("T301", f"step {step:,}", problem, remedy)
