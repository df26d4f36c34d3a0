"""One optimizer step: exactly `global_batch_size` pairs, whatever the packs and ranks."""

import hashlib
import math
import time
from contextlib import nullcontext

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from dpo.checks import check_first_loss
from dpo.errors import TrainingError
from dpo.loss import LOSSES, at_reference
from dpo.metrics import NAMES, means, pair_sums
from dpo.optim import learning_rate
from dpo.packing import Pack, Prompted, pack, plan
from dpo.run import Run
from dpo.steps import step_pairs


def train_step(run: Run, step: int) -> dict[str, float]:
    """Take step `step` (from 1) and return its metrics, those of the policy before it moved.

    The loss is the sum of weight · loss over the step's pairs, divided by their number.
    """
    started = time.perf_counter()
    seed_step(run, step)
    rate = learning_rate(step, total=run.total_steps, config=run.config.optimizer)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    packs = _packs_of(run, step)
    sums = torch.zeros(len(NAMES) + 2, dtype=torch.float64, device=run.accelerator.device)
    for place, rows in enumerate(packs):
        is_last = place == len(packs) - 1
        with nullcontext() if is_last else run.accelerator.no_sync(run.policy):
            sums += _backward(run, rows)
    sums = run.accelerator.reduce(sums, "sum")
    found = means(sums[:-1])
    found["grad_norm"] = _clip(run)
    _refuse_nonfinite(run, step, found)
    if step == 1 and run.starts_as_reference:
        check_first_loss(
            found["loss"], expected=_loss_at_start(run), precision=run.config.mixed_precision
        )
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    speed = float(sums[-1]) / seconds
    return found | {"learning_rate": rate, "tokens_per_second": speed, "step_seconds": seconds}


def rows_of(run: Run, step: int) -> list[int]:
    """The train rows of a step, in its order."""
    config = run.config
    rows = step_pairs(
        len(run.train.pairs), seed=config.seed, step=step, batch=config.global_batch_size
    )
    return [int(row) for row in rows]


def pairs_run(run: Run, step: int) -> list[str]:
    """Ids of the pairs that the ranks together ran in a step, in the order of the step."""
    mine = [row for rows in _packs_of(run, step) for row in rows]
    place = {row: place for place, row in enumerate(rows_of(run, step))}
    everyone = sorted(gather_object(mine), key=lambda row: place.get(row, -1))
    return [run.train.pairs.pair_id(row) for row in everyone]


def seed_step(run: Run, step: int) -> None:
    """Seed dropout by what names it, so that no generator's state has to be kept."""
    name = f"{run.config.seed}/{step}/{run.accelerator.process_index}"
    digest = hashlib.blake2b(name.encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest))


def _packs_of(run: Run, step: int) -> list[list[int]]:
    """This rank's packs of a step; as many on every rank, so that collectives stay in step."""
    rows = rows_of(run, step)
    sizes = run.train.pairs.sizes[rows].tolist()
    ranks = run.accelerator.num_processes
    shares = plan(sizes, budget=run.config.pack_tokens, ranks=ranks)
    mine = [[rows[place] for place in places] for places in shares[run.accelerator.process_index]]
    return mine + [[]] * (max(map(len, shares)) - len(mine))


def _backward(run: Run, rows: list[int]) -> Tensor:
    """Add a pack's gradients; returns its sums, with its tokens at the end."""
    config, device = run.config, run.accelerator.device
    if not rows:
        with run.accelerator.autocast():
            run.accelerator.backward(run.policy(_empty_pack().to(device)).sum() * 0.0)
        return torch.zeros(len(NAMES) + 2, dtype=torch.float64, device=device)
    batch = run.train.pack(rows, device)
    with run.accelerator.autocast():
        logps = run.train.pair_logps(rows, batch, run.policy(batch))
    settings = config.loss.settings
    losses = LOSSES[config.loss.name](logps, **settings)
    weights = torch.from_numpy(run.train.pairs.weights[rows]).to(device)
    # accelerate averages gradients over ranks, and the step's loss is a mean over all its pairs
    scale = run.accelerator.num_processes / config.global_batch_size
    run.accelerator.backward((losses * weights).sum() * scale)
    sums = pair_sums(losses * weights, logps, beta=settings["beta"])
    return torch.cat((sums, sums.new_tensor([len(batch.input_ids_T)])))


def _empty_pack() -> Pack:
    """Two tokens whose loss weighs nothing: a rank without work keeps the others company."""
    one = np.zeros(1, np.int32)
    return pack([Prompted(one, (one,), (None,))])


def _clip(run: Run) -> float:
    """Scale the step's gradient down to the limit; returns its norm before that."""
    limit = run.config.optimizer.max_grad_norm
    norm = run.accelerator.clip_grad_norm_(run.policy.parameters(), limit or math.inf)
    return float(norm) if norm is not None else math.nan


def _loss_at_start(run: Run) -> float:
    """The loss of a policy that equals its reference, by the weights of the first step's pairs."""
    weights = run.train.pairs.weights[rows_of(run, 1)]
    return at_reference(run.config.loss.name, run.config.loss.settings) * float(weights.mean())


def _refuse_nonfinite(run: Run, step: int, found: dict[str, float]) -> None:
    if math.isfinite(found["loss"]) and math.isfinite(found["grad_norm"]):
        return
    rows = rows_of(run, step)
    ids = ", ".join(run.train.pairs.pair_id(row)[:12] for row in rows[:8])
    what = f"loss {found['loss']} and gradient norm {found['grad_norm']}"
    problem = f"{what}, so the step was not taken (pairs {ids}, …)"
    remedy = "look at these pairs, or lower the learning rate; the last checkpoint is intact"
    raise TrainingError("T301", f"step {step:,}", problem, remedy)
