"""The result as one HTML page: no script, nothing loaded from elsewhere, all text escaped."""

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.quickstart.plot import Series, histogram, line_plot
from pipelines.quickstart.result import Result

SMOOTH = 5  # steps in a moving mean; a step has few pairs


class Figure(NamedTuple):
    """One plot with its title and the legend that its colors need."""

    title: str
    svg: Markup
    legend: list[tuple[str, str]]
    """(CSS class, label)"""


def render_page(
    result: Result, lines: list[dict[str, Any]], before: list[float], after: list[float]
) -> str:
    """`lines` are those of metrics.jsonl; `before` and `after` the scores of all samples."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    figures = [*training_figures(lines), sentiment_figure(before, after)]
    return environment.get_template("report.html.jinja").render(result=result, figures=figures)


def training_figures(lines: list[dict[str, Any]]) -> list[Figure]:
    def curve(name: str, label: str, kind: str) -> list[Series]:
        return [
            Series(
                label, kind, smooth([(line["step"], line[name]) for line in lines if name in line])
            ),
            Series(
                f"{label}, held out",
                kind,
                [(line["step"], line[f"eval/{name}"]) for line in lines if f"eval/{name}" in line],
                dots=True,
            ),
        ]

    plots = {
        "Loss": curve("loss", "loss", "after"),
        "Rewards": [
            *curve("rewards/chosen", "chosen", "after"),
            *curve("rewards/rejected", "rejected", "before"),
        ],
        "Log-probs of completions, nats": [
            *curve("logps/chosen", "chosen", "after"),
            *curve("logps/rejected", "rejected", "before"),
        ],
        "Reward margin": curve("rewards/margins", "margin", "after"),
        "Reward accuracy": curve("rewards/accuracies", "accuracy", "after"),
    }
    return [_figure(title, [s for s in series if s.points]) for title, series in plots.items()]


def _figure(title: str, series: list[Series]) -> Figure:
    legend = [(f"{s.kind} {'dot' if s.dots else 'line'}", s.label) for s in series]
    return Figure(title, line_plot(title, series), legend)


def sentiment_figure(before: list[float], after: list[float]) -> Figure:
    groups = [("before", "before", before), ("after", "after", after)]
    svg = histogram("Sentiment of samples", groups, bins=10)
    return Figure("Sentiment of samples", svg, [("before bar", "before"), ("after bar", "after")])


def smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Moving mean over the last SMOOTH steps.

    >>> smooth([(1, 2.0), (2, 4.0)])
    [(1, 2.0), (2, 3.0)]
    """
    values = [value for _, value in points]
    return [
        (step, statistics.mean(values[max(0, at + 1 - SMOOTH) : at + 1]))
        for at, (step, _) in enumerate(points)
    ]
