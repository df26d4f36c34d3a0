"""Terminal output: progress bars during the work, and the report at the end."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from prefdata.progress import Advance
from prefdata.report.console import make_bars
from prefdata.report.figures import (
    chosen_longer_said,
    columns_not_read,
    count,
    how_read,
    percent,
    split_read,
    split_statement,
    splits_said,
)
from prefdata.report.lengths import PARTS
from prefdata.report.model import Finding, Report
from prefdata.report.safe import plain

_MOST_INPUTS = 40  # rows of the table; a report as a file has all
_MOST_PAIRS = 3  # first pairs that are shown, one per input
_PART_CHARACTERS = 160  # shown of each field of such a pair, at either end


class TerminalProgress:
    """Progress bars on stderr; nothing if it is not a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:>12}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        hidden = not self._console.is_terminal
        with make_bars(self._console, *columns, transient=True, disable=hidden) as bars:
            task = bars.add_task(title, total=total)
            yield lambda steps: bars.advance(task, steps)

    def note(self, text: str) -> None:
        self._console.print(Text(plain(text), style="yellow"), soft_wrap=True)


def print_report(report: Report, console: Console) -> None:
    """Print how files were read, line counts, findings, splits, lengths and biases."""
    for table in (*_reading_tables(report), _line_table(report)):
        console.print(table)
    _print_findings(report.findings, console)
    for table in _tables(report):
        console.print(table)
    for line in _first_pairs(report):
        console.print(Text(plain(line)), soft_wrap=True)
    for sentence in _sentences(report):
        console.print(Text(plain(sentence)), soft_wrap=True)


def _tables(report: Report) -> Iterator[Table]:
    """Yield the tables below the findings that have rows."""
    further = (
        (report.splits, _split_table),
        (report.mixture, _mixture_table),
        (report.lengths, _length_table),
        (report.biases, _bias_table),
    )
    yield from (table(report) for rows, table in further if rows)


def _table(title: str, *columns: str, text_columns: int = 1) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        justify: JustifyMethod = "left" if number < text_columns else "right"
        table.add_column(column, justify=justify, overflow="fold")  # names and places are not cut
    return table


def _reading_tables(report: Report) -> Iterator[Table]:
    """Yield the tables of how each file was read, and of the columns that were not read."""
    table = _table("How each file was read", "input", "layout", "", "split", text_columns=4)
    for item in report.inputs[:_MOST_INPUTS]:
        how = how_read(item.reading.chosen_by, item.reading.said)
        table.add_row(
            *(Text(plain(text)) for text in (item.name, item.layout, how, split_read(item)))
        )
    yield table
    columns = ("input", "column", "rows", "kind", "example", "means")
    unread = _table("Columns not read", *columns, text_columns=6)
    for name, share, column in islice(columns_not_read(report), _MOST_INPUTS):
        cells = (name, column.name, percent(share), column.kind, column.example)
        style = "yellow" if column.means else ""
        unread.add_row(*(Text(plain(text), style=style) for text in (*cells, column.means or "")))
    if unread.row_count:
        yield unread


def _line_table(report: Report) -> Table:
    columns = ("lines", "blank", "kept", "duplicates", "filtered", "rejected")
    table = _table("Where every line went", "input", *columns)
    rows = [(plain(item.name), item.lines) for item in report.inputs[:_MOST_INPUTS]]
    if len(report.inputs) > 1:
        rows.append((f"all {len(report.inputs):,}", report.lines))
    for name, classes in rows:
        table.add_row(Text(name), *(f"{getattr(classes, column):,}" for column in columns))
    return table


_LEVELS = {"E": ("error", "bold red"), "W": ("warning", "bold yellow"), "I": ("count", "dim")}


def _print_findings(findings: Sequence[Finding], console: Console) -> None:
    if findings:
        console.print(Text("Findings", style="bold"))
    for finding in findings:
        _print_finding(finding, console)


