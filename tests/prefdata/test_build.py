"""Reproducibility: a build is a function of its inputs, config and tokenizer, nothing else."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import prefdata
from prefdata.config import make_config
from prefdata.errors import EmptyError, LockedError, PrefdataError, UsageError
from prefdata.store.commit import lock_folder
from prefdata.tokens.tokenizer import load_tokenizer_spec
from tests.real_data import HH_SAMPLE, HH_WHOLE

ROOT = Path(__file__).resolve().parents[2]


def config(rows: Path, tokenizer: Path, out: Path, **changes: Any) -> prefdata.BuildConfig:
    values = {
        "inputs": [str(rows)],
        "tokenizer": str(tokenizer),
        "out": out,
        "test_fraction": 0.2,
        "shard_rows": 8,
        **changes,
    }
    return make_config(values, place="test")


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("workers", [2, 4])
def test_output_is_byte_identical_with_any_number_of_workers(
    rows_file: Path, tiny: Path, tmp_path: Path, workers: int
) -> None:
    prefdata.build(config(rows_file, tiny, tmp_path / "one" / "out", workers=1))
    prefdata.build(config(rows_file, tiny, tmp_path / "many" / "out", workers=workers))

    assert tree(tmp_path / "one" / "out") == tree(tmp_path / "many" / "out")


def test_output_is_byte_identical_with_any_hash_seed(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    hashes = set()
    for seed in ("0", "1"):
        out = tmp_path / seed
        command = [
            sys.executable, "-m", "prefdata", "build", str(rows_file),
            "--tokenizer", str(tiny), "-o", str(out),
        ]  # fmt: skip
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        hashes.add(prefdata.open(out).manifest.hash)

    assert len(hashes) == 1


def test_rows_of_text_and_tokens_match_and_groups_stay_together(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    build = prefdata.build(config(rows_file, tiny, tmp_path / "out"))
    seen: set[bytes] = set()
    for split in build.splits:
        tokens, text = build.tokens(split), build.text(split)
        assert [i.hex() for i in tokens["pair_id"].to_pylist()] == text["pair_id"].to_pylist()
        groups = tokens["group_id"].to_pylist()
        runs = [g for n, g in enumerate(groups) if n == 0 or groups[n - 1] != g]
        assert len(runs) == len(set(runs)), "the rows of a group are one run"
        assert seen.isdisjoint(runs), "no prompt is in two splits"
        seen |= set(runs)

    assert sum(split.rows for split in build.splits.values()) == 60
    assert len(build.manifest.shards) > 4


def test_a_finished_build_is_opened_and_another_one_refused(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = prefdata.build(config(rows_file, tiny, out))
    before = (out / "manifest.json").stat()

    assert prefdata.build(config(rows_file, tiny, out, workers=2)) == first
    assert (out / "manifest.json").stat() == before
    other = config(rows_file, tiny, out, seed=1)
    with pytest.raises(UsageError, match="--replace") as caught:
        prefdata.build(other)
    assert caught.value.code == "E142"

    replaced = prefdata.build(other, replace=True)
    assert replaced.manifest.hash != first.manifest.hash
    listed = {entry.path for entry in [*replaced.manifest.shards, *replaced.manifest.files]}
    assert set(tree(out)) == listed | {"manifest.json", "README.md", "report.html"}


def test_a_damaged_build_is_refused_until_it_is_replaced(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    wanted = config(rows_file, tiny, tmp_path / "out")
    build = prefdata.build(wanted)
    shard = build.shards("train")[0].path
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    with pytest.raises(UsageError, match="damaged"):
        prefdata.build(wanted)
    assert prefdata.build(wanted, replace=True) == build
    assert shard.read_bytes() == whole


def test_a_folder_with_other_things_in_it_is_refused(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        prefdata.build(config(rows_file, tiny, tmp_path))

    assert caught.value.code == "E143"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_second_builder_is_sent_away(rows_file: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with lock_folder(out), pytest.raises(LockedError):
        prefdata.build(config(rows_file, tiny, out))

    prefdata.build(config(rows_file, tiny, out))


def test_nothing_is_left_of_a_build_without_rows(tiny: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    same = {"prompt": "a", "chosen": "b", "rejected": "b"}
    rows.write_text(f"{same}\n".replace("'", '"'))

    with pytest.raises(EmptyError) as caught:
        prefdata.build(config(rows, tiny, tmp_path / "out"))
    assert (caught.value.code, caught.value.exit_code) == ("E120", 3)
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_if_a_template_is_missing(
    rows_file: Path, tiny_without_template: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        prefdata.build(config(rows_file, tiny_without_template, tmp_path / "out"))

    assert caught.value.code == "C115"
    assert not (tmp_path / "out").exists()


def test_a_pair_that_is_refused_late_is_counted_with_its_line(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    whole = prefdata.build(config(rows_file, tiny, tmp_path / "whole")).tokens("train")
    limit = sorted(
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        for row in whole.to_pylist()
    )[-1]
    build = prefdata.build(config(rows_file, tiny, tmp_path / "out", max_length=limit - 1))
    lines = build.manifest.lines

    assert lines.lines == 60 == lines.kept + lines.rejected
    assert 0 < lines.rejected == build.rejected().num_rows
    assert build.manifest.funnel[-1].dropped == {"PD710": lines.rejected}
    assert set(build.rejected()["code"].to_pylist()) == {"PD710"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_lenght": 3}, "max_lenght: no such key; did you mean 'max_length'? [C101]"),
        ({"max_length": 0}, "max_length: input should be greater than 0"),
        ({"pairing": {"strategie": "all"}}, "no such key; did you mean 'strategy'?"),
        ({"severity": {"PD702": "W"}}, "severity: PD702 cannot be lowered"),
        ({"chat_template_kwargs": {"tools": []}}, "'tools' is set by the build itself"),
        ({"length_policy": "cut"}, "length_policy: input should be 'reject'"),
    ],
)
def test_a_wrong_config_is_one_line_with_its_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PrefdataError) as caught:
        config(Path("rows"), Path("tokenizer"), Path("out"), **changes)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_ignores_what_says_only_where_and_how_fast() -> None:
    rows, tokenizer = Path("rows"), Path("tokenizer")
    one = config(rows, tokenizer, Path("a"), workers=1)
    other = config(rows, tokenizer, Path("b"), workers=3)

    assert one.identity == other.identity
    assert one.identity != config(rows, tokenizer, Path("a"), seed=9).identity


@pytest.mark.parametrize(
    ("path", "count"), [(HH_SAMPLE, 200), (HH_WHOLE, 2312)], ids=["200", "all"]
)
def test_every_line_of_a_real_set_is_accounted_for(
    path: Path, count: int, tiny: Path, tmp_path: Path
) -> None:
    if not path.exists():
        pytest.skip(f"{path.name} is not next to this checkout")
    build = prefdata.build(config(path, tiny, tmp_path / "out", shard_rows=1000))
    lines = build.manifest.lines
    codes = build.rejected()["code"].to_pylist()

    assert (lines.lines, lines.kept, lines.rejected) == (count, count - 9, 9)
    assert sorted(codes) == ["PD202"] * 4 + ["PD207"] * 5


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_a_build_imports_no_heavy_library(rows_file: Path, tiny: Path, tmp_path: Path) -> None:
    load_tokenizer_spec(str(tiny))  # cached, so that transformers is not needed
    script = (
        "import sys, prefdata\n"
        "from prefdata.config import make_config\n"
        f"values = dict(inputs=[{str(rows_file)!r}], tokenizer={str(tiny)!r}, out='out')\n"
        "prefdata.build(make_config(values, place='test'))\n"
        "print(*({'pandas', 'torch', 'transformers', 'datasets'} & sys.modules.keys()))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == []
