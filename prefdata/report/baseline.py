"""Comparison with an earlier report: `--baseline report.json` fails only on new findings."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from prefdata.errors import UsageError
from prefdata.report.model import Finding, Report
from prefdata.settings import read_small

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
