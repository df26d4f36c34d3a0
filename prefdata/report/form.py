"""Report files, in the form that the file's ending selects, and comparison with an earlier one.

`--baseline report.json` fails only on findings that the earlier report does not have.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from prefdata.errors import UsageError
from prefdata.records.findings import EXAMPLES
from prefdata.report.html.page import render_report
from prefdata.report.model import Finding, Report
from prefdata.report.sarif import to_sarif
from prefdata.settings import read_small
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
from prefdata.store.reader import Build
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
    if path is None:
        return EXAMPLES
    require_writable_name(path)
    if path.suffix not in FORMS:
        problem = f"ends in {path.suffix or 'nothing'}, which is not a form of a report"
        raise UsageError("E160", str(path), problem, f"use one of {', '.join(FORMS)}")
    if path.is_dir():
        raise UsageError("E160", str(path), "is a directory", "name a file")
    return MOST_RESULTS if path.suffix == ".sarif" else EXAMPLES


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


_MOST_BYTES = 256 << 20


def new_findings(report: Report, baseline: Report) -> list[Finding]:
    """Return findings whose code and severity the baseline lacks, or has in fewer rows.

    Their `count` is that of the report. A finding that is more severe than in the baseline is new.
    """
    known = {(finding.code, finding.severity): finding.count for finding in baseline.findings}
    return [
        finding
        for finding in report.findings
        if finding.count > known.get((finding.code, finding.severity), 0)
    ]


def report_of(build: Build) -> Report:
    """Return the report of a finished build."""
    return Report.model_validate_json(build.file("report.json").read_bytes())


def read_report(path: Path) -> Report:
    """Return a report that `validate --report` or a build wrote. Raises C160 for other files."""
    remedy = "write one with `prefdata validate … --report FILE`"
    try:
        return Report.model_validate_json(read_small(path, _MOST_BYTES))
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise UsageError("C160", str(path), problem, remedy) from error
    except ValidationError as error:
        raise UsageError("C160", str(path), "is not a report of this version", remedy) from error


def fails(findings: Sequence[Finding], fail_on: str) -> bool:
    """Return whether any finding is at or above `error`, `warning` or `never`."""
    failing = {"error": ("E",), "warning": ("E", "W"), "never": ()}[fail_on]
    return any(finding.severity in failing for finding in findings)
