"""Content hash: equal for builds that train the same, different for others."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pytest

import prefdata
from prefdata.config import BuildConfig
from prefdata.store.content import hash_content
from prefdata.store.reader import Build

TOKENIZER = "0" * 64


def rows() -> list[dict[str, Any]]:
    return [
        {"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": f"No idea of {n}."}
        for n in range(40)
    ]


def build(folder: Path, tiny: Path, name: str = "rows.jsonl", **changes: Any) -> Build:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows()))
    values = {"inputs": [str(path)], "tokenizer": str(tiny), "out": folder / "out"}
    return prefdata.build(BuildConfig(**(values | changes)))


def tables(build: Build) -> dict[str, pa.Table]:
    return {split: build.tokens(split) for split in build.splits}


def test_paths_spellings_and_cuts_do_not_count(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(tmp_path / "one", tiny)
    other = shutil.copytree(tiny, tmp_path / "another name")
    second = build(tmp_path / "a" / "b", other, shard_rows=7)
    monkeypatch.chdir(tmp_path / "one")
    third = build(Path("../one"), Path("../another name"), "../one/rows.jsonl", out=Path("third"))

    hashes = {one.manifest.content_hash for one in (first, second, third)}
    assert hashes == {first.content_hash}
    assert len(first.content_hash) == 64
    assert len(second.manifest.shards) > len(first.manifest.shards)


CHANGES: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "a token": lambda rows: rows.with_columns(
        chosen_ids=pl.col("chosen_ids").list.eval(pl.element() + 1)
    ),
    "a boundary": lambda rows: rows.with_columns(
        prompt_ids=pl.concat_list("prompt_ids", pl.col("chosen_ids").list.head(1)),
        chosen_ids=pl.col("chosen_ids").list.slice(1),
    ),
    "a label": lambda rows: rows.with_columns(chosen_ids="rejected_ids", rejected_ids="chosen_ids"),
    "a weight": lambda rows: rows.with_columns(
        weight=pl.when(pl.int_range(pl.len()) == 3).then(0.5).otherwise("weight").cast(pl.Float32)
    ),
    "a margin": lambda rows: rows.with_columns(margin=pl.lit(0.0, pl.Float32)),
    "a rank": lambda rows: rows.with_columns(chosen_rank=pl.lit(1, pl.Int16)),
    "a mask": lambda rows: rows.with_columns(
        chosen_mask=pl.col("chosen_ids").list.eval(pl.element() >= 0)
    ),
    "an id": lambda rows: rows.with_columns(pair_id=pl.lit(b"0" * 16), group_id=pl.col("group_id")),
    "an order": lambda rows: rows.reverse(),
    "a row": lambda rows: rows.head(-1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_everything_that_is_trained_counts(change: str, tiny: Path, tmp_path: Path) -> None:
    made = build(tmp_path, tiny)
    train = made.tokens("train")
    plain = train.cast(pa.schema([(f.name, _plain(f.type)) for f in train.schema]))
    changed = CHANGES[change](pl.DataFrame(plain)).to_arrow().cast(train.schema)
    whole = {"tokenizer_sha256": TOKENIZER}

    assert hash_content([("train", changed)], **whole) != hash_content([("train", train)], **whole)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return a type without the widths and null flags that polars does not have."""
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind


def test_a_split_and_a_tokenizer_count(tiny: Path, tmp_path: Path) -> None:
    made = tables(build(tmp_path, tiny))
    moved = {"train": made["test"], "test": made["train"]}
    whole = hash_content(made.items(), tokenizer_sha256=TOKENIZER)

    assert hash_content(moved.items(), tokenizer_sha256=TOKENIZER) != whole
    assert hash_content([("train", made["train"])], tokenizer_sha256=TOKENIZER) != whole
    assert hash_content(made.items(), tokenizer_sha256="1" * 64) != whole


def test_cuts_inside_a_table_do_not_count(tiny: Path, tmp_path: Path) -> None:
    train = build(tmp_path, tiny).tokens("train")
    cut = [("train", part) for part in (train.slice(0, 5), train.slice(5, 1), train.slice(6))]

    assert hash_content(cut, tokenizer_sha256=TOKENIZER) == hash_content(
        [("train", train)], tokenizer_sha256=TOKENIZER
    )


def test_a_build_does_not_contain_the_place_where_it_was_made(tiny: Path, tmp_path: Path) -> None:
    secret = "secretplace"
    tokenizer = shutil.copytree(tiny, tmp_path / secret / "tok")
    places = [tmp_path / secret / side for side in "ab"]
    for place in places:
        place.mkdir()
        some = rows()[:30] if place.name == "a" else [*rows()[10:], {"prompt": 1}]
        (place / "same.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in some))
    (tmp_path / secret / "held.jsonl").write_bytes(orjson.dumps(rows()[0]) + b"\n")
    made = prefdata.build(
        BuildConfig(
            inputs=[str(place / "*.jsonl") for place in places],
            tokenizer=str(tokenizer),
            evaluations=[str(tmp_path / secret / "held.jsonl")],
            out=tmp_path / secret / "out",
        )
    )
    names = [one.name for one in made.manifest.inputs]
    texts = [path.read_bytes() for path in made.path.rglob("*.*") if path.suffix != ".parquet"]
    parquet = [pl.read_parquet(path) for path in made.path.rglob("*.parquet")]

    assert all(name.startswith("same.jsonl@") for name in names)
    assert len(set(names)) == 2
    assert not [text for text in texts if secret.encode() in text]
    assert not [frame for frame in parquet if secret in repr(frame.to_dicts())]
    assert made.manifest.config["inputs"] == names
    assert made.manifest.libraries["pyarrow"] == pa.__version__


def test_show_finds_the_tokenizer_that_a_build_does_not_place(tiny: Path, tmp_path: Path) -> None:
    made = build(tmp_path, tiny)
    command = [sys.executable, "-m", "prefdata", "show", str(made.path), "--row", "0"]
    known = subprocess.run(command, capture_output=True, text=True, check=False)
    nowhere = {"XDG_CACHE_HOME": str(tmp_path / "empty"), "HF_HUB_OFFLINE": "1", "PATH": "/bin"}
    unknown = subprocess.run(command, capture_output=True, text=True, check=False, env=nowhere)
    named = subprocess.run(
        [*command, "--tokenizer", str(tiny)],
        capture_output=True,
        text=True,
        check=False,
        env=nowhere,
    )

    assert (known.returncode, named.returncode, unknown.returncode) == (0, 0, 2)
    assert named.stdout == known.stdout
    assert "[E123]" in unknown.stderr
