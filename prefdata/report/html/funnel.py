"""Funnel as an SVG: a stream of rows that narrows, each loss a branch with its code.

The stream runs down the page. At every stage its right edge branches off, as the loss:

    2,400  lines   ████████████
                   ███████████╲──── blank            2
    2,398  read    ███████████
                   ██████████╲───── PD202 blank …   24
    2,374  check   ██████████
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

from markupsafe import Markup

from prefdata.report.figures import percent
from prefdata.report.html.markup import join, picture, tag
from prefdata.report.model import Report

MOST_LOSSES = 8  # branches of one stage; if there are more, the smallest are merged into one
# Label of the rows that remain after a stage; the default is the stage's own name.
_LEFT_OVER = {
    "lines": "rows",
    "check": "checked",
    "duplicates": "distinct",
    "contradictions": "consistent",
}
_THINNEST = 1.5  # least width of a branch, so that one row in a million is visible


class Loss(NamedTuple):
    """Rows that are dropped at a stage for one reason."""

    code: str
    name: str
    rows: int


class Step(NamedTuple):
    """Stage of the funnel: rows in, rows out, and losses by reason."""

    title: str
    rows_in: int
    rows_out: int
    losses: list[Loss]


class Frame(NamedTuple):
    """Layout of the picture in SVG units; x grows to the right, y down."""

    width: float
    stream_x: float
    stream_width: float
    label_x: float
    slot: float
    """Height of a branch's label."""
    lines: bool
    """True if a label has its name on a second line."""


WIDE = Frame(760, 150, 190, 400, 26, lines=False)
NARROW = Frame(344, 98, 76, 198, 36, lines=True)


def steps_of(report: Report) -> list[Step]:
    """Return the report's funnel, from all lines (rows, if none is blank) to the kept pairs.

    Stages that neither drop nor add rows are left out, except where none does.
    """
    names = {finding.code: finding.name for finding in report.findings}
    lines, blank = report.lines.lines, report.lines.blank
    all_steps = [
        Step(stage.stage, stage.rows_in, stage.rows_out, _losses(stage.dropped, names))
        for stage in report.funnel
    ]
    changing = [step for step in all_steps if step.losses or step.rows_in != step.rows_out]
    steps = changing or all_steps[-1:]
    if steps and not blank:
        return steps
    losses = [Loss("", "blank lines", blank)] if blank else []
    return [Step("lines", lines, lines - blank, losses), *steps]


def _losses(dropped: Mapping[str, int], names: Mapping[str, str]) -> list[Loss]:
    found = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    losses = [Loss(code, names.get(code, ""), rows) for code, rows in found]
    if len(losses) <= MOST_LOSSES:
        return losses
    first, others = losses[: MOST_LOSSES - 1], losses[MOST_LOSSES - 1 :]
    return [*first, Loss("", f"{len(others)} other codes", sum(loss.rows for loss in others))]


def draw_funnel(report: Report, frame: Frame) -> Markup:
    """Return the SVG; as wide as the frame, as high as its labels need."""
    steps = steps_of(report)
    most = max([1, *(max(step.rows_in, step.rows_out) for step in steps)])
    scale = frame.stream_width / most
    parts: list[Markup] = []
    y, title = 10.0, "lines" if steps[0].title == "lines" else "rows"
    for step in steps:
        parts.append(_node(frame, y, step.rows_in, title, scale))
        parts.append(_branches(frame, y, step, scale, most))
        height = max(18 + sum(_slots(frame, step, scale)), 46)
        parts.append(_stream(frame, (y, y + height), step, scale))
        y, title = y + height, _LEFT_OVER.get(step.title, step.title)
    kept = steps[-1].rows_out
    parts += [_end(frame, y, report, scale), _node(frame, y, kept, "kept", scale)]
    return picture(
        "Where every line went",
        describe(steps),
        *parts,
        size=(frame.width, y + 34),
        class_=f"funnel {'narrow' if frame.lines else 'wide'}",
    )


def describe(steps: list[Step]) -> str:
    """Return the picture in words.

    >>> describe([Step("lines", 9, 8, [Loss("", "blank lines", 1)]), Step("check", 8, 8, [])])
    '9 come in. Dropped at lines: blank lines 1. 8 remain at the end.'
    """
    sentences = [f"{steps[0].rows_in:,} come in."]
    for step in steps:
        if step.losses:
            named = [(f"{loss.code} {loss.name}".strip(), loss.rows) for loss in step.losses]
            losses = (f"{name} {rows:,}" for name, rows in named)
            sentences.append(f"Dropped at {step.title}: {', '.join(losses)}.")
    return " ".join([*sentences, f"{steps[-1].rows_out:,} remain at the end."])


