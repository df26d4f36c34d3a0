"""What `rejected/` keeps: the source's own bytes for every code, and the pair as it was read."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

import prefdata
from prefdata.config import BuildConfig

LONG = "word " * 400


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


ROWS = [
    pair("one", "It is good.", "Bad."),
    pair("two", "", "Blank, so PD202."),
    pair("three", "Yes.", "No."),
    pair("three", "No.", "Yes."),  # both PD403
    pair("four", LONG, "Too long, so PD710."),
]
CODES = {2: "PD202", 3: "PD403", 4: "PD403", 5: "PD710"}


def as_lines(rows: list[dict[str, Any]]) -> list[bytes]:
    """Return rows as lines that no writer of this package would make."""
    return [json.dumps(row, indent=None, separators=(" , ", "  :")).encode() for row in rows]


def jsonl(folder: Path) -> tuple[Path, list[bytes]]:
    lines = as_lines(ROWS)
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return folder / "rows.jsonl", lines


def packed(folder: Path) -> tuple[Path, list[bytes]]:
    lines = as_lines(ROWS)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    return folder / "rows.jsonl.gz", lines


def array(folder: Path) -> tuple[Path, list[bytes]]:
    lines = as_lines(ROWS)
    (folder / "rows.json").write_bytes(b"[\n" + b",\n".join(lines) + b"]")
    return folder / "rows.json", lines


def table_of_text(folder: Path) -> tuple[Path, list[bytes]]:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(ROWS[0])
    writer.writerows(row.values() for row in ROWS)
    (folder / "rows.csv").write_text(text.getvalue())
    return folder / "rows.csv", text.getvalue().encode().split(b"\n")[1:-1]


@pytest.mark.parametrize("written", [jsonl, packed, array, table_of_text])
def test_a_rejected_row_has_its_own_bytes_for_every_code(
    written: Callable[[Path], tuple[Path, list[bytes]]], tiny: Path, tmp_path: Path
) -> None:
    file, lines = written(tmp_path)
    rejected = rejected_of(file, tiny, tmp_path / "out")

    assert [row["code"] for row in rejected] == list(CODES.values())
    assert [row["raw"] for row in rejected] == [lines[number - 1] for number in CODES]
    for row, number in zip(rejected, CODES, strict=True):
        read = {side: turns[-1]["content"] for side, turns in json.loads(row["pair"]).items()}
        assert read == ROWS[number - 1]


def test_a_rejected_row_of_a_table_has_its_values(tiny: Path, tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    rejected = rejected_of(tmp_path / "rows.parquet", tiny, tmp_path / "out")

    assert [json.loads(row["raw"]) for row in rejected] == [ROWS[n - 1] for n in CODES]


def test_a_pair_of_several_rows_has_the_bytes_of_its_chosen_one(tiny: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "completion": f"{text}.", "label": label}
        for text, label in (("Good", True), (LONG, False), ("Bad", False))
    ]
    lines = as_lines(rows)
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    (row,) = rejected_of(tmp_path / "rows.jsonl", tiny, tmp_path / "out")

    assert (row["code"], row["raw"]) == ("PD710", lines[0])
    assert json.loads(row["pair"])["rejected"][0]["content"] == f"{LONG}."


def test_a_tie_has_the_bytes_of_its_row(tiny: Path, tmp_path: Path) -> None:
    row = {"instruction": "q", "generations": ["a", "b", "c"], "ratings": [2.0, 1.0, 1.0]}
    (line,) = as_lines([row])
    (tmp_path / "rows.jsonl").write_bytes(line)
    pairing = {"strategy": "all"}
    rejected = rejected_of(tmp_path / "rows.jsonl", tiny, tmp_path / "out", pairing=pairing)

    assert [(row["code"], row["raw"]) for row in rejected] == [("PD303", line)]


def rejected_of(file: Path, tiny: Path, out: Path, **more: Any) -> list[dict[str, Any]]:
    config = BuildConfig(
        inputs=[str(file)],
        tokenizer=str(tiny),
        out=out,
        max_length=200,
        test_fraction=0,
        text="chat",
        **more,
    )
    table: pl.DataFrame = pl.from_arrow(prefdata.build(config).rejected())  # type: ignore[assignment]
    return table.sort("line", "ordinal").to_dicts()
