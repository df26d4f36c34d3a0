"""Preserved output: a killed build's work after a later mistake, an old build until the new one."""

import errno
import gzip
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

import prefdata
from prefdata.config import BuildConfig
from prefdata.errors import PrefdataError
from prefdata.store.staging import FOLDER
from tests.census import snapshot
from tests.effort import times
from tests.prefdata.conftest import chat_rows, write_rows
from tests.prefdata.test_untouched import Killed


def config(rows: Path, tokenizer: Path, out: Path, **changes: object) -> BuildConfig:
    inputs = changes.pop("inputs", [str(rows)])
    return BuildConfig(inputs=inputs, tokenizer=str(tokenizer), out=out, **changes)  # type: ignore[arg-type]


def spoil(rows: Path, name: str, change: Callable[[bytes], bytes]) -> list[str]:
    """Write another input next to the rows."""
    path = rows.with_name(name)
    path.write_bytes(change(rows.read_bytes()))
    return [str(rows), str(path)]


SAME = b'{"prompt": "a", "chosen": "b", "rejected": "b"}\n'
LATE: dict[str, Callable[[Path], dict[str, object]]] = {
    "cut gzip": lambda r: {"inputs": spoil(r, "a.jsonl.gz", lambda d: gzip.compress(d)[:-9])},
    "damaged gzip": lambda r: {
        "inputs": spoil(r, "a.jsonl.gz", lambda d: flip(gzip.compress(d), -6))
    },
    "no gzip at all": lambda r: {"inputs": spoil(r, "a.jsonl.gz", lambda _: b"\x1f\x8bno")},
    "cut zstd": lambda r: {"inputs": spoil(r, "a.jsonl.zst", lambda d: zstandard.compress(d)[:-3])},
    "damaged zstd": lambda r: {
        "inputs": spoil(r, "a.jsonl.zst", lambda d: flip(zstandard.compress(d), 20))
    },
    "no Parquet": lambda r: {"inputs": spoil(r, "a.parquet", lambda _: b"PAR1 no PAR1")},
    "no Arrow": lambda r: {"inputs": spoil(r, "a.arrow", lambda _: b"ARROW1")},
    "no such columns": lambda r: {"inputs": spoil(r, "a.jsonl", lambda _: b'{"x": 1}\n')},
    "no pair": lambda r: {"inputs": spoil(r, "a.jsonl", lambda _: SAME)[1:]},
    "nothing": lambda r: {"inputs": spoil(r, "a.jsonl", lambda _: b"")[1:]},
    "too long for the limit": lambda _: {"max_length": 1},
    "a layout of other rows": lambda _: {"layout": "helpsteer2-ratings"},
}


def flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("how", LATE)
def test_a_late_error_keeps_what_a_killed_build_had(how: str, tiny: Path, tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "rows.jsonl", chat_rows(12)), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prefdata.build(config(rows, tiny, out), progress=Killed())
    before = snapshot(tmp_path / "out")

    with pytest.raises(PrefdataError):
        prefdata.build(config(rows, tiny, out, **LATE[how](rows)))

    assert snapshot(out) == before
    inodes = inodes_of_finished(out)
    assert inodes
    with pytest.raises(KeyboardInterrupt):
        prefdata.build(config(rows, tiny, out), progress=Killed())
    assert inodes_of_finished(out) == inodes, "the chunks are reused, not made again"


def inodes_of_finished(out: Path) -> dict[str, int]:
    """Return the inode of each file that the journal of a killed build names."""
    lines = (out / FOLDER / "journal.jsonl").read_bytes().splitlines()
    steps = [json.loads(line) for line in lines if line.startswith(b"{")]
    names = [path for step in steps for path, *_ in step["files"]]
    return {name: (out / FOLDER / name).stat().st_ino for name in names}


def test_two_killed_builds_in_turn_are_both_resumed(tiny: Path, tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "rows.jsonl", chat_rows(12)), tmp_path / "out"
    found: dict[int, list[dict[str, int]]] = {0: [], 1: []}
    for seed in (0, 1, 0, 1):
        with pytest.raises(KeyboardInterrupt):
            prefdata.build(config(rows, tiny, out, seed=seed), progress=Killed())
        found[seed].append(inodes_of_finished(out))

    assert all(first and first == second for first, second in found.values())
    prefdata.build(config(rows, tiny, out))
    assert not (out / FOLDER).exists()


class Stop:
    """Hook that raises at the nth rename below a directory; it can be disarmed, not removed."""

    def __init__(self) -> None:
        self.folder, self.left, self.error = "", -1, BaseException()
        self.has_fired = False
        sys.addaudithook(self._see)

    def arm(self, folder: Path, number: int, error: BaseException) -> None:
        self.folder, self.left, self.error = str(folder), number, error
        self.has_fired = False

    def _see(self, event: str, about: tuple[object, ...]) -> None:
        if self.left < 0 or event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if str(about[0]).startswith(self.folder):
            self.left -= 1
            if self.left < 0:
                self.has_fired = True
                raise self.error


STOP = Stop()


@pytest.mark.parametrize("fault", ["a kill", "a full disk"])
def test_an_old_build_or_the_new_one_is_whole_at_any_interruption_of_a_replacement(
    fault: str, tiny: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", chat_rows(12))
    old = prefdata.build(config(rows, tiny, tmp_path / "whole", test_fraction=0.0))
    new = prefdata.build(config(rows, tiny, tmp_path / "new", test_fraction=0.5))
    listed = set(snapshot(new.path))
    stopped, number = 0, 0
    while True:
        out = tmp_path / f"{number}" / "whole"
        shutil.copytree(old.path, out)
        full = OSError(errno.ENOSPC, "No space left on device")
        STOP.arm(out, number, KeyboardInterrupt() if fault == "a kill" else full)
        wanted = config(rows, tiny, out, test_fraction=0.5)
        try:
            prefdata.build(wanted, replace=True)
        except (KeyboardInterrupt, OSError):
            stopped += 1
        if not STOP.has_fired:
            break
        STOP.arm(out, -1, full)
        if fault == "a full disk":
            assert prefdata.open(out).manifest.hash in (old.manifest.hash, new.manifest.hash)
        has_new = (out / "manifest.json").is_file() and hash_of(out) == new.manifest.hash
        if not has_new:
            again = prefdata.build(config(rows, tiny, out, test_fraction=0.0))
            assert again.manifest.hash == old.manifest.hash, number
            assert set(snapshot(old.path)) == set(snapshot(out)), number
        assert prefdata.build(wanted, replace=True).manifest.hash == new.manifest.hash
        assert set(snapshot(out)) == listed, number
        number += times(7, 1)
    assert stopped > times(4, 30)


def hash_of(out: Path) -> str:
    return str(json.loads((out / "manifest.json").read_bytes())["hash"])
