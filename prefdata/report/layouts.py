"""Descriptions of layouts, for `prefdata layouts` and for the table of docs/layouts.md."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from prefdata.read import Layout, shipped_layouts

WIDTH = 96
SIDES = ("prompt", "chosen", "rejected")
HOW = {
    "last_turn": "the last turn is the completion, all before it must agree (PD207)",
    "common_turns": "split after the last common turn",
    "common_text": "split between words",
    "after_prompt": "the first user turn must be the prompt (PD207)",
    "chosen_dialogue": "the end of the dialogue is the chosen completion",
}


def list_layouts(layouts: Iterable[Layout]) -> Iterator[str]:
    """Yield one line for each layout, with the package of those that are not prefdata's."""
    for layout in layouts:
        yield f"{layout.name:24} {layout.about}{layout.package and f' (from {layout.package})'}"


def describe_layout(layout: Layout) -> Iterator[str]:
    """Yield what a layout reads, where it was seen, and its example rows with their pairs."""
    yield layout.name
    facts = {
        "about": layout.about,
        "from": layout.package,
        "columns": _columns(layout),
        "others": ", ".join(sorted(layout.known - frozenset(layout.columns))),
        "becomes": how(layout),
        "dimensions": _dimensions(layout),
        "detected": layout.detect_why and f"never: {layout.detect_why}",
        "seen": layout.seen,
    }
    for name, text in facts.items():
        if text:
            start = f"  {name:12}"
            yield from textwrap.wrap(
                text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start)
            )
    yield "  rows"
    for row in layout.fixture.rows:
        yield f"    {orjson.dumps(row).decode()}"
    yield "  pairs" if layout.fixture.pairs else "  pairs       none"
    for number, pair in enumerate(layout.fixture.pairs):
        yield from [""] if number else []
        yield from (f"    {line}" for line in _pair(pair))


def layouts_table() -> Iterator[str]:
    """Yield the table of docs/layouts.md."""
    yield "| name | what it is | columns that identify it | how it is read |"
    yield "|---|---|---|---|"
    for layout in shipped_layouts().values():
        cells = (f"`{layout.name}`", layout.about, f"`{_columns(layout)}`", how(layout))
        yield f"| {' | '.join(cell.replace('|', '∣') for cell in cells)} |"


def how(layout: Layout) -> str:
    """Return one line on how pairs are made from rows."""
    if layout.refuse:
        return f"refused (PD102): {layout.refuse}"
    said = ["text, verbatim"] if layout.form == "text" and not layout.plain else []
    said += ["plain text: a chat or verbatim, by `text`"] if layout.plain else []
    said += [HOW[layout.sides]] if layout.sides in HOW else []
    if layout.gather:
        what = " and ".join(layout.gather.by[:1]) or "tree"
        said.append(f"rows of one {what} together")
    said += [_order(layout)] if layout.candidates else []
    said += [f"dimensions: {_dimensions(layout)}"] if layout.dimensions else []
    said += [] if layout.detect else ["never detected"]
    return "; ".join(said) or "as it is"


def _order(layout: Layout) -> str:
    spec = layout.candidates
    assert spec is not None
    if spec.good:
        return "each good completion with each other one"
    if spec.label:
        return f"`{spec.label.column or ', '.join(spec.label.one_hot)}` names the better"
    if spec.strength:
        return f"{spec.strength.first} `{spec.strength.column}` prefers the first, 0 is a tie"
    if spec.rank:
        return f"{spec.rank.best}est `{spec.rank.path}` is best, by strategy"
    return "best first" if spec.in_order else "highest score is best, by strategy"


def _columns(layout: Layout) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in layout.columns.items())


def _dimensions(layout: Layout) -> str:
    marked = (
        f"{name} (the default)" if name == layout.dimension else name for name in layout.dimensions
    )
    return ", ".join(marked)


def _pair(pair: dict[str, Any]) -> Iterator[str]:
    for side in SIDES:
        for number, turn in enumerate(pair[side]):
            said = f"{turn['role']}: {turn['content']}" if turn["content"] else turn["role"]
            more = {name: text for name, text in turn.items() if name not in ("role", "content")}
            rest = f" {orjson.dumps(more).decode()}" if more else ""
            yield f"{'' if number else side:10}{said}{rest}"
    numbers = {name: value for name, value in pair.items() if name not in SIDES}
    if numbers:
        yield f"{'':10}{', '.join(f'{name} {value}' for name, value in numbers.items())}"
