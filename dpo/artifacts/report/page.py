"""`report.html`: one page about a run, at its end and after any stop. No scripts or remote data."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpo.artifacts.report.curves import SMOOTH, Line, run_figures
from dpo.config import TrainConfig
from prefdata.report.figures import size
from prefdata.report.html.browser import Texts
from prefdata.report.html.page import render
from prefdata.report.rows import ShownPair
from prefdata.report.safe import yaml_text
from prefdata.stages.plan import TOOL_VERSION

NAME = "report.html"
_ACCURACY = "rewards/accuracies"


class RunFacts(NamedTuple):
    """Contents of a run's page in addition to its log."""

    config: TrainConfig
    total_steps: int
    state: str
    """How it ended, as a sentence."""
    facts: dict[str, str]
    """Hashes and fingerprints, by name."""
    best: tuple[int, float] | None = None
    """With `keep_best`: the step of the best evaluation so far, and the value of its metric."""
    plan: Sequence[str] = ()
    """Lines that the run printed before its weights were loaded."""
    memory: tuple[int, int] | None = None
    """Most memory of this process so far, and what was planned, in bytes."""


class HardPair(NamedTuple):
    """A held-out pair of large loss."""

    step: int
    """Step of the evaluation."""
    numbers: dict[str, Any]
    """Loss, margin and pair_id, as in `hardest.jsonl`."""
    pair: ShownPair
    texts: Texts


class RunLog(NamedTuple):
    """The log of a run."""

    lines: Sequence[Line]
    """Lines of `metrics.jsonl`."""
    samples: Sequence[dict[str, Any]] = ()
    """Lines of `samples.jsonl`."""
    hardest: Sequence[HardPair] = ()
    """Pairs of largest loss in the last evaluation."""
    problem: str | None = None
    """Why their texts cannot be read."""


def render_run(run: RunFacts, log: RunLog) -> str:
    """Return the page; the same run gives the same bytes."""
    lines = log.lines
    trained = [line for line in lines if "loss" in line]
    held_out = [line for line in lines if "eval/loss" in line]
    config = run.config.model_dump(mode="json")
    changed = run.config.model_dump(mode="json", exclude_defaults=True)
    values = {
        "name": run.config.out.name,
        "run": run,
        "figures": run_figures(lines, chosen="chosen", rejected="rejected"),
        "numbers": list(_numbers(run, trained, held_out)),
        "sources": list(_by_source(lines)),
        "hardest": log.hardest,
        "problem": log.problem,
        "samples": _samples(log.samples),
        "changed": yaml_text(changed, sort_keys=False),
        "config": yaml_text(config, sort_keys=False),
        "skipped": [int(line["step"]) for line in lines if "skipped" in line],
    }
    return render("run.html.jinja", values, tool_version=TOOL_VERSION, folder=Path(__file__).parent)


def _by_source(lines: Sequence[Line]) -> Iterator[tuple[str, str, float]]:
    """Yield split, source file and accuracy of the last evaluation; "" is `eval_split`."""
    last: Line = next((line for line in reversed(lines) if "eval/loss" in line), {})
    for name, value in last.items():
        before, found, source = name.partition(f"{_ACCURACY}/")
        if found and before.startswith("eval/"):
            yield before.removeprefix("eval/").rstrip("/"), source, value


def _samples(lines: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[int, str]]]]:
    """Return each prompt with its completions at the first and the last evaluation."""
    shown = [*lines[:1], *lines[1:][-1:]]
    found: dict[str, list[tuple[int, str]]] = {}
    for line in shown:
        for one in line["samples"]:
            found.setdefault(str(one["prompt"]), []).append((line["step"], str(one["completion"])))
    return list(found.items())


def _numbers(
    run: RunFacts, trained: Sequence[Line], held_out: Sequence[Line]
) -> Iterator[tuple[str, str, str]]:
    """Yield (label, value, note) of the most important numbers so far."""
    done = int(trained[-1]["step"]) if trained else 0
    unit = "pair" if run.config.batch_unit == "pairs" else "group"
    batch = run.config.global_batch_size
    yield "steps", f"{done:,}", f"of {run.total_steps:,}, {batch:,} {unit}s each"
    yield from _quality(trained, held_out)
    if run.best is not None:
        step, value = run.best
        yield str(run.config.keep_best), f"{value:.4f}", f"best, of step {step:,}"
    timed = [line for line in trained if "tokens_per_second" in line and "step_seconds" in line]
    if timed:
        seconds = sum(line["step_seconds"] for line in timed)
        tokens = sum(line["tokens_per_second"] * line["step_seconds"] for line in timed)
        yield "speed", f"{tokens / max(seconds, 1e-9):,.0f}", "tokens per second"
    if run.memory is not None:
        peak, planned = run.memory
        yield "memory", size(peak), f"at most; planned {size(planned)}"


def _quality(trained: Sequence[Line], held_out: Sequence[Line]) -> Iterator[tuple[str, str, str]]:
    """Yield loss, accuracy and margin: held-out means, or means of the last steps.

    One step has too few pairs to judge a run by.
    """
    some, prefix = (held_out, "eval/") if held_out else (trained, "")
    if not some:
        return
    recent = some[-1:] if held_out else some[-SMOOTH:]
    first = some[:1] if held_out else some[:SMOOTH]
    steps = "the last step" if len(recent) == 1 else f"the last {len(recent)} logged steps"
    note = f"held out, step {int(some[-1]['step']):,}" if held_out else f"mean of {steps}"
    forms = {"loss": "{:.4f}", "rewards/accuracies": "{:.1%}", "rewards/margins": "{:.3f}"}
    for name, form in forms.items():
        before, now = _mean(first, prefix + name), _mean(recent, prefix + name)
        if now is not None and before is not None:
            label = {"rewards/accuracies": "accuracy", "rewards/margins": "margin"}.get(name, name)
            is_curve = name == "loss" and len(some) > 1
            value = form.format(now)
            yield label, f"{form.format(before)} → {value}" if is_curve else value, note


def _mean(lines: Sequence[Line], name: str) -> float | None:
    values = [line[name] for line in lines if name in line]
    return sum(values) / len(values) if values else None
