"""A build of rows that form pairs only together: no row is lost, on any path."""

from pathlib import Path
from typing import Any

import orjson
import polars as pl

import prefdata
from prefdata.config import make_config
from prefdata.engine.exchange import read_parts
from prefdata.engine.local import Workers
from prefdata.progress import Silent
from prefdata.read import RowOptions, expand_inputs, load_layout
from prefdata.stages.chunk import RowChecks, read_narrow
from prefdata.stages.scan import ScanOptions, ScanResult, scan
from prefdata.stages.settle import LineSums, count_all_lines
from prefdata.store.reader import Build
from prefdata.store.staging import Staging

LABELS = [True, False, None, True, True, "?", False]


def write_unpaired(path: Path) -> Path:
    """Write prompts with three rows each except the last; some have one label, some none."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {n // 3}?"}],
            "completion": [{"role": "assistant", "content": f"It is {n}."}],
            "label": LABELS[n % len(LABELS)],
        }
        for n in range(100)
    ]
    path.write_bytes(b"\n\n".join(map(orjson.dumps, rows)))
    return path


def build(rows: Path, tokenizer: Path, out: Path, **changes: Any) -> Build:
    values = {"inputs": [str(rows)], "tokenizer": str(tokenizer), "out": out, **changes}
    return prefdata.build(make_config(values, place="test"))


def test_every_line_is_kept_or_refused_with_its_bytes(tiny: Path, tmp_path: Path) -> None:
    rows = write_unpaired(tmp_path / "rows.jsonl")

    made = build(rows, tiny, tmp_path / "out", test_fraction=0)

    lines = made.manifest.lines
    assert (lines.lines, lines.blank) == (199, 99)
    assert lines.kept + lines.rejected == 100
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "*.parquet")
    assert rejected["line"].n_unique() == lines.rejected
    content = rows.read_bytes().split(b"\n")
    assert all(content[line - 1] == raw for line, raw in rejected.select("line", "raw").rows())
    assert set(rejected["code"]) == {"R210", "R211", "R213"}


def test_output_is_byte_identical_for_any_number_of_workers(tiny: Path, tmp_path: Path) -> None:
    rows = write_unpaired(tmp_path / "rows.jsonl")

    made = [build(rows, tiny, tmp_path / str(n), workers=n) for n in (1, 2)]

    assert made[0].manifest.hash == made[1].manifest.hash


def test_a_cached_chunk_knows_its_other_rows(tmp_path: Path) -> None:
    files = expand_inputs([str(write_unpaired(tmp_path / "rows.jsonl"))])
    options = ScanOptions(RowOptions(load_layout("trl-unpaired-conv")), RowChecks.of())
    (tmp_path / "out").mkdir()

    def survey_again() -> tuple[ScanResult, LineSums]:
        staging = Staging(tmp_path / "out", "mark")
        with Workers(1) as workers:
            found = scan(files, options, workers=workers, staging=staging, progress=Silent())
            return found, count_all_lines(found.root, found.decisions, (), (), workers)

    first, lines = survey_again()
    second, again = survey_again()

    assert not read_narrow(read_parts(first.root), 0, "members").is_empty()
    assert first.parts == second.parts
    assert lines.classes == again.classes
