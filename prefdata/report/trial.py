"""Words for `prefdata layouts --new` and `--try`: a first try of a layout, and what one reads."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from prefdata.errors import UsageError
from prefdata.hub.inputs import fetch_inputs
from prefdata.read import InputFile, Layout, Limits, OpenFile, expand_inputs
from prefdata.read.adapt.widened import plain_rows
from prefdata.read.detect import likely
from prefdata.read.faults import RowError
from prefdata.read.files.jsonl import Tally
from prefdata.read.layouts.first_try import first_try
from prefdata.read.trial import try_layout
from prefdata.report.explain import describe_code
from prefdata.report.figures import count, percent
from prefdata.report.layouts import pair_lines

_MOST_ROWS = 200  # looked at by a first try
_MOST_PAIRS = 3
_TIE = "PD303"


def say_first_try(name: str) -> Iterator[str]:
    """Yield the YAML of a first try for a file, which is a layout once it is written to a file."""
    file = _one_file(name)
    rows = _first_rows(file)
    if not rows:
        raise UsageError("E101", name, "contains no rows", "name another file")
    fits = likely(rows)
    if len(fits) == 1:
        yield f"# {name} is read as {fits[0].layout.name} without a layout of your own."
    yield from first_try(rows, Path(name).name.partition(".")[0] or "mine", name)


def say_trial(layout: Layout, name: str) -> tuple[list[str], bool]:
    """Return what a layout reads in a file, and whether it reads all rows but ties."""
    found = try_layout(layout, _one_file(name))
    refused = sum(one.num for one in found.refused.values())
    lines = [
        f"{name}: {count(found.num_rows, 'row')} read by {layout.name}: "
        f"{count(len(found.pairs), 'pair')}, {count(refused, 'row')} refused"
    ]
    lines += [f"  {said}" for said in found.said]
    for code, one in sorted(found.refused.items(), key=lambda pair: -pair[1].num):
        share = percent(one.num / max(found.num_rows, 1))
        place = one.first[0]
        lines.append(f"{code} {describe_code(code).name}: {one.num:,} ({share})")
        lines.append(f"  first at line {place.line}: {place.message}")
    unread = found.counts.unread
    if unread:
        lines.append(f"not read: {', '.join(unread)}")
    for line, pair in islice(zip(found.lines, found.pairs, strict=True), _MOST_PAIRS):
        lines.append(f"line {line}")
        lines += [f"  {part}" for part in pair_lines(pair)]
    if not found.pairs:
        lines.append("no pair: correct the layout and try again")
    return lines, bool(found.pairs) and found.refused.keys() <= {_TIE}


def _one_file(name: str) -> InputFile:
    """Return the first file of a name."""
    return expand_inputs([source.path for source in fetch_inputs([name])])[0]


def _first_rows(file: InputFile) -> Sequence[dict[str, Any]]:
    """Return the first rows of a file that are objects."""
    blocks = iter(OpenFile(file, Limits()))
    rows = (
        value
        for block in blocks
        for *_, value in plain_rows(block, Limits(), Tally())
        if not isinstance(value, RowError)
    )
    return list(islice(rows, _MOST_ROWS))
