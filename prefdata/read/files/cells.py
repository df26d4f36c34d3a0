"""Table cells as JSON values, checked by the same rules as JSON rows.

NaN and infinities are R205, U+0000 is R204, text that is not UTF-8 is R202, a duplicate key in a
map is R207. Dates and times that Python cannot represent become text, exact decimals numbers.
"""

import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from prefdata.errors import UsageError
from prefdata.read.faults import RowError
from prefdata.read.files.csv_dialect import require_distinct
from prefdata.read.files.parse_json import Object
from prefdata.read.limits import Limits

MAX_BINARY_WIDTH = 4096
RawRow = tuple[bytes | None, Object | RowError]
"""A row, or its fault and the JSON to keep of it."""
Convert = Callable[[Any], Any]
TEXTS = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def require_readable(schema: pa.Schema, name: str, limits: Limits) -> None:
    """Raise one error for columns that cannot be rows: duplicate, too deep, unsupported type."""
    require_distinct(schema.names, name)
    for field in schema:
        _require_type(field.type, field.name, name, limits.max_depth)


def _require_type(kind: pa.DataType, path: str, name: str, depth: int) -> None:
    if depth <= 0:
        raise UsageError("E166", name, f"the column {path[:80]!r} is nested too deep", _FLATTER)
    foreign = types.is_union(kind) or types.is_run_end_encoded(kind) or types.is_interval(kind)
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    wide = types.is_fixed_size_binary(kind) and kind.byte_width > MAX_BINARY_WIDTH
    nested = types.is_dictionary(kind) and types.is_nested(kind.value_type)
    if foreign or views or wide or nested:
        problem = f"the column {path[:80]!r} has the unsupported type {str(kind)[:80]}"
        raise UsageError("E166", name, problem, "write it as text, numbers, lists or structs")
    if isinstance(kind, pa.BaseExtensionType):
        _require_type(kind.storage_type, path, name, depth)
    elif types.is_dictionary(kind):
        _require_type(kind.value_type, path, name, depth)
    elif types.is_struct(kind):
        require_distinct([field.name for field in kind], f"{name}: column {path[:80]!r}")
    if types.is_nested(kind):
        for field in (kind.field(number) for number in range(kind.num_fields)):
            _require_type(field.type, f"{path}.{field.name}", name, depth - 1)


_FLATTER = "write such columns as JSON text"


def as_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with its text columns as bytes, for batches that are not all UTF-8."""
    arrays = [column.view(_changed(column.type, TEXTS.get)) for column in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def python_rows(batch: pa.RecordBatch, schema: pa.Schema, limits: Limits) -> Iterator[RawRow]:
    """Yield the rows as objects. `schema` is the original one, before `as_bytes`."""
    was_text = batch.schema.types != schema.types
    converts = {
        field.name: convert
        for field in schema
        if (convert := _converter(field.type, was_text=was_text))
    }
    guarded = any(map(_is_suspect, batch.columns))
    for row in _values(batch):
        try:
            for name, convert in converts.items():
                row[name] = convert(row[name])
            if guarded:
                _refuse(row, limits)
        except RowError as fault:
            yield _json(row), fault
        else:
            yield None, row


def _json(row: Object) -> bytes:
    """Return a refused row as JSON to keep; NaN stays visible, bytes are escaped."""

    def shown(value: Any) -> str:
        return value.decode(errors="backslashreplace") if type(value) is bytes else str(value)

    return json.dumps(row, ensure_ascii=False, sort_keys=True, default=shown).encode()


def _values(batch: pa.RecordBatch) -> list[Object]:
    """Return Python values; dates and times that Python cannot represent become text."""
    columns = [
        _cast(column, _changed(column.type, _without_nanoseconds)) for column in batch.columns
    ]
    plain = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    try:
        rows: list[Object] = plain.to_pylist()
    except (ValueError, OverflowError, LookupError, TypeError, pa.ArrowException):
        columns = [_cast(column, _changed(column.type, _timeless)) for column in columns]
        rows = pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()
    return rows


def _without_nanoseconds(kind: pa.DataType) -> pa.DataType | None:
    """Return text as the type for nanoseconds, which Python's datetime does not have."""
    return pa.string() if getattr(kind, "unit", "") == "ns" else None


