"""The page of a run, `report.html`, from its log: at its end, and after a signal or an error."""

import signal
from typing import Any

from dpo.artifacts.report.page import NAME, HardPair, RunFacts, RunLog, render_run
from dpo.artifacts.summary import RunSummary
from dpo.training.log import MetricsLog
from dpo.training.plan import peak_of
from dpo.training.setup import TrainContext
from prefdata.errors import PrefdataError
from prefdata.report.html.browser import texts_of
from prefdata.report.rows import read_pairs
from prefdata.store.commit import write_bytes
from prefdata.store.reader import Build

_MOST_CHARACTERS = 4_000  # of each text of a pair on the page


def write_page(run: TrainContext, log: MetricsLog, state: str) -> None:
    """Write `report.html` from all of the run's log; `state` says how it ended."""
    if not run.accelerator.is_main_process:
        return
    best = run.watch.best and (run.watch.best.step, run.watch.best.value)
    shown = RunFacts(
        config=run.config,
        total_steps=run.total_steps,
        state=state,
        facts={
            "build": run.build.manifest.hash,
            "reference": run.reference_hash or "none",
            "run": run.fingerprint,
        },
        best=best,
        plan=tuple(line.removeprefix("plan: ") for line in run.plan.lines),
        memory=(peak_of(run.accelerator.device), run.plan.memory.total),
    )
    hardest = log.hardest()[-1:]
    pairs, problem = (
        _read(run.build, run.config.eval_split or "", hardest[0]) if hardest else ([], None)
    )
    page = render_run(shown, RunLog(log.lines(), log.samples(), pairs, problem))
    write_bytes(run.config.out / NAME, page.encode())


def _read(build: Build, split: str, line: dict[str, Any]) -> tuple[list[HardPair], str | None]:
    """Return the pairs of a line of `hardest.jsonl` with their texts, or why there are none.

    A run must not fail at its end because a text cannot be read.
    """
    names = list(build.splits)
    start = sum(build.splits[name].rows for name in names[: names.index(split)])
    rows = [start + one["row"] for one in line["hardest"]]
    try:
        found = {pair.row: pair for pair in read_pairs(build, sorted(rows))}
    except (PrefdataError, OSError) as error:
        return [], str(error)
    pairs = [
        HardPair(line["step"], one, found[row], texts_of(found[row], most=_MOST_CHARACTERS))
        for row, one in zip(rows, line["hardest"], strict=True)
    ]
    return pairs, None


def how_it_finished(summary: RunSummary) -> str:
    """Return a sentence about a finished run."""
    early = f"Ended early, as {summary.stopped_early}; " if summary.stopped_early else ""
    return f"{early}{summary.pairs:,} pairs; the last start took {summary.seconds:,.0f} s."


def how_it_stopped(step: int, number: int) -> str:
    """Return a sentence about a run that a signal stopped after a step."""
    name = signal.Signals(number).name
    return f"Stopped by {name} after step {step:,}; run the same command to continue."
