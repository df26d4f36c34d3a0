"""Rows in memory as inputs: written to temporary files, and read like any other file.

So they pass the same checks, have a sha256 in the manifest, and give the same build as a file of
these rows. Each file is named after its split, or `rows`.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pyarrow as pa

from prefdata.errors import UsageError
from prefdata.hub.inputs import ROWS_FOLDER
from prefdata.read.files.csv_dialect import ending_of, separated_by
from prefdata.read.files.formats import HEAD_BYTES
from prefdata.records.sources import (
    STDIN,
    Inputs,
    Source,
    as_sources,
    is_list_of_sources,
    list_sources,
)
from prefdata.records.split_names import kind_of

Rows = Any
"""A `datasets.Dataset` or `IterableDataset`, an object that exports an Arrow stream (a polars or
pandas frame, an Arrow table), or dicts."""
Data = Inputs | str | Path | Source | Rows | Mapping[str, Rows]
"""Inputs: names, sources, rows, or a mapping from splits to names or rows, such as a
`DatasetDict`."""
_BATCH = 1000


@contextmanager
def named_inputs(data: Data) -> Iterator[Inputs]:
    """Return inputs by name: names unchanged, rows as files that are removed at the end.

    Raises UsageError: E106 for values that are not rows, E213 if two splits are of one kind.
    """
    names = _names_of(data)
    if names is not None:
        yield names
        return
    if isinstance(data, Mapping) and any(_names_of(one) is not None for one in data.values()):
        problem = "have file names for one split, and rows for another"
        raise UsageError("E106", "the inputs", problem, "give all by name, or all as rows")
    with TemporaryDirectory(prefix=ROWS_FOLDER) as folder:
        yield _write_all(data, Path(folder))


@contextmanager
def spooled(inputs: Inputs | str | Source, stream: IO[bytes]) -> Iterator[list[Source]]:
    """Return inputs in which `-` is a file that has the content of `stream` until the end."""
    sources = as_sources(inputs)
    if all(one.path != STDIN for one in sources):
        yield sources
        return
    with TemporaryDirectory(prefix=ROWS_FOLDER) as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file)
        with path.open("rb") as file:
            separated = separated_by(file.read(HEAD_BYTES), "stdin")
        if separated is not None:  # a file's name says so, and a stream has none
            path = path.rename(path.with_suffix(ending_of(separated[0])))
        yield [one.at(str(path)) if one.path == STDIN else one for one in sources]


def _names_of(data: Data) -> Inputs | None:
    """Return inputs given by name, as strings; None for rows."""
    if isinstance(data, str | Path | Source):
        return as_sources(str(data) if isinstance(data, Path) else data)
    if is_list_of_sources(data):
        return [one if isinstance(one, Source) else Source(**one) for one in list_sources(data)]
    if isinstance(data, Mapping):
        named = {split: _names_of(one) for split, one in data.items()}
        if any(one is None for one in named.values()):
            return None
        return {split: _plain_names(one or ()) for split, one in named.items()}
    is_list = isinstance(data, list | tuple) and all(isinstance(one, str | Path) for one in data)
    return [str(one) for one in data] if is_list else None


def _plain_names(names: Inputs) -> list[str]:
    """Return the names of one split; raise E106 for sources, which have their own `split`."""
    sources = as_sources(names)
    if any(one != Source(path=one.path) for one in sources):
        remedy = "give a list of sources, each with its `split`"
        raise UsageError("E106", "the inputs", "have sources in a mapping of splits", remedy)
    return [one.path for one in sources]


def _write_all(data: Rows | Mapping[str, Rows], folder: Path) -> Inputs:
    if not isinstance(data, Mapping):
        return [str(_write(data, folder / "rows"))]
    kinds = {split: kind_of(split) or split for split in data}
    same = [split for split in kinds if list(kinds.values()).count(kinds[split]) > 1]
    if same:
        problem = f"have several splits of one kind: {', '.join(same)}"
        raise UsageError("E213", "the inputs", problem, "give one of each, under its name here")
    return {kinds[split]: [str(_write(rows, folder / split))] for split, rows in data.items()}


def _write(rows: Rows, path: Path) -> Path:
    """Write rows as an Arrow file if they have columns, otherwise as JSON Lines."""
    batches = _batches_of(rows)
    if batches is None:
        return _write_lines(rows, path.with_name(f"{path.name}.jsonl"))
    path = path.with_name(f"{path.name}.arrow")
    first = next(batches, None)
    if first is None:
        return _write_lines([], path.with_suffix(".jsonl"))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        writer.write(first)
        for batch in batches:
            writer.write(batch)
    return path


def _batches_of(rows: Rows) -> Iterator[Any] | None:
    """Return the Arrow batches or tables of rows that have columns; None for other rows."""
    batches: Iterator[Any] | None = None
    if hasattr(rows, "__arrow_c_stream__"):
        batches = iter(pa.RecordBatchReader.from_stream(rows))
    elif hasattr(rows, "with_format") and hasattr(rows, "num_rows"):  # a Dataset, on disk or not
        batches = rows.with_format("arrow").iter(batch_size=_BATCH)
    return batches


def _write_lines(rows: Iterable[Any], path: Path) -> Path:
    if not isinstance(rows, Iterable) or isinstance(rows, str | bytes):
        problem = f"is a {type(rows).__name__}, which contains no rows"
        remedy = "give names of files, a Dataset, a frame, an Arrow table or dicts"
        raise UsageError("E106", path.stem, problem, remedy)
    with path.open("w", encoding="ascii") as file:
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                problem = f"is a {type(row).__name__}"
                raise UsageError("E106", f"{path.stem}[{number}]", problem, "give dicts as rows")
            try:
                file.write(json.dumps(dict(row), default=_plain) + "\n")
            except (TypeError, ValueError, RecursionError) as error:
                problem = f"cannot be written as JSON: {error}"
                remedy = "give texts, numbers, lists and dicts"
                raise UsageError("E106", f"{path.stem}[{number}]", problem, remedy) from error
    return path


def _plain(value: Any) -> Any:
    """Return an array as a list, and a date or time as the same text as a table cell."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, date | time):
        return str(value)
    message = f"it contains a {type(value).__name__}"
    raise TypeError(message)
