"""Exclusion of pairs by id, such as the suspects that `dpo-score` lists."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from prefdata.errors import UsageError
from prefdata.records.keys import PAIR_ID

ID_DIGITS = 32


def read_exclusions(paths: Sequence[Path]) -> pl.DataFrame:
    """Return the distinct ids in files, as columns PAIR_ID.

    Each line is JSON with a `pair_id`, or one id.
    """
    ids = sorted({_id_of(path, number, line) for path in paths for number, line in _lines(path)})
    halves = np.frombuffer(b"".join(ids), ">u8").reshape(-1, 2).astype(np.uint64)
    return pl.DataFrame({name: halves[:, at] for at, name in enumerate(PAIR_ID)})


def _lines(path: Path) -> list[tuple[int, bytes]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise UsageError("C119", str(path), problem, "name a file with ids of pairs") from error
    return [(at, line) for at, line in enumerate(data.split(b"\n"), start=1) if line.strip()]


def _id_of(path: Path, number: int, line: bytes) -> bytes:
    text = line.strip().decode(errors="replace")
    try:
        named = str(orjson.loads(text)["pair_id"]) if text.startswith("{") else text
        found = bytes.fromhex(named)
    except (ValueError, KeyError, TypeError):
        found = b""
    if len(found) != ID_DIGITS // 2:
        remedy = f'write {{"pair_id": …}} or the {ID_DIGITS} hex digits of the id'
        raise UsageError("C119", f"{path}:{number}", "has no pair id", remedy)
    return found
