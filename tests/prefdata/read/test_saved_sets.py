"""Sets that `datasets` saved to disk: read like their rows, and refused if truncated."""

import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

import prefdata
from prefdata.errors import PrefdataError
from prefdata.read import InputFile, Limits, OpenFile
from prefdata.store.reader import Build


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": f"What is {n}?"}],
            "chosen": [{"role": "assistant", "content": f"It is {n}."}],
            "rejected": [{"role": "assistant", "content": f"Who knows {n}?"}],
        }
        for n in range(start, stop)
    ]


def build(inputs: Path, tiny: Path, out: Path) -> Build:
    return prefdata.build(
        prefdata.BuildConfig(inputs=[str(inputs)], tokenizer=str(tiny), out=out, shard_rows=20)
    )


def write_lines(path: Path, some: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in some))
    return path


def test_a_saved_set_is_built_as_its_rows_are(tiny: Path, tmp_path: Path) -> None:
    Dataset.from_list(rows(0, 50)).save_to_disk(tmp_path / "saved", num_shards=3)
    plain = build(write_lines(tmp_path / "rows.jsonl", rows(0, 50)), tiny, tmp_path / "a")
    saved = build(tmp_path / "saved", tiny, tmp_path / "b")

    assert saved.content_hash == plain.content_hash
    assert len(saved.manifest.inputs) == 3


def test_a_saved_dictionary_keeps_its_splits(tiny: Path, tmp_path: Path) -> None:
    whole = DatasetDict(train=Dataset.from_list(rows(0, 40)), test=Dataset.from_list(rows(40, 50)))
    whole.save_to_disk(tmp_path / "saved")
    write_lines(tmp_path / "lines/train.jsonl", rows(0, 40))
    write_lines(tmp_path / "lines/test.jsonl", rows(40, 50))
    plain = build(tmp_path / "lines/*.jsonl", tiny, tmp_path / "a")
    saved = build(tmp_path / "saved", tiny, tmp_path / "b")

    assert saved.splits.keys() == {"train", "test"}
    assert saved.content_hash == plain.content_hash


def test_a_build_is_a_dataset_and_built_from_it_the_same(tiny: Path, tmp_path: Path) -> None:
    first = build(write_lines(tmp_path / "rows.jsonl", rows(0, 50)), tiny, tmp_path / "a")
    splits = {split: first.dataset(split) for split in first.splits}
    assert {split: len(one) for split, one in splits.items()} == {
        split: seal.rows for split, seal in first.splits.items()
    }
    assert splits["train"][0]["prompt"] == first.text("train")["prompt"][0].as_py()
    assert len(first.frame("train")) == first.splits["train"].rows
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    second = build(tmp_path / "saved", tiny, tmp_path / "b")

    assert second.content_hash == first.content_hash


def read(path: Path) -> int:
    opened = OpenFile(InputFile(path, path.name, 0), Limits())
    return sum(block.batch.num_rows for block in opened)  # type: ignore[union-attr]


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_a_stream_that_is_cut_anywhere_is_refused(compression: str | None, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows(0, 60))
    path, options = tmp_path / "rows.arrow", pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(path, table.schema, options=options) as writer:
        for batch in table.to_batches(max_chunksize=20):
            writer.write_batch(batch)
    data = path.read_bytes()
    assert read(path) == 60

    for end in {*range(8, len(data), len(data) // 60), *range(len(data) - 40, len(data))}:
        path.write_bytes(data[:end])
        with pytest.raises(PrefdataError) as caught:
            read(path)
        assert caught.value.code in ("E117", "E114"), end
    path.write_bytes(data + b"x")
    with pytest.raises(PrefdataError, match="E114"):
        read(path)


def test_a_list_of_files_that_is_wrong_is_refused(tiny: Path, tmp_path: Path) -> None:
    Dataset.from_list(rows(0, 30)).save_to_disk(tmp_path / "saved", num_shards=2)
    state = json.loads((tmp_path / "saved/state.json").read_text())
    for number, names in enumerate((["gone.arrow"], ["../state.json"], None, [1])):
        folder = shutil.copytree(tmp_path / "saved", tmp_path / f"wrong-{number}")
        files = None if names is None else [{"filename": name} for name in names]
        (folder / "state.json").write_text(json.dumps(state | {"_data_files": files}))
        with pytest.raises(PrefdataError, match="E100"):
            build(folder, tiny, tmp_path / "out")
    (tmp_path / "saved/data-00001-of-00002.arrow").unlink()
    with pytest.raises(PrefdataError, match="E100"):
        build(tmp_path / "saved", tiny, tmp_path / "out")
