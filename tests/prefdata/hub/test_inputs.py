"""Sets of the Hub as inputs: by name, by split, by file; the same pairs as from files on disk."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import polars as pl
import pytest
from click.testing import CliRunner, Result

import prefdata
from prefdata.cli import main
from prefdata.hub.inputs import is_hub_name, origin_of
from prefdata.store.reader import Build
from tests.hub import TOKEN, FakeHub, use_loopback

NAME = "org/raw"
REPO = f"datasets/{NAME}"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        yield server


@pytest.fixture(autouse=True)
def on_loopback(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_loopback(hub, monkeypatch, tmp_path)


def lines(start: int, stop: int) -> bytes:
    rows = [
        {"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": f"Who knows {n}?"}
        for n in range(start, stop)
    ]
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def table(start: int, stop: int, path: Path) -> bytes:
    pl.read_ndjson(lines(start, stop)).write_parquet(path)
    return path.read_bytes()


def prefdata_of(words: list[str]) -> Result:
    done = CliRunner().invoke(main, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert TOKEN not in done.output
    return done


def build(names: list[str], tiny: Path, out: Path) -> Build:
    words = ["build", *names, "--tokenizer", str(tiny), "-o", str(out)]
    done = prefdata_of(words)
    assert done.exit_code == 0, done.output
    return prefdata.open(out)


def test_a_set_by_name_equals_its_files_with_its_own_splits(
    hub: FakeHub, tiny: Path, tmp_path: Path
) -> None:
    files = {
        "data/train_prefs-00000-of-00001.parquet": table(0, 40, tmp_path / "a"),
        "data/test_prefs-00000-of-00001.parquet": table(40, 50, tmp_path / "b"),
    }
    sha = hub.create(REPO, files)
    for name, data in files.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(data)
    here = build([str(tmp_path / "local" / "data" / "*")], tiny, tmp_path / "here")
    there = build([NAME], tiny, tmp_path / "there")
    pinned = build([f"hf://datasets/{NAME}@{sha}"], tiny, tmp_path / "pinned")

    assert there.splits.keys() == {"train", "test"}
    assert there.content_hash == here.content_hash == pinned.content_hash
    names = {one.name for one in there.manifest.inputs}
    assert names == {f"hf://datasets/{NAME}@{sha}/{name}" for name in files}
    assert there.manifest.hash == pinned.manifest.hash


def test_one_split_one_config_and_one_file_are_named(
    hub: FakeHub, tiny: Path, tmp_path: Path
) -> None:
    card = (
        b"---\nconfigs:\n- config_name: one\n  data_files:\n  - split: train\n    path: a.jsonl\n"
        b"  - split: test\n    path: b.jsonl\n- config_name: two\n  data_files: c.jsonl\n---\n"
    )
    files = {"a.jsonl": lines(0, 30), "b.jsonl": lines(30, 40), "c.jsonl": lines(50, 70)}
    hub.create(REPO, {"README.md": card, **files})
    of_split = build([f"hf://datasets/{NAME}/one:test"], tiny, tmp_path / "1")
    of_config = build([f"hf://datasets/{NAME}/two"], tiny, tmp_path / "2")
    of_file = build([f"hf://datasets/{NAME}/c.jsonl"], tiny, tmp_path / "3")
    unclear = prefdata_of(["validate", NAME])
    wrong = prefdata_of(["validate", f"hf://datasets/{NAME}/one:dev"])

    assert sum(seal.rows for seal in of_split.splits.values()) == 10
    assert of_config.content_hash == of_file.content_hash
    assert (unclear.exit_code, wrong.exit_code) == (2, 2)
    assert "[E213]" in unclear.output
    assert "'one', 'two'" in unclear.output
    assert "has no split dev; it has train, test [E213]" in wrong.output


def test_several_splits_of_one_kind_are_refused(hub: FakeHub) -> None:
    names = ("train_prefs", "train_sft", "test_prefs")
    hub.create(REPO, {f"data/{name}-00000-of-00001.jsonl": lines(0, 9) for name in names})
    unclear = prefdata_of(["validate", NAME])
    start = f"hf://datasets/{NAME}"
    words = ["validate", f"{start}:train_prefs", "--split", f"test={start}:test_prefs"]
    clear = prefdata_of([*words, "--leaks", "report"])

    assert "train_prefs, train_sft" in unclear.output
    assert "[E213]" in unclear.output
    assert clear.exit_code in (0, 1), clear.output
    assert "The inputs came in splits, which are kept." in clear.output


def test_a_changed_or_missing_file_is_refused(hub: FakeHub) -> None:
    hub.create(REPO, {"data.jsonl": lines(0, 9)})
    hub.faults = {"resolve/": "flip"}
    flipped = prefdata_of(["validate", f"hf://datasets/{NAME}/data.jsonl"])
    hub.faults = {}
    again = prefdata_of(["validate", f"hf://datasets/{NAME}/data.jsonl"])
    missing = prefdata_of(["validate", "org/nothing"])

    assert "[E209]" in flipped.output
    assert again.exit_code == 0, again.output
    assert "is not a path here, and not on the Hub" in missing.output
    assert "[E201]" in missing.output


@pytest.mark.parametrize(
    ("name", "is_named"),
    [
        ("org/name", True),
        ("org/name@v1.2", True),
        ("hf://datasets/org/name/config:train", True),
        ("data/train.jsonl", False),
        ("tests/nothing", False),
        ("name", False),
        ("./org/name", False),
        ("/org/name", False),
        ("a/b/c", False),
        ("org/*.x", False),
        ("org/name.PARQUET", False),
    ],
)
def test_a_path_is_never_taken_for_a_name(
    name: str, is_named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])

    assert is_hub_name(name) is is_named


def test_an_origin_is_read_from_the_place_in_the_cache() -> None:
    place = f"/x/datasets--a-b--c--d/snapshots/{'0' * 40}/data/e.jsonl"

    assert origin_of(Path(place)) == f"hf://datasets/a-b/c--d@{'0' * 40}/data/e.jsonl"
    assert origin_of(Path("/x/data/e.jsonl")) is None
