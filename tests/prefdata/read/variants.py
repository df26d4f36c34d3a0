"""A variant of a kind of file: its form and the expected result."""

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from pyarrow import parquet

from prefdata.errors import UsageError
from prefdata.read import Columns, expand_inputs, load_layout
from tests.prefdata.read.rows import FileRows, read_file

Rows = list[dict[str, Any]]
Shown = tuple[str, str, str]


class Case(NamedTuple):
    """Rows, the form in which they are written, and the expected result."""

    rows: Rows
    pairs: list[Shown] = []  # noqa: RUF012 - never changed
    codes: list[str] = []  # noqa: RUF012 - of refused rows
    error: str = ""
    """Regex of the file's error."""
    form: str = "jsonl"
    columns: Columns = Columns()
    layout: str | None = None
    said: str = ""
    """Part of the notes on how the file was read."""


def written(folder: Path, case: Case) -> Path:
    path = folder / f"rows.{case.form}"
    if case.form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in case.rows))
    elif case.form == "parquet":
        parquet.write_table(pa.Table.from_pylist(case.rows), path)
    elif case.form == "arrow":
        table = pa.Table.from_pylist(case.rows)
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in case.rows for name in row))
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(case.rows)
        path.write_text(text.getvalue())
    return path


def spoken(turns: list[dict[str, Any]]) -> str:
    """Return turns as one text: `user: Hi | assistant: Hello`, calls as their JSON."""
    return " | ".join(
        f"{turn['role']}: {turn['content']}{turn['tool_calls'] or ''}" for turn in turns
    )


def read_case(folder: Path, case: Case) -> FileRows:
    (file,) = expand_inputs([str(written(folder, case))])
    layout = load_layout(case.layout) if case.layout else None
    return read_file(file, layout=layout, columns=case.columns)


def pairs_of(rows: FileRows) -> list[Shown]:
    return [
        (spoken(row["prompt"]), spoken(row["chosen"]), spoken(row["rejected"]))
        for row in rows.records.to_pylist()
    ]


def check(folder: Path, case: Case) -> FileRows | None:
    if case.error:
        with pytest.raises(UsageError, match=case.error):
            read_case(folder, case)
        return None
    rows = read_case(folder, case)
    assert rows.rejected["code"].to_pylist() == case.codes, rows.rejected["message"].to_pylist()
    assert pairs_of(rows) == case.pairs
    assert case.said in "; ".join(rows.said)
    assert rows.counts.lines == rows.counts.blank + rows.counts.pairs + rows.counts.rejected or (
        rows.counts.completions or len(case.pairs) > len(case.rows)
    )
    return rows


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def human(text: str) -> dict[str, Any]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, Any]:
    return {"from": "gpt", "value": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}
