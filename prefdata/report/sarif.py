"""Report as SARIF 2.1.0, which code hosts and editors show next to the lines.

A row is a result if the report names its location; a notification has the number of further rows.
File names become relative URIs; offsets count in the decompressed file.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefdata.report.figures import count
from prefdata.report.model import Finding, Report
from prefdata.report.safe import plain

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"E": "error", "W": "warning", "I": "note"}


def to_sarif(report: Report, root: Path) -> dict[str, Any]:
    """Return the log; files under `root` are named relative to it."""
    places = {item.name: number for number, item in enumerate(report.inputs)}
    codes = list(dict.fromkeys(finding.code for finding in report.findings))
    rules = {
        f.code: _rule(f) for f in sorted(report.findings, key=lambda f: "IWE".index(f.severity))
    }
    run = {
        "tool": {
            "driver": {
                "name": "prefdata",
                "version": report.tool_version,
                "rules": [rules[code] for code in codes],
            }
        },
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": list(_notifications(report, codes)),
            }
        ],
        "artifacts": [
            {
                "location": {"uri": file_uri(item.name, root)},
                "length": item.bytes,
                "hashes": {"sha-256": item.sha256},
            }
            for item in report.inputs
        ],
        "results": [
            result
            for finding in report.findings
            for result in _results(finding, codes.index(finding.code), root, places)
        ],
        "columnKind": "unicodeCodePoints",
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def file_uri(name: str, root: Path) -> str:
    """Return a file's name as a URI reference, relative if possible.

    >>> file_uri("data/a b:1.jsonl", Path("/home")), file_uri("/home/a.jsonl", Path("/home"))
    ('data/a%20b%3A1.jsonl', 'a.jsonl')
    >>> file_uri("/data/a.jsonl", Path("/home"))
    'file:///data/a.jsonl'
    """
    path = Path(name)
    if path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    quoted = quote(os.fsencode(path.as_posix()))
    return f"file://{quoted}" if path.is_absolute() else quoted


def _rule(finding: Finding) -> dict[str, Any]:
    words = finding.name.split("_")
    meaning, advice = plain(finding.meaning), plain(finding.advice)
    return {
        "id": finding.code,
        "name": "".join(word.capitalize() for word in words),
        "shortDescription": {"text": " ".join(words)},
        "fullDescription": {"text": meaning},
        "help": {"text": f"{meaning}\nWhat to do: {advice}"},
        "defaultConfiguration": {"level": LEVELS[finding.severity]},
    }


def _results(
    finding: Finding, rule: int, root: Path, places: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield a result for each location; `places` are the indices of inputs in the log's list."""
    for example in finding.examples:
        artifact: dict[str, Any] = {"uri": file_uri(example.source, root)}
        if example.source in places:
            artifact["index"] = places[example.source]
        region = {"startLine": example.line}
        if example.offset is not None:
            region["byteOffset"] = example.offset
        element = f" (element {example.element:,})" if example.element is not None else ""
        location = {"artifactLocation": artifact, "region": region}
        yield {
            "ruleId": finding.code,
            "ruleIndex": rule,
            "level": LEVELS[finding.severity],
            "message": {"text": f"{plain(example.message) or plain(finding.meaning)}{element}"},
            "locations": [{"physicalLocation": location}],
        }


def _notifications(report: Report, codes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield facts that are not results: counts of rows that are not listed, and notes on files."""
    for finding in report.findings:
        more = finding.count - len(finding.examples)
        if more:
            rows = count(more, "row" if not finding.examples else "more row")
            text = f"{finding.code}: {rows}, not listed. {plain(finding.meaning)}"
            yield {
                "level": "note",
                "message": {"text": text},
                "associatedRule": {"id": finding.code, "index": codes.index(finding.code)},
            }
    for note in report.notes:
        yield {"level": "note", "message": {"text": plain(note)}}
