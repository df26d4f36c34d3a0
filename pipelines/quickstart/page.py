"""HTML page of the result: one file without scripts or external resources, all text escaped."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dpo import Figure, histogram, run_figures
from pipelines.quickstart.result import Result


def render_page(
    result: Result, lines: list[dict[str, Any]], before: list[float], after: list[float]
) -> str:
    """Render the page from the lines of metrics.jsonl and the scores of all samples."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    figures = [
        *run_figures(lines, chosen="after", rejected="before"),
        sentiment_figure(before, after),
    ]
    return environment.get_template("report.html.jinja").render(result=result, figures=figures)


def sentiment_figure(before: list[float], after: list[float]) -> Figure:
    groups = [("before", "before", before), ("after", "after", after)]
    svg = histogram("Sentiment of samples", groups, bins=10, x_label="sentiment")
    return Figure("Sentiment of samples", svg, [("before bar", "before"), ("after bar", "after")])
