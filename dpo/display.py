"""Terminal output: progress bars, the live line of a training run, and its summary."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from prefdata.report.console import PlainConsole, make_bars
from prefdata.report.safe import plain

if TYPE_CHECKING:
    from dpo.artifacts.summary import RunSummary
    from dpo.scoring.rewards import ScoreReport  # torch is slow to import: not for --help


PULSE = 60.0
"""Seconds between two lines if the console is not a terminal."""


class _Pulse:
    """Progress lines, one per minute, if the console is not a terminal, as in a log file."""

    def __init__(self, console: Console) -> None:
        self._console, self._last = console, time.monotonic()

    def tell(self, line: str) -> None:
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last >= PULSE:
            self._console.print(plain(line), highlight=False, markup=False)
            self._last = now


@contextmanager
def counted(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, moved by calls with the done and the total count; an error removes it."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = PlainConsole(stderr=True)
    progress, pulse = make_bars(console, *columns, transient=True), _Pulse(console)
    task = progress.add_task("", total=None)

    def move(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)
        pulse.tell(f"{title} {done:,} of {total:,}")

    with progress:
        yield move
        progress.live.transient = False


@contextmanager
def bars() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Show bars, one per title; the yielded function adds one and returns the one that moves it."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    console = PlainConsole(stderr=True)
    pulse = _Pulse(console)
    progress = make_bars(console, *columns, TimeRemainingColumn(), transient=True)

    def start(title: str) -> Callable[[int, int], None]:
        task = progress.add_task(title, total=None)

        def move(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)
            pulse.tell(f"{title} {done:,} of {total:,}")

        return move

    with progress:
        yield start
        progress.live.transient = False


def print_scores(report: "ScoreReport") -> None:
    """Print accuracies with their intervals, and the calibration error."""
    table = Table("part", "pairs", "accuracy", "95 % interval", title="Implicit rewards")
    for column in table.columns[1:]:
        column.justify = "right"
    parts = [report.overall, *(part for some in report.by.values() for part in some)]
    for part in parts:
        interval = f"{part.low:.1%} to {part.high:.1%}"
        table.add_row(Text(plain(part.name)), f"{part.pairs:,}", f"{part.accuracy:.1%}", interval)
    console = PlainConsole()
    console.print(table)
    console.print(f"calibration error {report.calibration_error:.3f}", highlight=False)


class TrainingView:
    """Live line of a run: progress, loss, margin, accuracy and speed."""

    def __init__(self, out: Path, *, is_shown: bool = True) -> None:
        self._console = PlainConsole(stderr=True, quiet=not is_shown)
        self._progress = make_bars(
            self._console,
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        self._task = self._progress.add_task(plain(out.name), total=None, numbers="loading")
        self._pulse = _Pulse(self._console)

    def __enter__(self) -> "TrainingView":
        self._progress.start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        took_none = self._progress.tasks[0].total is None  # as when it had finished before
        self._progress.live.transient = error is not None or took_none
        self._progress.stop()

    def report(self, step: int, total: int, metrics: dict[str, float]) -> None:
        """Show a step's metrics; an evaluation gets a permanent line."""
        if "loss" in metrics:
            shown = numbers(metrics)
            self._progress.update(self._task, completed=step, total=total, numbers=shown)
            self._pulse.tell(f"step {step:,} of {total:,}: {shown}")
        elif "skipped" not in metrics:
            self.on_message(f"step {step:,}: {numbers(metrics, prefix='eval/')}")

    def on_message(self, line: str) -> None:
        """Print a permanent line above the live one."""
        self._console.print(plain(line), highlight=False, markup=False, soft_wrap=True)


def numbers(metrics: dict[str, float], *, prefix: str = "") -> str:
    """Return loss, margin, accuracy and speed as one short line.

    >>> numbers({"loss": 0.69, "rewards/margins": 0.1, "rewards/accuracies": 0.75})
    'loss 0.6900  margin 0.100  accuracy 75.0%'
    """
    shown = [
        f"{prefix.rstrip('/')} loss {metrics[f'{prefix}loss']:.4f}".strip(),
        f"margin {metrics[f'{prefix}rewards/margins']:.3f}",
        f"accuracy {metrics[f'{prefix}rewards/accuracies']:.1%}",
    ]
    if "tokens_per_second" in metrics:
        shown.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
    return "  ".join(shown)


def summary_line(out: Path, summary: "RunSummary") -> str:
    """Return the results of a finished run and the place of its model, as one line."""
    final, config = summary.final, summary.config
    parts = [f"{summary.steps:,} steps of {config.global_batch_size:,} {config.batch_unit}"]
    if "loss" in final:
        parts.append(f"loss {summary.first_loss:.4f} to {final['loss']:.4f}")
    if "eval/rewards/accuracies" in final:
        parts.append(f"held-out accuracy {final['eval/rewards/accuracies']:.1%}")
    return f"{out}: {', '.join(parts)} in {summary.seconds:,.0f} s; the model is in {out}/model"
