"""A page that compares runs: final metrics, the settings that differ, curves over each other."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpo.artifacts.report.curves import Figure, Line, Series, line_plot, smooth, values_of
from dpo.artifacts.summary import RunSummary
from dpo.config import TrainConfig
from prefdata.report.figures import size
from prefdata.report.html.page import render
from prefdata.stages.plan import TOOL_VERSION

MOST_RUNS = 8
"""Runs that colors and dashes tell apart."""
_ABSENT = "–"


class RunRecord(NamedTuple):
    """A run to compare, finished or not."""

    name: str
    config: TrainConfig
    lines: Sequence[Line]
    """Lines of `metrics.jsonl`."""
    summary: RunSummary | None
    """None if it is not finished."""

    def values(self, name: str) -> list[tuple[float, float]]:
        """Return step and value of a metric, where it is finite."""
        return values_of(self.lines, name)

    def last(self, name: str) -> float | None:
        """Return the last value of a metric."""
        found = self.values(name)
        return found[-1][1] if found else None


class _Plot(NamedTuple):
    title: str
    metric: str
    smoothed: bool = True
    from_zero: bool = False


_PLOTS = (
    _Plot("Held-out loss", "eval/loss", smoothed=False),
    _Plot("Held-out accuracy", "eval/rewards/accuracies", smoothed=False),
    _Plot("Held-out reward margin", "eval/rewards/margins", smoothed=False),
    _Plot("Loss", "loss"),
    _Plot("Reward accuracy", "rewards/accuracies"),
    _Plot("Reward margin", "rewards/margins"),
    _Plot("Log-ratio of chosen, nats", "logratios/chosen"),
    _Plot("Log-ratio of rejected, nats", "logratios/rejected"),
    _Plot("Gradient norm, before clipping", "grad_norm", from_zero=True),
    _Plot("Learning rate", "learning_rate", smoothed=False, from_zero=True),
    _Plot("Tokens per second", "tokens_per_second", from_zero=True),
)


def render_comparison(runs: Sequence[RunRecord]) -> str:
    """Return the page; the same runs give the same bytes."""
    values = {
        "names": [run.name for run in runs],
        "numbers": [list(final_numbers(run)) for run in runs],
        "notes": list(_notes(runs)),
        "settings": differing_settings([run.config for run in runs]),
        "figures": list(_figures(runs)),
    }
    folder = Path(__file__).parent
    return render("compare.html.jinja", values, tool_version=TOOL_VERSION, folder=folder)


def final_numbers(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield name and value of what a run ended with; all runs have the same names."""
    steps = run.values("loss")
    yield "state", _state(run)
    yield "steps", f"{int(steps[-1][0]):,}" if steps else "0"
    yield "held-out loss", _form(run.last("eval/loss"), "{:.4f}")
    best = min(run.values("eval/loss"), key=lambda point: point[1], default=None)
    yield "lowest", _ABSENT if best is None else f"{best[1]:.4f}, step {int(best[0]):,}"
    yield "accuracy", _form(run.last("eval/rewards/accuracies"), "{:.1%}")
    yield "margin", _form(run.last("eval/rewards/margins"), "{:.3f}")
    speeds = [value for _, value in run.values("tokens_per_second")]
    yield "tokens/s", _form(sum(speeds) / len(speeds) if speeds else None, "{:,.0f}")
    peak = None if run.summary is None else run.summary.peak_bytes
    yield "memory", _ABSENT if peak is None else size(peak)


def _state(run: RunRecord) -> str:
    if run.summary is None:
        return "not finished"
    return "finished early" if run.summary.stopped_early else "finished"


def _form(value: float | None, form: str) -> str:
    return _ABSENT if value is None else form.format(value)


def _notes(runs: Sequence[RunRecord]) -> Iterator[str]:
    """Yield which numbers of these runs do not compare, and why."""
    builds = {run.summary.build_hash for run in runs if run.summary is not None}
    if len(builds) > 1 or len({run.config.data for run in runs}) > 1:
        yield "They have different data, so their held-out pairs may differ."
    evaluated = {(run.config.eval_split, run.config.eval_rows) for run in runs}
    if len(evaluated) > 1:
        yield "They evaluate other splits, or other numbers of pairs of them."
    losses = [[_loss(one) for one in run.config.loss] for run in runs]
    if any(loss != losses[0] for loss in losses):
        yield (
            "Their losses have other names or settings: loss, rewards and margins are on"
            " different scales; accuracy compares."
        )


def differing_settings(configs: Sequence[TrainConfig]) -> list[tuple[str, list[str]]]:
    """Return the settings in which runs differ, by dotted name, with the value of each run."""
    flats = [_flat(_settings(config)) for config in configs]
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    found = []
    for name in names:
        if any(other.startswith(f"{name}.") for other in names):
            continue  # its keys say more than that it is null in one of them
        values = [_shown(flat[name]) if name in flat else _ABSENT for flat in flats]
        if len(set(values)) > 1:
            found.append((name, values))
    return found


def _settings(config: TrainConfig) -> dict[str, Any]:
    losses = [_loss(one) for one in config.loss]
    loss = losses[0] if len(losses) == 1 else {str(at): one for at, one in enumerate(losses)}
    return config.model_dump(mode="json", exclude={"out"}) | {"loss": loss}


def _loss(loss: Any) -> dict[str, Any]:
    """Return a loss with the defaults of its settings."""
    return {**loss.model_dump(mode="json", exclude_none=True, exclude={"own"}), **loss.settings}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        is_group = isinstance(inner, dict) and inner
        found |= _flat(inner, f"{name}.") if is_group else {name: inner}
    return found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _figures(runs: Sequence[RunRecord]) -> Iterator[Figure]:
    for plot in _PLOTS:
        series = []
        for at, run in enumerate(runs):
            points = run.values(plot.metric)
            if not points:
                continue
            kind = f"run-{at}"
            series.append(Series(run.name, kind, smooth(points) if plot.smoothed else points))
            if plot.metric.startswith("eval/"):
                series.append(Series(run.name, kind, points, dots=True))
        if series:
            legend = [(one.kind, one.label) for one in series if not one.dots]
            svg = line_plot(plot.title, series, from_zero=plot.from_zero)
            yield Figure(plot.title, svg, legend)
