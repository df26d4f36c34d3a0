"""The training loop, read from top to bottom."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from dpo.artifacts.card import write_card
from dpo.artifacts.rescore import probe
from dpo.artifacts.save import Source, save_run
from dpo.artifacts.summary import NAME, RunSummary, read_summary
from dpo.config import TrainConfig
from dpo.errors import TrainingError, UsageError
from dpo.model.cpu_memory import return_freed_memory, tune_cpu_allocator
from dpo.training.checkpoint import (
    State,
    find_checkpoint,
    keep_newest,
    load_checkpoint,
    load_weights,
    open_checkpoint,
    require_places,
    save_checkpoint,
    step_folder,
)
from dpo.training.deciding import deciding_settings, differences, flat
from dpo.training.distributed import (
    is_sharded,
    make_accelerator,
    reshard_root,
    whole_weights,
    with_precision,
)
from dpo.training.evaluate import evaluate_all, sample
from dpo.training.log import MetricsLog, Report, messages_before, read_lines, spike_message
from dpo.training.memory_check import check_memory
from dpo.training.metrics import LossSpikes
from dpo.training.plan import peak_of
from dpo.training.run_folder import (
    METRICS,
    check_finished,
    checkpoints_folder,
    claim_run,
    seal_run,
)
from dpo.training.run_page import how_it_finished, how_it_stopped, write_page
from dpo.training.setup import TrainContext, open_run
from dpo.training.signals import StopRequest
from dpo.training.step import pairs_run, train_step
from dpo.training.trackers import check_trackers
from prefdata.store.claim import Claim
from prefdata.store.commit import lock_folder, make_folder

_OTHER = "other settings, data or weights"


class Resumed(NamedTuple):
    """Where a run begins: steps done, and how many of them were skipped."""

    step: int
    skipped: int
    notices: list[str]


class Ended(NamedTuple):
    """The last step of a start, and the signal that stopped it there."""

    step: int
    signal: int | None


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
    config = with_precision(config)
    accelerator = make_accelerator(config)
    claim = claim_run(config)
    make_folder(config.out)
    if not accelerator.is_main_process:
        report, on_message = (lambda _step, _total, _metrics: None), (lambda _line: None)
    with lock_folder(config.out) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            claim.save()
        run = open_run(config, accelerator, on_message)
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
    for line in messages_before(run):
        on_message(line)
    if (summary := _finished_before(run, on_message)) is not None:
        on_message(f"{config.out} contains this run, finished at step {summary.steps:,}")
        return TrainResult(config.out, summary.steps, None, summary)
    start = resume(run)
    for line in start.notices:
        on_message(line)
    if not start.step and (before := _steps_before(config.out)):
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
        ended = _take_steps(run, log, start, on_message)
        if ended.signal is None:
            summary = _summarize(run, log, ended.step, seconds=time.perf_counter() - started)
            return _finish(run, log, claim, summary, on_message)
    except TrainingError as error:
        write_page(run, log, f"Stopped by an error at {error.place}: {error.problem}.")
        raise
    finished = TrainResult(config.out, ended.step, ended.signal, None)
    write_page(run, log, how_it_stopped(ended.step, ended.signal))
    return finished


def _take_steps(
    run: TrainContext, log: MetricsLog, start: Resumed, on_message: Callable[[str], None]
) -> Ended:
    """Take the remaining steps, until the last one, a signal, or the end of patience."""
    config, skipped = run.config, start.skipped
    spikes = LossSpikes(line["loss"] for line in log.lines() if "loss" in line)
    with StopRequest() as stop:
        last = start.step if run.watch.is_over else run.total_steps
        for step in range(start.step + 1, last + 1):
            left_out = _take_step(run, step, log, may_skip=skipped < config.skip_nonfinite)
            if left_out is not None:
                skipped += 1
                on_message(left_out)
            elif (height := spikes.sees(log.last["loss"])) is not None:
                on_message(spike_message(run, step, log.last["loss"], height))
            is_best, is_last = _evaluate_if_due(run, step, log), step == run.total_steps
            number = stop.signal_on_any_rank(run.accelerator)
            is_over = run.watch.is_over
            due = number or is_best or is_over or _is_due(step, config.checkpoint_every)
            if due and not is_last:
                checkpoint(run, step, skipped)
            if is_last or is_over or number:
                return Ended(step, None if is_last or is_over else number)
    return Ended(start.step, None)


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
    return left_out


def _evaluate_if_due(run: TrainContext, step: int, log: MetricsLog) -> bool:
    """Evaluate, sample and log, if it is time; return whether the step is now the best."""
    if not _is_due(step, run.config.eval_every, run.total_steps):
        return False
    evaluation, hardest = evaluate_all(run)
    if evaluation:
        log.write(step, evaluation)
    if hardest:
        log.write_hardest(step, hardest)
    if run.sampler is not None:
        log.write_samples(step, sample(run))
    return run.watch.sees(step, evaluation)


def resume(run: TrainContext) -> Resumed:
    """Load the newest whole checkpoint, if there is one."""
    folder, keeps_best = checkpoints_folder(run.config.out), run.config.keep_best is not None
    found = find_checkpoint(folder, keeps_best=keeps_best)
    if found is None:
        return Resumed(0, 0, [])
    path, state = found
    if state.fingerprint != run.fingerprint:
        named = differences(state.decides, run.decides.flat()) if state.decides else None
        problem = f"is from a run with {_OTHER}" + (f": {named}" if named else "")
        raise UsageError("T140", str(path), problem, "name another `out`")
    model = run.accelerator.unwrap_model(run.policy).model
    load_checkpoint(path, state, model=model, optimizer=run.optimizer)
    run.objective.seen.update(state.seen)
    run.scale.now = state.scale or run.scale.now
    notices = [f"resumes after step {state.step:,}"]
    if not run.watch.resume(state.best, state.patience):
        notices.append(
            f"evaluations up to step {state.step:,} do not count: keep_best or early_stopping had"
            " other settings"
        )
    return Resumed(state.step, state.skipped, notices)


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
            best=run.watch.best,
            patience=run.watch.patience,
            config=run.config.model_dump(mode="json", exclude_unset=True),
            fingerprint=run.fingerprint,
            decides=run.decides.flat(),
        )
        save_checkpoint(folder, state, model=model, optimizer=run.optimizer)
    if is_main:
        best = run.watch.best and run.watch.best.step
        keep_newest(folder, run.config.keep_checkpoints, run.fingerprint, best=best)
    run.accelerator.wait_for_everyone()


def _summarize(run: TrainContext, log: MetricsLog, step: int, *, seconds: float) -> RunSummary:
    """Return the summary of a run that ends at a step."""
    if not log.first:
        remedy = "look at the data and the reference's log-probs"
        problem = "no step had a finite loss and gradient"
        raise TrainingError("T301", str(run.config.out), problem, remedy)
    best = run.watch.best
    return RunSummary(
        fingerprint=run.fingerprint,
        config=run.config,
        build_hash=run.build.manifest.hash,
        reference_hash=run.reference_hash,
        processes=run.accelerator.num_processes,
        steps=step,
        pairs=run.order.num_pairs(step),
        first_loss=log.first["loss"],
        final=log.last,
        best=None if best is None else {"step": best.step, **best.found},
        stopped_early=run.watch.why if step < run.total_steps else None,
        seconds=round(seconds, 1),
        planned_bytes=run.plan.memory.total,
        peak_bytes=peak_of(run.accelerator.device),
    )


def _finish(
    run: TrainContext,
    log: MetricsLog,
    claim: Claim,
    summary: RunSummary,
    on_message: Callable[[str], None],
) -> TrainResult:
    """Save the model and, last of all, `run.json`."""
    out = run.config.out
    finished = TrainResult(out, summary.steps, None, summary)
    _load_best(run, summary, on_message)
    # without accelerate's own autocast, so that a few rows run in float32
    policy = run.accelerator.unwrap_model(run.policy, keep_fp32_wrapper=False)
    precision = run.config.precision if is_sharded(run.policy) else "no"
    scored = probe(policy, run.train.pairs, precision=precision)
    reshard_root(run.policy)
    run.optimizer.state.clear()  # what is saved is read back, which takes memory too
    return_freed_memory()
    weights = whole_weights(policy.model)
    if run.accelerator.is_main_process:
        card = write_card(summary, name=out.name)
        saved = save_run(Source(policy, scored, weights, card), run.config, claim)
        for line in saved.notices:
            on_message(line)
        write_page(run, log, how_it_finished(summary))
        summary.model_copy(update={"files": seal_run(out, saved.files)}).write(out)
    run.accelerator.wait_for_everyone()
    return finished


def _load_best(run: TrainContext, summary: RunSummary, on_message: Callable[[str], None]) -> None:
    """Load the weights of the best evaluation, if they are not those of the last step.

    Raises TrainingError (T312) if their checkpoint is lost.
    """
    if summary.stopped_early is not None:
        on_message(f"ends after step {summary.steps:,}: {summary.stopped_early}")
    best = run.watch.best
    if best is None:
        return
    on_message(f"the best {best.metric} is {best.value:.6g}, of step {best.step:,}: it is saved")
    if best.step == summary.steps:
        return
    path = step_folder(checkpoints_folder(run.config.out), best.step)
    state = open_checkpoint(path)
    if state is None:
        problem = "is missing or damaged, and has the weights of the best evaluation"
        raise TrainingError("T312", str(path), problem, "restore it, or name another `out`")
    reshard_root(run.policy)
    load_weights(path, state, model=run.accelerator.unwrap_model(run.policy).model)


def _finished_before(run: TrainContext, on_message: Callable[[str], None]) -> RunSummary | None:
    """Return the summary of this run if it is finished and its model is unchanged."""
    out = run.config.out
    summary = read_summary(out)
    if summary is None:
        return None
    is_same = summary.fingerprint == run.fingerprint
    stays = summary.stopped_early and summary.config.early_stopping == run.config.early_stopping
    if is_same and (summary.steps == run.total_steps or stays):
        _require_same_form(summary.config, run.config)
        checked = check_finished(out, summary)
        for line in checked.lines:
            on_message(line)
        return None if checked.again else summary
    if is_same and summary.steps < run.total_steps:
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


def _require_same_form(there: TrainConfig, here: TrainConfig) -> None:
    """Refuse settings of what is saved that a finished run no longer follows (T141)."""
    for name in ("save", "keep_best"):
        if getattr(there, name) != getattr(here, name):
            problem = f"is the summary of this run, finished with another `{name}`"
            remedy = "export a checkpoint with dpo-export, or name another `out`"
            raise UsageError("T141", str(here.out / NAME), problem, remedy)


def _is_due(step: int, every: int | None, last: int | None = None) -> bool:
    return step == last or (every is not None and step % every == 0)