def _timeless(kind: pa.DataType) -> pa.DataType | None:
    return pa.string() if types.is_temporal(kind) else None


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast after removing time zones, because Arrow may not know them."""
    if column.type == kind:
        return column
    return column.cast(_changed(column.type, _without_zone)).cast(kind)


def _without_zone(kind: pa.DataType) -> pa.DataType | None:
    return pa.timestamp(kind.unit) if types.is_timestamp(kind) else None


def _changed(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType | None]) -> pa.DataType:
    """Return the type with `change` applied to it and to the types inside it."""
    new = change(kind)
    if new is not None:
        return new
    if isinstance(kind, pa.BaseExtensionType):
        return _changed(kind.storage_type, change)
    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _changed(kind.value_type, change))
    return _changed_inside(kind, change) if types.is_nested(kind) else kind


def _changed_inside(
    kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType | None]
) -> pa.DataType:
    if types.is_struct(kind):
        return pa.struct([field.with_type(_changed(field.type, change)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_changed(kind.key_type, change), _changed(kind.item_type, change))
    field = kind.value_field.with_type(_changed(kind.value_type, change))
    if types.is_fixed_size_list(kind):
        return pa.list_(field, kind.list_size)
    return pa.large_list(field) if types.is_large_list(kind) else pa.list_(field)


def _converter(kind: pa.DataType, *, was_text: bool) -> Convert | None:
    """Return a function that converts values to JSON's types, or None if not needed."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_decimal(kind):
        return _number
    if kind in TEXTS:
        return _text if was_text else None
    if types.is_struct(kind):
        inner = {
            field.name: convert
            for field in kind
            if (convert := _converter(field.type, was_text=was_text))
        }
        return _in_struct(inner) if inner else None
    if types.is_map(kind):
        return _in_map(kind, was_text=was_text)
    item = _converter(kind.value_type, was_text=was_text) if types.is_nested(kind) else None
    return (lambda value: value and [item(each) for each in value]) if item else None


def _in_struct(inner: dict[str, Convert]) -> Convert:
    def convert(value: Any) -> Any:
        if value is None:
            return None
        return {name: inner[name](each) if name in inner else each for name, each in value.items()}

    return convert


def _in_map(kind: pa.DataType, *, was_text: bool) -> Convert:
    """Return a function that converts a map's entries to an object."""
    key_of = _converter(kind.key_type, was_text=was_text) or str
    item_of = _converter(kind.item_type, was_text=was_text) or (lambda item: item)

    def convert(value: Any) -> Any:
        if value is None:
            return None
        found = {str(key_of(key)): item_of(item) for key, item in value}
        if len(found) < len(value):
            raise RowError("R207", "a key occurs twice in one map")
        return found

    return convert


def _text(value: Any) -> Any:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        byte = f"0x{value[error.start]:02x}"
        raise RowError("R202", f"not UTF-8: byte {byte} at byte {error.start} of a text") from None


def _number(value: Decimal | None) -> int | float | str | None:
    """Return a decimal as the JSON parser reads it; integers beyond 64 bits stay text."""
    if value is None or value != value.to_integral_value():
        return value if value is None else float(value)
    number = int(value)
    return number if -(2**63) <= number < 2**64 else str(number)


def _is_suspect(array: pa.Array) -> bool:
    """Return whether a value of a column may be refused: a cheap test of all at once."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if types.is_dictionary(array.type):
        array = array.dictionary
    kind = array.type
    if types.is_struct(kind):
        return any(_is_suspect(array.field(number)) for number in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_suspect(array.flatten())
    if types.is_floating(kind):
        return pc.all(pc.is_finite(array)).as_py() is False
    if types.is_string(kind) or types.is_large_string(kind):
        return pc.any(pc.match_substring(array, "\0")).as_py() is True
    # Of the other types, maps and views of text and bytes may contain refused values.
    return bool(types.is_nested(kind) or kind in TEXTS or kind in TEXTS.values())


def _refuse(value: Any, limits: Limits) -> None:
    """Raise R204 or R205 if a row has U+0000, NaN or an infinity at any depth."""
    if type(value) is dict:
        _refuse(list(value), limits)
        value = list(value.values())
    if type(value) is list:
        for each in value:
            _refuse(each, limits)
    elif type(value) is str and "\0" in value and not limits.allow_nul:
        raise RowError("R204", "a string contains U+0000; allow_nul keeps such rows")
    elif type(value) is float and not math.isfinite(value):
        raise RowError("R205", f"{value} is not a JSON number")
