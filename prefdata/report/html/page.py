"""A report as one HTML page, and the frame that all pages share: style, its hash, escaping."""

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prefdata.report.figures import count, percent, size
from prefdata.report.html.funnel import NARROW, WIDE, draw_funnel
from prefdata.report.html.markup import shown
from prefdata.report.html.plots import draw_interval, draw_lengths, draw_share, reach_of
from prefdata.report.lengths import PARTS
from prefdata.report.model import Report, SplitProof
from prefdata.store.manifest import LineClasses

_FOLDER = Path(__file__).parent
_EXAMPLES = 5  # of each code; a report made for SARIF holds many more


def render_report(report: Report) -> str:
    """The page; the same report gives the same bytes."""
    splits = (report.splits or {}).values()
    values = {
        "report": report,
        "classes": list(LineClasses.model_fields),
        "parts": PARTS,
        "lede": lede(report),
        "tokens": sum(s.prompt_tokens + s.chosen_tokens + s.rejected_tokens for s in splits),
        "funnel_wide": draw_funnel(report, WIDE),
        "funnel_narrow": draw_funnel(report, NARROW),
        "plots": _length_plots(report),
        "reach": reach_of(report.biases),
        "proof": report.split_proof and proof_sentence(report.split_proof),
        "config": report.config and yaml.safe_dump(report.config, allow_unicode=True),
        "most_examples": _EXAMPLES,
    }
    return render("report.html.jinja", values, tool_version=report.tool_version)


def render(template: str, values: Mapping[str, Any], *, tool_version: str) -> str:
    """A page from one of the templates of this folder."""
    style = _style()
    digest = hashlib.sha256(style.encode()).digest()
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            tool_version=tool_version,
            style=Markup(style),
            style_hash=base64.b64encode(digest).decode(),
        )
    )


@lru_cache(maxsize=1)
def _style() -> str:
    return (_FOLDER / "style.css").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """Templates in which every value is made plain and escaped, whatever it is."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: shown(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        percent=percent, count=count, size=size, draw_share=draw_share, draw_interval=draw_interval
    )
    return environment


def lede(report: Report) -> str:
    """What the build or the validation did, in one sentence."""
    files = count(len(report.inputs), "file")
    pairs = report.funnel[-1].rows_out if report.funnel else report.lines.kept
    lost = count(len({finding.code for finding in report.findings}), "code")
    says = f"{files} gave {count(pairs, 'pair')}" if pairs else f"{files} gave no pair"
    found = f"{lost} tell why the others did not" if report.findings else "nothing was found"
    return f"{says}; {found}." if report.lines.rejected else f"{says}; no row is refused."


def proof_sentence(proof: SplitProof) -> str:
    """The statement of a split with what it rests on."""
    rests = (
        f"{count(proof.pairs_compared, 'pair')} of prompts were compared; with a Jaccard "
        f"similarity of {proof.threshold:g} or more in {proof.unit} counted as a near copy, they "
        f"form {count(proof.clusters, 'cluster')}, the largest of {proof.largest:,}."
    )
    if proof.leaked:
        return f"{count(proof.leaked, 'near copy')} of a prompt lie in another split. {rests}"
    return f"No prompt has a near copy in another split. {rests}"


def _length_plots(report: Report) -> list[tuple[Markup, list[str]]]:
    """The prompt alone, and the two sides over one another."""
    shapes = report.histograms or {}
    panels = [[name for name in names if name in shapes] for names in (PARTS[:1], PARTS[1:])]
    return [
        (draw_lengths({name: shapes[name] for name in names}, report.length_unit), names)
        for names in panels
        if any(sum(shapes[name].counts) for name in names)
    ]
