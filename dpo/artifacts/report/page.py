"""`report.html`: one page about a run, at its end and after any stop. No scripts or remote data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpo.artifacts.report.curves import Line, run_figures
from dpo.config import TrainConfig
from prefdata.report.html.page import render
from prefdata.report.safe import yaml_text
from prefdata.stages.plan import TOOL_VERSION

NAME = "report.html"


class RunFacts(NamedTuple):
    """Contents of a run's page in addition to its curves."""

    config: TrainConfig
    total_steps: int
    state: str
    """How it ended, as a sentence."""
    facts: dict[str, str]
    """Hashes and fingerprints, by name."""
    best: tuple[int, float] | None = None
    """With `keep_best`: the step of the best evaluation so far, and the value of its metric."""


def render_run(run: RunFacts, lines: Sequence[Line], samples: Sequence[dict[str, Any]] = ()) -> str:
    """Return the page from the lines of `metrics.jsonl` and `samples.jsonl`.

    The same run gives the same bytes.
    """
    trained = [line for line in lines if "loss" in line]
    values = {
        "name": run.config.out.name,
        "run": run,
        "figures": run_figures(lines, chosen="chosen", rejected="rejected"),
        "numbers": _numbers(run, trained, [line for line in lines if "eval/loss" in line]),
        "samples": _samples(samples),
        "config": yaml_text(run.config.model_dump(mode="json"), sort_keys=False),
        "skipped": [int(line["step"]) for line in lines if "skipped" in line],
    }
    return render("run.html.jinja", values, tool_version=TOOL_VERSION, folder=Path(__file__).parent)


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
) -> list[tuple[str, str, str]]:
    """Return (label, value, note) of the most important numbers so far."""
    done = int(trained[-1]["step"]) if trained else 0
    unit = "pair" if run.config.batch_unit == "pairs" else "group"
    size = run.config.global_batch_size
    shown: list[tuple[str, str, str]] = [
        ("steps", f"{done:,}", f"of {run.total_steps:,}, {size:,} {unit}s each")
    ]
    if trained:
        shown.append(("loss", f"{trained[0]['loss']:.4f} → {trained[-1]['loss']:.4f}", ""))
    prefix, note = ("eval/", "held out") if held_out else ("", "of the last step")
    last = (held_out or trained)[-1:]
    if last and f"{prefix}rewards/accuracies" in last[0] and f"{prefix}rewards/margins" in last[0]:
        shown.append(("accuracy", f"{last[0][f'{prefix}rewards/accuracies']:.1%}", note))
        shown.append(("margin", f"{last[0][f'{prefix}rewards/margins']:.3f}", note))
    if run.best is not None:
        step, value = run.best
        shown.append((str(run.config.keep_best), f"{value:.4f}", f"best, of step {step:,}"))
    timed = [line for line in trained if "tokens_per_second" in line and "step_seconds" in line]
    if timed:
        seconds = sum(line["step_seconds"] for line in timed)
        tokens = sum(line["tokens_per_second"] * line["step_seconds"] for line in timed)
        shown.append(("speed", f"{tokens / max(seconds, 1e-9):,.0f}", "tokens per second"))
    return shown
