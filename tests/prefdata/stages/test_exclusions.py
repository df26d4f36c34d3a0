"""Exclusion of pairs by id: they are counted as filtered, and can be found again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import prefdata
from prefdata.config import BuildConfig
from prefdata.errors import UsageError


@pytest.fixture
def build_of(rows_file: Path, tiny: Path, tmp_path: Path) -> Callable[..., Any]:
    def make(name: str, **changes: Any) -> Any:
        config = BuildConfig(
            inputs=[str(rows_file)], tokenizer=str(tiny), out=tmp_path / name, **changes
        )
        return prefdata.build(config)

    return make


def ids_of(build: Any) -> list[str]:
    return [
        row["pair_id"].hex() for split in build.splits for row in build.tokens(split).to_pylist()
    ]


@pytest.mark.parametrize("form", ["plain", "json"])
def test_a_pair_is_excluded_by_its_id_and_found_again(
    form: str, build_of: Callable[..., Any], tmp_path: Path
) -> None:
    whole = build_of("whole")
    first, *others = ids_of(whole)
    line = first if form == "plain" else json.dumps({"pair_id": first, "margin": -1.0})
    (tmp_path / "out.txt").write_text(f"{line}\n\n{'0' * 32}\n")
    build = build_of("part", exclude=[str(tmp_path / "out.txt")])

    assert sorted(ids_of(build)) == sorted(others)
    lines, before = build.manifest.lines, whole.manifest.lines
    assert (lines.filtered, lines.kept) == (1, before.kept - 1)
    assert lines.lines == (
        lines.blank + lines.kept + lines.duplicates + lines.filtered + lines.rejected
    )
    rejected = parquet.read_table(build.path / "rejected").to_pylist()
    assert [row["code"] for row in rejected].count("PD409") == 1
    (stage,) = [stage for stage in build.manifest.funnel if stage.stage == "exclusions"]
    assert stage.dropped == {"PD409": 1}


def test_other_ids_make_another_build(build_of: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("0" * 32)
    build_of("out", exclude=[str(tmp_path / "ids")])
    (tmp_path / "ids").write_text("1" * 32)

    with pytest.raises(UsageError, match="E142"):
        build_of("out", exclude=[str(tmp_path / "ids")])


@pytest.mark.parametrize("line", ["xyz", '{"id": 1}', "ab" * 15, '{"pair_id": 5}', "g" * 32])
def test_a_line_without_an_id_is_named(
    line: str, build_of: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "ids").write_text(f"{'0' * 32}\n{line}\n")

    with pytest.raises(UsageError, match=r"ids:2: has no pair id.*C119"):
        build_of("out", exclude=[str(tmp_path / "ids")])
