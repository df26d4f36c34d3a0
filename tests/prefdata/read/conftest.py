"""Small real files for the tests of reading."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prefdata.read import Layout, Limits, Pairing, expand_inputs
from tests.prefdata.read.rows import FileRows, read_file

Read = Callable[..., FileRows]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a function that writes bytes to a file and reads it."""

    def write_and_read(
        content: bytes,
        *,
        name: str = "rows.jsonl",
        layout: Layout | None = None,
        pairing: Pairing | None = None,
        limits: Limits | None = None,
    ) -> FileRows:
        path = tmp_path / name
        path.write_bytes(content)
        (file,) = expand_inputs([str(path)])
        rows = read_file(
            file, layout=layout, pairing=pairing or Pairing(), limits=limits or Limits()
        )
        rows.records.validate(full=True)
        rows.rejected.validate(full=True)
        return rows

    return write_and_read
