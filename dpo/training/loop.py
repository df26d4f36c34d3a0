"""The training loop, read from top to bottom."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from dpo.artifacts.card import write_card
from dpo.artifacts.report.page import NAME as PAGE
from dpo.artifacts.report.page import RunFacts, render_run
from dpo.artifacts.save import save_model
from dpo.artifacts.summary import NAME, RunSummary, read_summary
from dpo.config import TrainConfig
from dpo.errors import TrainingError, UsageError
from dpo.model.cpu_memory import tune_cpu_allocator
from dpo.training.checkpoint import (
    State,
    find_checkpoint,
    keep_newest,
    load_checkpoint,
    require_places,
    save_checkpoint,
)
from dpo.training.deciding import deciding_settings, differences, flat
from dpo.training.distributed import is_sharded, make_accelerator, reshard_root, whole_weights
from dpo.training.evaluate import evaluate_all, sample
from dpo.training.log import MetricsLog, Report, read_lines
from dpo.training.memory_check import check_memory
from dpo.training.metrics import SPIKE_WINDOW, LossSpikes
from dpo.training.run_folder import (
    METRICS,
    check_finished,
    checkpoints_folder,
    claim_run,
    seal_run,
)
from dpo.training.setup import TrainContext, open_run
from dpo.training.signals import StopRequest
from dpo.training.step import name_pairs, pairs_run, train_step
from dpo.training.trackers import check_trackers
from prefdata.store.claim import Claim
from prefdata.store.commit import lock_folder, make_folder, write_bytes

_OTHER = "other settings, data or weights"


class Resumed(NamedTuple):
    """Where a run begins: steps done, and how many of them were skipped."""

    step: int
    skipped: int


class TrainResult(NamedTuple):
    """Result of a run."""

    out: Path
    steps: int
    stopped_by: int | None
    """The signal that stopped it after a checkpoint; None if it finished."""
    summary: RunSummary | None
    """None if it was stopped."""


def train(
    config: TrainConfig,
    *,
    report: Report = lambda step, total, metrics: None,  # noqa: ARG005
    on_message: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> TrainResult:
    """Train a policy on a finished build; resume if `out` has checkpoints of this run.

    `report` gets each step's metrics, `on_message` single events, both in the main process only.
    Raises DpoError and PrefdataError.
    """
    tune_cpu_allocator()
    check_trackers(config)
    accelerator = make_accelerator(config)
    claim = claim_run(config)
    make_folder(config.out)
    if not accelerator.is_main_process:
        report, on_message = (lambda _step, _total, _metrics: None), (lambda _line: None)
    with lock_folder(config.out) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            claim.save()
        run = open_run(config, accelerator)
        finished = run_training(run, claim, report=report, on_message=on_message)
        accelerator.wait_for_everyone()
        accelerator.end_training()
    return finished


def run_training(
    run: TrainContext, claim: Claim, *, report: Report, on_message: Callable[[str], None]
) -> TrainResult:
    """Train an open run to its end: `train` without opening and locking."""
    config = run.config
    started = time.perf_counter()
    for line in _said_first(run):
        on_message(line)
    if (summary := _finished_before(run, on_message)) is not None:
        on_message(f"{config.out} contains this run, finished at step {summary.steps:,}")
        return TrainResult(config.out, summary.steps, None, summary)
    start = resume(run)
    if start.step:
        on_message(f"resumes after step {start.step:,}")
    elif before := _steps_before(config.out):
        on_message(
            f"{config.out} has {before:,} steps but no checkpoint to continue from: training"
            " begins again at step 1 (checkpoint_every keeps some)"
        )
    require_places(checkpoints_folder(config.out), start.step + 1, run.total_steps)
    check_memory(run)
    log = MetricsLog(run, start.step + 1, report)
    for line in log.notices:
        on_message(line)
    try:
        finished = _take_steps(run, log, start, on_message)
        if finished is None:
            return _finish(run, log, claim, seconds=time.perf_counter() - started)
    except TrainingError as error:
        _write_page(run, log, f"Stopped by an error at {error.place}: {error.problem}.")
        raise
    _write_page(run, log, _how_it_ended(finished))
    return finished


def _said_first(run: TrainContext) -> Iterator[str]:
    """Yield messages about how the run works, before its first step."""
    config = run.config
    if run.unshared_because is not None:
        yield f"prompts are not shared by their completions: {run.unshared_because}"
    yield from run.notices
    if config.mixed_precision == "fp16" and run.accelerator.device.type == "cpu":
        yield "fp16 on a CPU may take hundreds of times as long as bf16"
    if config.eval_split not in (None, "test"):
        yield f"evaluates on the split {config.eval_split}"


def _take_steps(
    run: TrainContext, log: MetricsLog, start: Resumed, on_message: Callable[[str], None]
) -> TrainResult | None:
    """Take all remaining steps; return the result if a signal stopped them, else None."""
    config, skipped = run.config, start.skipped
    spikes = LossSpikes(line["loss"] for line in log.lines() if "loss" in line)
    with StopRequest() as stop:
        for step in range(start.step + 1, run.total_steps + 1):
            left_out = _take_step(run, step, log, may_skip=skipped < config.skip_nonfinite)
            if left_out is not None:
                skipped += 1
                on_message(left_out)
            elif (height := spikes.sees(log.last["loss"])) is not None:
                on_message(_of_a_spike(run, step, log.last["loss"], height))
            number = stop.signal_on_any_rank(run.accelerator)
            if step < run.total_steps and (number or _is_due(step, config.checkpoint_every)):
                checkpoint(run, step, skipped)
            if number and step < run.total_steps:
                return TrainResult(config.out, step, number, None)
    return None


def _of_a_spike(run: TrainContext, step: int, loss: float, height: float) -> str:
    above = f"{height:.1f} deviations above the mean of the last {SPIKE_WINDOW}"
    return f"step {step:,}: its loss {loss:.4f} is {above} (pairs {name_pairs(run, step)})"


def _how_it_ended(finished: TrainResult) -> str:
    if finished.summary is not None:
        seconds = finished.summary.seconds
        return f"{finished.summary.pairs:,} pairs; the last start took {seconds:,.0f} s."
    name = signal.Signals(finished.stopped_by or 0).name
    return f"Stopped by {name} after step {finished.steps:,}; run the same command to continue."


def _write_page(run: TrainContext, log: MetricsLog, state: str) -> None:
    """Write `report.html` from all of `metrics.jsonl`."""
    if not run.accelerator.is_main_process:
        return
    facts = {
        "build": run.build.manifest.hash,
        "reference": run.reference_hash or "none",
        "run": run.fingerprint,
    }
    shown = RunFacts(run.config, run.total_steps, state, facts)
    write_bytes(run.config.out / PAGE, render_run(shown, log.lines(), log.samples()).encode())


def _take_step(run: TrainContext, step: int, log: MetricsLog, *, may_skip: bool) -> str | None:
    """Take and log one step; return a message if it was skipped."""
    left_out = None
    try:
        log.write(step, train_step(run, step))
    except TrainingError as error:  # every rank has the same numbers
        if not may_skip:
            raise
        run.optimizer.zero_grad(set_to_none=True)
        log.write(step, {"skipped": 1.0})
        left_out = f"{error.place} is skipped: {error.problem} [{error.code}]"
    if run.config.log_pairs:
        log.write_pairs(step, pairs_run(run, step))
    if _is_due(step, run.config.eval_every, run.total_steps):
        if evaluation := evaluate_all(run):
            log.write(step, evaluation)
        if run.sampler is not None:
            log.write_samples(step, sample(run))
    return left_out


def resume(run: TrainContext) -> Resumed:
    """Load the newest whole checkpoint, if there is one."""
    found = find_checkpoint(checkpoints_folder(run.config.out))
    if found is None:
        return Resumed(0, 0)
    path, state = found
    if state.fingerprint != run.fingerprint:
        named = differences(state.decides, run.decides.flat()) if state.decides else None
        problem = f"is from a run with {_OTHER}" + (f": {named}" if named else "")
        raise UsageError("T140", str(path), problem, "name another `out`")
    model = run.accelerator.unwrap_model(run.policy).model
    load_checkpoint(path, state, model=model, optimizer=run.optimizer)
    run.objective.seen.update(state.seen)
    run.scale.now = state.scale or run.scale.now
    return Resumed(state.step, state.skipped)


def checkpoint(run: TrainContext, step: int, skipped: int) -> None:
    """Commit the state after a step, then remove the oldest checkpoints."""
    folder, is_main = checkpoints_folder(run.config.out), run.accelerator.is_main_process
    reshard_root(run.policy)
    if is_main or is_sharded(run.policy):
        model = run.accelerator.unwrap_model(run.policy).model
        state = State(
            step=step,
            skipped=skipped,
            seen=run.objective.seen,
            scale=run.scale.now if run.scale.moves else None,
            fingerprint=run.fingerprint,
            decides=run.decides.flat(),
        )
        save_checkpoint(folder, state, model=model, optimizer=run.optimizer)
    if is_main:
        keep_newest(folder, run.config.keep_checkpoints, run.fingerprint)
    run.accelerator.wait_for_everyone()


def _finish(run: TrainContext, log: MetricsLog, claim: Claim, *, seconds: float) -> TrainResult:
    """Save the model and, last of all, `run.json`."""
    out = run.config.out
    if not log.first:
        remedy = "look at the data and the reference's log-probs"
        raise TrainingError("T301", str(out), "no step had a finite loss and gradient", remedy)
    summary = RunSummary(
        fingerprint=run.fingerprint,
        config=run.config,
        build_hash=run.build.manifest.hash,
        reference_hash=run.reference_hash,
        processes=run.accelerator.num_processes,
        steps=run.total_steps,
        pairs=run.order.num_pairs(run.total_steps),
        first_loss=log.first["loss"],
        final=log.last,
        seconds=round(seconds, 1),
    )
    finished = TrainResult(out, run.total_steps, None, summary)
    reshard_root(run.policy)
    policy = run.accelerator.unwrap_model(run.policy)
    weights = whole_weights(policy.model)
    if run.accelerator.is_main_process:
        card = write_card(summary, name=out.name)
        made = save_model(policy, run.config, claim, weights=weights, card=card)
        _write_page(run, log, _how_it_ended(finished))
        summary.model_copy(update={"files": seal_run(out, made)}).write(out)
    run.accelerator.wait_for_everyone()
    return finished


def _finished_before(run: TrainContext, on_message: Callable[[str], None]) -> RunSummary | None:
    """Return the summary of this run if it is finished and its model is unchanged."""
    out = run.config.out
    summary = read_summary(out)
    if summary is None:
        return None
    if (summary.fingerprint, summary.steps) == (run.fingerprint, run.total_steps):
        checked = check_finished(out, summary)
        for line in checked.lines:
            on_message(line)
        return None if checked.again else summary
    if summary.fingerprint == run.fingerprint and summary.steps < run.total_steps:
        return None  # the same run with more steps
    found = differences(*(flat(deciding_settings(c)) for c in (summary.config, run.config)))
    if found is None and summary.reference_hash != run.reference_hash:
        found = "the reference log-probs"
    problem = f"is the summary of a run with {_OTHER}" + (f": {found}" if found else "")
    remedy = "name another `out`"
    raise UsageError("T141", str(run.config.out / NAME), problem, remedy)


def _steps_before(out: Path) -> int:
    """Return the last step in the metrics of an earlier start; 0 if there was none."""
    return max((int(line["step"]) for line in read_lines(out / METRICS)), default=0)


def _is_due(step: int, every: int | None, last: int | None = None) -> bool:
    return step == last or (every is not None and step % every == 0)
