"""Descriptions of how each file was read, for the terminal and the page."""

from collections.abc import Iterator

from prefdata.report.model import Report
from prefdata.store.manifest import ColumnNotRead, InputSeal

CHOSEN_BY = {
    "columns": "detected by its columns",
    "name": "named",
    "options": "by the named columns",
    "nothing": "no rows",
}
SPLIT_FROM = {
    "given": "as given",
    "name": "by its name",
    "folder": "by its directory's name",
    "rest": "as no name gives a split",
    "rows": "by the rows' column",
    "drawn": "drawn by prompt",
    "none": "one set",
}


def columns_not_read(report: Report) -> Iterator[tuple[str, float, ColumnNotRead]]:
    """Yield each column that was not read: its file, its share of the rows, its description."""
    for item in report.inputs:
        rows = max(item.lines.lines - item.lines.blank, 1)
        for column in item.reading.not_read:
            yield item.name, min(column.rows / rows, 1.0), column


def split_read(item: InputSeal) -> str:
    """Return the split of a file, and its source."""
    said = SPLIT_FROM[item.split_from]
    return f"{item.split}, {said}" if item.split else said


def splits_said(report: Report) -> str:
    """Return where the splits come from, in one sentence; empty for a validation of one set."""
    said = {item.split_from for item in report.inputs}
    if said == {"drawn"}:
        return "The inputs are one set, and splits are drawn from it by prompt."
    return "" if said == {"none"} else "The inputs came in splits, which are kept."


def how_read(chosen_by: str, said: list[str]) -> str:
    """Return one line on how a file was read."""
    return "; ".join([CHOSEN_BY[chosen_by], *said])