def _thickness(rows: int, scale: float) -> float:
    return max(rows * scale, _THINNEST)


def _slots(frame: Frame, step: Step, scale: float) -> list[float]:
    """Return the heights of a step's branches: the label's height, or more for a thick branch."""
    return [max(frame.slot, _thickness(loss.rows, scale) + 8) for loss in step.losses]


def _node(frame: Frame, y: float, rows: int, title: str, scale: float) -> Markup:
    """Draw the rows at one point of the stream: a bar across it, and their number next to it."""
    x = frame.stream_x
    return join(
        [
            tag("rect", class_="node", x=x, y=y - 1.5, width=max(rows * scale, 2), height=3),
            tag("text", f"{rows:,}", class_="rows", x=x - 12, y=y + 5),
            tag("text", title, class_="stage", x=x - 12, y=y + 20),
        ]
    )


def _stream(frame: Frame, ends: tuple[float, float], step: Step, scale: float) -> Markup:
    """Draw the stream between two nodes; it widens if one row gives several pairs."""
    (top, bottom), x = ends, frame.stream_x
    stays = step.rows_in - sum(loss.rows for loss in step.losses)
    before, after = x + max(stays * scale, 1), x + max(step.rows_out * scale, 1)
    middle = (top + bottom) / 2
    curve = f"C{before:.1f} {middle:.1f} {after:.1f} {middle:.1f} {after:.1f} {bottom:.1f}"
    path = f"M{x:.1f} {top:.1f}H{before:.1f}{curve}H{x:.1f}Z"
    return tag("path", class_="stream", d=path)


def _branches(frame: Frame, y: float, step: Step, scale: float, most: int) -> Markup:
    """Draw the losses of a step; the rightmost branches off first, so that none cross."""
    right = frame.stream_x + step.rows_in * scale
    lost = sum(loss.rows for loss in step.losses)
    fit = min(1.0, step.rows_in / max(lost, 1))  # one row may lose several pairs
    slots, parts = _slots(frame, step, scale), []
    for loss, slot, top in zip(step.losses, slots, accumulate(slots, initial=y + 14), strict=False):
        half = _thickness(loss.rows, scale) / 2
        center, left = top + slot / 2, right - loss.rows * scale * fit
        right_edge, label = max(right, left + _THINNEST), frame.label_x - 10
        path = (
            f"M{right_edge:.1f} {y:.1f}Q{right_edge:.1f} {center - half:.1f} "
            f"{label:.1f} {center - half:.1f}V{center + half:.1f}"
            f"Q{left:.1f} {center + half:.1f} {left:.1f} {y:.1f}Z"
        )
        note = f"{loss.code} {loss.name}: {loss.rows:,}, {percent(loss.rows / most)}".strip()
        parts.append(tag("path", tag("title", note), class_="loss", d=path))
        parts.append(_label(frame, center, loss, most))
        right = left
    return join(parts)


def _label(frame: Frame, y: float, loss: Loss, most: int) -> Markup:
    """Draw code, name, number and share; a narrow frame has the name on a second line."""
    x, name = frame.label_x, loss.name.replace("_", " ")
    first = y - 2 if frame.lines and loss.code else y + 4.5
    parts = [tag("text", f"{loss.rows:,}", class_="lost", x=frame.width - 2, y=first)]
    if loss.code:
        parts.append(tag("text", loss.code, class_="code", x=x, y=first))
    if not frame.lines:
        share = percent(loss.rows / most)
        parts.append(tag("text", share, class_="of", x=frame.width - 74, y=first))
    under = frame.lines and loss.code
    name_x = x + (58 if loss.code and not frame.lines else 0)
    parts.append(tag("text", name, class_="name", x=name_x, y=first + (14 if under else 0)))
    return join(parts)


def _end(frame: Frame, y: float, report: Report, scale: float) -> Markup:
    """Draw the kept pairs as a block at the end of the stream, divided into splits."""
    splits = {name: split.rows for name, split in (report.splits or {}).items()}
    parts = splits or {"kept": report.funnel[-1].rows_out if report.funnel else report.lines.kept}
    x, blocks = frame.stream_x, []
    for number, (name, rows) in enumerate(parts.items()):
        title = tag("title", f"{name}: {rows:,}")
        kind = "kept" if number == 0 else "kept other"
        width = max(rows * scale, 1)
        blocks.append(tag("rect", title, class_=kind, x=x, y=y, width=width, height=14))
        x += width
    return join(blocks)