def _print_finding(finding: Finding, console: Console) -> None:
    """Print a code with its number, the first place with its message, and the advice.

    A place is never broken at the terminal's width, so that it can be copied.
    """
    level, style = _LEVELS[finding.severity]
    num = count(finding.count, finding.unit)
    share = "" if finding.unit == "word" else f" ({percent(finding.share)})"
    console.print(
        Text.assemble(
            (finding.code, style), f" {level} ", (plain(finding.name), "bold"), f": {num}{share}"
        ),
        soft_wrap=True,
    )
    for example in finding.examples[:1]:
        console.print(Text(f"    {plain(example.place)}"), soft_wrap=True)
        said = example.message.removeprefix(f"{finding.name}: ") or finding.meaning
        _print_indented(said, console)
    if not finding.examples:
        _print_indented(finding.meaning, console)
    if finding.severity != "I":
        _print_indented(f"What to do: {finding.advice}", console, "dim")


def _print_indented(text: str, console: Console, style: str = "") -> None:
    """Print a text below its heading, wrapped at the terminal's width."""
    for line in Text(plain(text), style=style).wrap(console, max(console.width - 4, 20)):
        line.rstrip()
        console.print(Text.assemble("    ", line), soft_wrap=True)


def _split_table(report: Report) -> Table:
    table = _table("Splits", "split", "pairs", "prompts", "prompt tokens", "chosen", "rejected")
    for name, split in (report.splits or {}).items():
        table.add_row(name, *(f"{number:,}" for number in split.model_dump().values()))
    return table


def _mixture_table(report: Report) -> Table:
    table = _table("Mixture: train by source", "source", "weight", "pairs", "in train", "share")
    total = sum(source.rows for source in report.mixture) or 1
    for source in report.mixture:
        numbers = f"{source.weight:g}", f"{source.pairs:,}", f"{source.rows:,}"
        table.add_row(Text(plain(source.name)), *numbers, percent(source.rows / total))
    return table


def _length_table(report: Report) -> Table:
    unit = report.length_unit
    table = _table(
        f"{unit.capitalize()} of the kept pairs", "part", "mean", "median", "95 %", "most"
    )
    lengths = report.lengths or {}
    for part in (part for part in PARTS if part in lengths):
        found = lengths[part]
        short = f"{found.mean:,.1f}", f"{found.median:,.0f}", f"{found.p95:,.0f}"
        table.add_row(part, *short, f"{found.max:,}")
    return table


def _bias_table(report: Report) -> Table:
    title = "Shortcuts: features that predict the label"
    table = _table(title, "", "in words", "AUC", "95 %", text_columns=2)
    for bias in report.biases:
        names = Text(plain(bias.name)), Text(plain(bias.sentence))
        table.add_row(*names, f"{bias.auc:.3f}", f"{bias.low:.3f}–{bias.high:.3f}")
    return table


def _first_pairs(report: Report) -> Iterator[str]:
    """Yield the first pairs as the model sees them."""
    seen = [item for item in report.inputs if item.first_pair]
    seen.sort(key=lambda item: item.text is None)  # readings that were chosen come first
    for item in seen[:_MOST_PAIRS]:
        pair = item.first_pair
        assert pair is not None
        yield f"{'First pair,' if pair.is_plain else 'As the model sees'} {item.first_place}"
        for part in PARTS:
            yield f"  {part:>8} {_on_one_line(getattr(pair, part))}"


def _on_one_line(text: str) -> str:
    """Return a text on one line, with line breaks and spaces at both ends visible."""
    if len(text) > 2 * _PART_CHARACTERS:
        text = f"{text[:_PART_CHARACTERS]} … {text[-_PART_CHARACTERS:]}"
    return json.dumps(text, ensure_ascii=False)


def _sentences(report: Report) -> Iterator[str]:
    """Yield the sentences that are not in a table."""
    if report.chosen_longer is not None:
        yield chosen_longer_said(report)
    if report.groups is not None:
        shared = report.groups
        yield (
            f"{count(shared.pairs, 'pair')} with {count(shared.groups, 'prompt')} and "
            f"{count(shared.completions, 'distinct completion')}."
        )
    if splits_said(report):
        yield splits_said(report)
    if report.split_proof is not None:
        yield split_statement(report.split_proof)
