"""Descriptions of layouts, for `prefdata layouts` and for the table of docs/layouts.md."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from prefdata.read import Layout, shipped_layouts
from prefdata.read.layouts.candidates import Strength

WIDTH = 96
SIDES = ("prompt", "chosen", "rejected")
HOW = {
    "last_turn": "the last turn is the completion, all before it must agree (PD207)",
    "common_turns": "split after the last common turn",
    "common_text": "split between words",
    "after_prompt": "the first user turn must be the prompt (PD207)",
    "chosen_dialogue": "the end of the dialogue is the chosen completion",
    "last_two_turns": "the last two turns of a dialogue are the candidates",
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
    if not layout.fixture.rows:
        return
    yield "  rows"
    for row in layout.fixture.rows:
        yield f"    {orjson.dumps(row).decode()}"
    yield "  pairs" if layout.fixture.pairs else "  pairs       none"
    for number, pair in enumerate(layout.fixture.pairs):
        yield from [""] if number else []
        yield from (f"    {line}" for line in pair_lines(pair))


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
    said = [
        spec.good and "each good completion with each other one",
        spec.label and f"`{spec.label.column or ', '.join(spec.label.one_hot)}` names the better",
        spec.votes and "the majority of the votes names the better",
        spec.acceptable and f"each of `{spec.acceptable.column}` with each other one",
        spec.strength and _strength(spec.strength),
        spec.rank and f"{spec.rank.best}est `{spec.rank.path}` is best, by strategy",
        spec.in_order and "best first",
    ]
    return str(next(filter(None, said), "highest score is best, by strategy"))


def _strength(spec: Strength) -> str:
    if spec.center:
        side = "below" if spec.first == "negative" else "above"
        return f"`{spec.column}` {side} {spec.center:g} prefers the first, {spec.center:g} is a tie"
    return f"{spec.first} `{spec.column}` prefers the first, 0 is a tie"


def _columns(layout: Layout) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in layout.columns.items())


def _dimensions(layout: Layout) -> str:
    marked = (
        f"{name} (the default)" if name == layout.dimension else name for name in layout.dimensions
    )
    return ", ".join(marked)


def pair_lines(pair: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one pair, as fixtures have it."""
    for side in SIDES:
        for number, turn in enumerate(pair[side]):
            said = f"{turn['role']}: {turn['content']}" if turn["content"] else turn["role"]
            more = {name: text for name, text in turn.items() if name not in ("role", "content")}
            rest = f" {orjson.dumps(more).decode()}" if more else ""
            yield f"{'' if number else side:10}{said}{rest}"
    numbers = {name: value for name, value in pair.items() if name not in SIDES}
    if numbers:
        yield f"{'':10}{', '.join(f'{name} {_shown(value)}' for name, value in numbers.items())}"


def _shown(value: Any) -> str:
    """Return a value; a number of 32 bits without the digits that it does not have."""
    return f"{value:.6g}" if isinstance(value, float) and value != int(value) else str(value)
