"""Report as one HTML page, and the frame of all pages: style, its hash, escaping."""

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prefdata.report.figures import (
    columns_not_read,
    count,
    how_read,
    percent,
    size,
    split_read,
    split_statement,
)
from prefdata.report.html.funnel import NARROW, WIDE, draw_funnel
from prefdata.report.html.markup import shown
from prefdata.report.html.plots import draw_interval, draw_lengths, draw_share, reach_of
from prefdata.report.lengths import PARTS
from prefdata.report.model import Report
from prefdata.report.safe import yaml_text
from prefdata.store.manifest import LineClasses

_FOLDER = Path(__file__).parent
_MOST_EXAMPLES = 5  # per code; a report made for SARIF has many more
_MOST_READ = 30  # rows in the tables of files and of columns that were not read
_MOST_ROWS = 100  # inputs, sources and notes; a build may have thousands of files


def render_report(report: Report) -> str:
    """Return the page; the same report gives the same bytes."""
    values = {
        "report": report,
        "classes": list(LineClasses.model_fields),
        "parts": PARTS,
        "lede": headline(report),
        "tokens": sum(split.tokens for split in (report.splits or {}).values()),
        "funnel_wide": draw_funnel(report, WIDE),
        "funnel_narrow": draw_funnel(report, NARROW),
        "plots": _length_plots(report),
        "reach": reach_of(report.biases),
        "proof": split_statement(report.split_proof),
        "config": report.config and yaml_text(report.config, sort_keys=True),
        "most_examples": _MOST_EXAMPLES,
        "most_rows": _MOST_ROWS,
        "most_read": _MOST_READ,
        "how_read": how_read,
        "split_read": split_read,
        "unread": list(columns_not_read(report)),
    }
    return render("report.html.jinja", values, tool_version=report.tool_version)


def render(
    template: str, values: Mapping[str, Any], *, tool_version: str, folder: Path = _FOLDER
) -> str:
    """Render a template of a directory, in the shared frame and style."""
    page = _environment(folder).get_template(template)
    return page.render(**values, tool_version=tool_version)


@lru_cache(maxsize=2)
def _environment(folder: Path) -> Environment:
    """Return an environment in which every string has control characters and markup escaped."""
    environment = Environment(
        loader=FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: shown(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_FOLDER / "style.css").read_text(encoding="utf-8")
    digest = hashlib.sha256(style.encode()).digest()
    environment.globals.update(
        percent=percent, count=count, size=size, draw_share=draw_share, draw_interval=draw_interval,
        style=Markup(style), style_hash=base64.b64encode(digest).decode(),
    )  # fmt: skip
    return environment


def headline(report: Report) -> str:
    """Return one sentence on the result of the build or the validation."""
    pairs = report.funnel[-1].rows_out if report.funnel else report.lines.kept
    files, lines = count(len(report.inputs), "file"), report.lines
    reasons = count(len({f.code for f in report.findings if f.severity == "E"}), "reason")
    lost = [f"{count(lines.rejected, 'row')} refused for {reasons}"] if lines.rejected else []
    lost += [f"{count(lines.duplicates, 'copy')} dropped"] if lines.duplicates else []
    gave = f"{files} gave {count(pairs, 'pair') if pairs else 'no pair'}"
    return f"{gave}; {' and '.join(lost) or 'nothing was refused'}."


def _length_plots(report: Report) -> list[tuple[Markup, list[str]]]:
    """Draw the histogram of the prompt, and that of the two sides in one plot."""
    shapes = report.histograms or {}
    panels = [[name for name in names if name in shapes] for names in (PARTS[:1], PARTS[1:])]
    return [
        (draw_lengths({name: shapes[name] for name in names}, report.length_unit), names)
        for names in panels
        if any(sum(shapes[name].counts) for name in names)
    ]
