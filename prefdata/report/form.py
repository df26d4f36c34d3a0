"""Report files, in the form that the file's ending selects."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prefdata.errors import UsageError
from prefdata.records.findings import EXAMPLES
from prefdata.report.html.page import render_report
from prefdata.report.model import Report
from prefdata.report.sarif import to_sarif
from prefdata.store.canonical import to_json
from prefdata.store.commit import make_folder, write_bytes
from prefdata.store.ownership import (
    Read,
    is_json_of,
    is_page_of,
    is_sarif,
    require_apart,
    require_new_or,
    require_unsealed,
    require_writable_name,
)
from prefdata.store.staging import FILES, FOLDER, FOLDERS

MOST_RESULTS = 1_000  # of each code in SARIF; code hosts show a few thousand in all

FORMS: dict[str, Callable[[Report, Path], bytes]] = {
    ".json": lambda report, _: to_json(report),
    ".html": lambda report, _: render_report(report).encode(),
    ".sarif": lambda report, root: to_json(to_sarif(report, root)),
}


_IS_OURS: dict[str, Callable[[Path], bool]] = {
    ".json": is_json_of("prefdata-report"),
    ".html": is_page_of("prefdata"),
    ".sarif": is_sarif,
}


def examples_for(path: Path | None) -> int:
    """Return how many locations of each code a report in this form names.

    Raises E160 if the path cannot be a report.
    """
    if path is not None:
        require_writable_name(path)
    if path is not None and path.suffix not in FORMS:
        problem = f"ends in {path.suffix or 'nothing'}, which is not a form of a report"
        raise UsageError("E160", str(path), problem, f"use one of {', '.join(FORMS)}")
    if path is not None and path.is_dir():
        raise UsageError("E160", str(path), "is a directory", "name a file")
    return MOST_RESULTS if path is not None and path.suffix == ".sarif" else EXAMPLES


def check_report_target(
    path: Path | None, reads: Iterable[Read] = (), *, build: Path | None = None
) -> None:
    """Raise a coded error if a report would overwrite anything but an earlier report.

    `build` is the output directory of the build, whose file names are reserved.
    """
    if path is None:
        return
    require_new_or(path, _IS_OURS[path.suffix], "a report that prefdata wrote")
    require_apart([path], reads)
    require_unsealed(path)
    real, base = Path(os.path.realpath(path)), os.path.realpath(build or "")
    names = real.relative_to(base).parts if build and real.is_relative_to(base) else ()
    if names and names[0] in (*FILES, *FOLDERS, FOLDER):
        problem = f"is a name of the build in {build}"
        raise UsageError("E173", str(path), problem, "name another output")


def write_report(report: Report, path: Path, *, root: Path) -> None:
    """Write the report; SARIF names files under `root` relative to it."""
    check_report_target(path)  # another file may have been written there meanwhile
    make_folder(path.parent)
    write_bytes(path, FORMS[path.suffix](report, root))
