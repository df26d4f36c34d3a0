"""Terminal output: progress bars, the live line of a training run, and its summary."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from prefdata.progress import Advance
from prefdata.report.console import PlainConsole, make_bars
from prefdata.report.safe import plain

if TYPE_CHECKING:
    from dpo.artifacts.summary import RunSummary
    from dpo.scoring.rewards import ScoreReport  # torch is slow to import: not for --help


PULSE = 60.0
"""Seconds between two lines if the console is not a terminal, such as a log file."""


class Bars:
    """Progress bars and notes on stderr, of prefdata's protocol; an error removes the bars."""

    def __init__(
        self,
        *columns: ProgressColumn,
        bar_width: int = 40,
        quiet: bool = False,
        pulse: float = PULSE,
    ) -> None:
        self._console = PlainConsole(stderr=True, quiet=quiet)
        self._bars = make_bars(
            self._console,
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            *columns,
        )
        self._pulse, self._last = pulse, time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        never_begun = any(task.total is None for task in self._bars.tasks)
        self._bars.live.transient = error is not None or never_begun
        self._bars.stop()

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Open a bar of `total` steps; the context gives the function that advances it."""
        task, done = self._bars.add_task(plain(title), total=total), 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            self._bars.advance(task, steps)
            self._log(f"{title} {done:,} of {total:,}")

        yield advance

    def note(self, text: str) -> None:
        """Print a permanent line above the bars."""
        self._console.print(plain(text), highlight=False, markup=False, soft_wrap=True)

    def _log(self, line: str) -> None:
        """Print a line if the console is not a terminal and the last one is old enough."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last >= self._pulse:
            self.note(line)
            self._last = now


class TrainingBar(Bars):
    """The live line of a run: progress, loss, margin, accuracy and speed."""

    def __init__(self, out: Path, *, is_shown: bool = True, pulse: float = PULSE) -> None:
        column = TextColumn("{task.fields[numbers]}")
        super().__init__(column, bar_width=16, quiet=not is_shown, pulse=pulse)
        self._task = self._bars.add_task(plain(out.name), total=None, numbers="loading")

    def report(self, step: int, total: int, metrics: dict[str, float]) -> None:
        """Show a step's metrics; an evaluation gets a permanent line."""
        if "loss" in metrics:
            shown = numbers(metrics)
            self._bars.update(self._task, completed=step, total=total, numbers=shown)
            self._log(f"step {step:,} of {total:,}: {shown}")
        elif "skipped" not in metrics:
            prefixes = [name[:-4] for name in metrics if re.fullmatch(r"eval/(.+/)?loss", name)]
            for prefix in prefixes:
                self.note(f"step {step:,}: {numbers(metrics, prefix=prefix)}")


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


def numbers(metrics: dict[str, float], *, prefix: str = "") -> str:
    """Return loss, margin, accuracy and speed as one short line.

    >>> numbers({"loss": 0.69, "rewards/margins": 0.1, "rewards/accuracies": 0.75})
    'loss 0.6900  margin 0.100  accuracy 75.0%'
    """
    shown = [f"{prefix.rstrip('/')} loss {metrics[f'{prefix}loss']:.4f}".strip()]
    if f"{prefix}rewards/margins" in metrics:
        shown.append(f"margin {metrics[f'{prefix}rewards/margins']:.3f}")
        shown.append(f"accuracy {metrics[f'{prefix}rewards/accuracies']:.1%}")
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
    what = "model" if config.save.merged else "adapter"
    return f"{out}: {', '.join(parts)} in {summary.seconds:,.0f} s; the {what} is in {out}/{what}"
