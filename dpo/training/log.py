"""Log of metrics: a JSON Lines file, a callback, and accelerate's trackers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dpo.training.metrics import SPIKE_WINDOW, rounded
from dpo.training.setup import TrainContext
from dpo.training.step import name_pairs
from dpo.training.trackers import start_trackers
from prefdata.store.commit import write_bytes
from prefdata.store.ownership import free_name

Report = Callable[[int, int, dict[str, float]], None]
"""Callback that gets a step, the number of all steps, and the step's metrics."""


_LISTS = ("pair_ids", "samples", "hardest")


class MetricsLog:
    """Log of one line per step and per evaluation in `metrics.jsonl`, and in the trackers."""

    def __init__(self, run: TrainContext, first_step: int, report: Report) -> None:
        self._run, self._report = run, report
        self._is_main = run.accelerator.is_main_process
        self.path = run.config.out / "metrics.jsonl"
        self.pairs_path = self.path.with_name("pairs.jsonl")
        self.samples_path = self.path.with_name("samples.jsonl")
        self.hardest_path = self.path.with_name("hardest.jsonl")
        others = (self.pairs_path, self.samples_path, self.hardest_path)
        self.notices: list[str] = []
        """Messages about the files that an earlier start left."""
        if self._is_main:
            self.notices += [line for path in (self.path, *others) for line in _keep_damaged(path)]
        kept = _kept(self.path, first_step)
        self.first: dict[str, Any] = next((line for line in kept if "loss" in line), {})
        self.last: dict[str, float] = {}
        if self._is_main:
            write_bytes(self.path, _as_lines(kept))
            for path in others:
                if path.exists():
                    write_bytes(path, _as_lines(_kept(path, first_step)))
            start_trackers(run.accelerator, run.config)

    def write_pairs(self, step: int, pair_ids: list[str]) -> None:
        """Append the ids of a step's pairs, from all ranks, in the order of the step."""
        self._append(self.pairs_path, {"step": step, "pair_ids": pair_ids})

    def write_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        """Append the policy's completions at an evaluation."""
        self._append(self.samples_path, {"step": step, "samples": samples})

    def write_hardest(self, step: int, hardest: list[dict[str, Any]]) -> None:
        """Append the pairs of an evaluation with the largest loss."""
        self._append(self.hardest_path, {"step": step, "hardest": hardest})

    def _append(self, path: Path, line: dict[str, Any]) -> None:
        if self._is_main:
            with path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")

    def write(self, step: int, metrics: dict[str, float]) -> None:
        line = {"step": step, **rounded(metrics)}
        is_training = "loss" in metrics
        self.first = self.first or (line if is_training else {})
        self.last |= rounded(metrics)
        self._report(step, self._run.total_steps, metrics)
        if not self._is_main or (
            is_training and step % self._run.config.log_every != 0 and step > 1
        ):
            return
        self._append(self.path, line)
        self._run.accelerator.log(metrics, step=step)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the file; a line cut by a crash is skipped."""
        return read_lines(self.path)

    def samples(self) -> list[dict[str, Any]]:
        """Return the completions of all evaluations."""
        return read_lines(self.samples_path)

    def hardest(self) -> list[dict[str, Any]]:
        """Return the pairs of largest loss of all evaluations."""
        return read_lines(self.hardest_path)


def _kept(path: Path, first_step: int) -> list[dict[str, Any]]:
    """Return the lines of steps before `first_step`."""
    return [line for line in read_lines(path) if line["step"] < first_step]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's file of metrics or pairs; none if it does not exist."""
    texts = path.read_bytes().split(b"\n") if path.is_file() else ()
    return [line for text in texts if (line := _line_of(text)) is not None]


def _line_of(text: bytes) -> dict[str, Any] | None:
    """Parse a line: a step, and numbers, ids of pairs or samples. Return None for others."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int:
        return None
    lists = [line.get(name, []) for name in _LISTS]
    values = [value for name, value in line.items() if name not in _LISTS]
    is_whole = all(isinstance(value, (int, float)) for value in values) and len(line) > 1
    return line if is_whole and all(isinstance(some, list) for some in lists) else None


def _keep_damaged(path: Path) -> list[str]:
    """Copy a file with lines that no run wrote, before it is written without them.

    A last line without a newline was cut by a crash, and does not count.
    """
    data = path.read_bytes() if path.is_file() else b""
    foreign = [text for text in data.split(b"\n")[:-1] if _line_of(text) is None]
    if not foreign:
        return []
    copy = free_name(path)
    write_bytes(copy, data)
    return [f"{path}: {len(foreign):,} lines are not from a run; the original is now {copy.name}"]


def _as_lines(values: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def messages_before(run: TrainContext) -> Iterator[str]:
    """Yield messages about how the run works, before its first step."""
    config = run.config
    if run.unshared_because is not None:
        yield f"prompts are not shared by their completions: {run.unshared_because}"
    yield from run.notices
    if config.precision == "fp16" and run.accelerator.device.type == "cpu":
        yield "fp16 on a CPU may take hundreds of times as long as bf16"
    if config.eval_split not in (None, "test"):
        yield f"evaluates on the split {config.eval_split}"


def spike_message(run: TrainContext, step: int, loss: float, height: float) -> str:
    above = f"{height:.1f} deviations above the mean of the last {SPIKE_WINDOW}"
    return f"step {step:,}: its loss {loss:.4f} is {above} (pairs {name_pairs(run, step)})"
