"""Rows in memory as inputs: written to temporary files, and read like any other file.

So they pass the same checks, have a sha256 in the manifest, and give the same build as a file of
these rows. Each file is named after its split, or `rows`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from prefdata.errors import UsageError
from prefdata.hub.inputs import Inputs
from prefdata.records.split_names import kind_of

Rows = Any
"""A `datasets.Dataset` or `IterableDataset`, an object that exports an Arrow stream (a polars or
pandas frame, an Arrow table), or dicts."""
Data = Inputs | str | Path | Rows | Mapping[str, Rows]
"""Inputs: names, rows, or a mapping from splits to either, such as a `DatasetDict`."""
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
    with TemporaryDirectory(prefix="prefdata-rows-") as folder:
        yield _write_all(data, Path(folder))


def is_in_memory(data: Data) -> bool:
    """Return whether inputs are rows, not names."""
    return _names_of(data) is None


def _names_of(data: Data) -> Inputs | None:
    """Return inputs given by name, as strings; None for rows."""
    if isinstance(data, str | Path):
        return [str(data)]
    if isinstance(data, Mapping):
        named = {split: _names_of(one) for split, one in data.items()}
        is_named = all(one is not None for one in named.values())
        return {split: list(one or ()) for split, one in named.items()} if is_named else None
    is_list = isinstance(data, list | tuple) and all(isinstance(one, str | Path) for one in data)
    return [str(one) for one in data] if is_list else None


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
