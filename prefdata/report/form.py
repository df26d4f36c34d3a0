"""A report as a file, in the form that the ending of its name asks for."""

from collections.abc import Callable
from pathlib import Path

from prefdata.errors import UsageError
from prefdata.findings import EXAMPLES
from prefdata.report.html.page import render_report
from prefdata.report.model import Report
from prefdata.report.sarif import to_sarif
from prefdata.store.canonical import to_json
from prefdata.store.commit import make_folder, write_bytes

MOST_RESULTS = 1_000  # of each code in SARIF; code hosts show a few thousand in all

FORMS: dict[str, Callable[[Report, Path], bytes]] = {
    ".json": lambda report, _: to_json(report.model_dump(mode="json")),
    ".html": lambda report, _: render_report(report).encode(),
    ".sarif": lambda report, root: to_json(to_sarif(report, root)),
}


def examples_for(path: Path | None) -> int:
    """How many places of each code a report in this form names; E160 where it cannot be one."""
    if path is not None and path.suffix not in FORMS:
        problem = f"ends in {path.suffix or 'nothing'}, which is no form of a report"
        raise UsageError("E160", str(path), problem, f"use one of {', '.join(FORMS)}")
    if path is not None and path.is_dir():
        raise UsageError("E160", str(path), "is a folder", "name a file")
    return MOST_RESULTS if path is not None and path.suffix == ".sarif" else EXAMPLES


def write_report(report: Report, path: Path, *, root: Path) -> None:
    """Write it; files under `root` are named relative to it where the form asks for that."""
    make_folder(path.parent)
    write_bytes(path, FORMS[path.suffix](report, root))
