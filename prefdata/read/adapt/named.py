"""Columns named by the user: `--prompt-column task` reads `task` as if it were `prompt`."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from prefdata.errors import UsageError
from prefdata.read.adapt.fields import column_names
from prefdata.read.files.parse_json import Object
from prefdata.read.layouts.candidates import Paths
from prefdata.read.layouts.model import Layout

SIDES = ("prompt", "chosen", "rejected")


class Columns(BaseModel):
    """Names of the prompt, chosen and rejected columns, if they differ from these."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )

    prompt: str | None = None
    """Column with the prompt."""
    chosen: str | None = None
    """Column with the preferred completion."""
    rejected: str | None = None
    """Column with the other completion."""

    @property
    def given(self) -> dict[str, str]:
        """Named columns: from `prompt`, `chosen` or `rejected` to the column's own name."""
        return {side: name for side in SIDES if (name := getattr(self, side))}


def rename(rows: Sequence[Object], columns: Columns, place: str) -> list[Object]:
    """Return the rows with the named columns renamed; raise PD112 if no row has one of them."""
    given = columns.given
    for side, name in given.items():
        if not any(name in row for row in rows):
            known = ", ".join(map(str, column_names(rows)))
            problem = f"no row has the column {name!r}, named as {side}"
            raise UsageError("PD112", place, problem, f"name one of {known}")
    ours = {name: side for side, name in given.items()}
    if len(ours) < len(given):
        problem = f"one column is named twice: {', '.join(given.values())}"
        raise UsageError("PD112", place, problem, "name a different column for each")
    return [
        {ours.get(name, name): value for name, value in row.items() if name not in given}
        | {side: row[name] for side, name in given.items() if name in row}
        for row in rows
    ]


def with_names(layout: Layout, columns: Columns, place: str) -> Layout:
    """Return the layout with the rows' own column names; raise PD112 if it lacks a named side."""
    own = columns.given
    for side in own:
        if side not in layout.columns:
            problem = f"the layout {layout.name} has no column `{side}`"
            raise UsageError("PD112", place, problem, "name another layout, or write your own")

    def one(path: str) -> str:
        head, *rest = path.split(".")
        return ".".join([own.get(head, head), *rest])

    def paths(value: Paths | None) -> Paths | None:
        return [one(path) for path in value] if isinstance(value, list) else value and one(value)

    changes: dict[str, object] = {
        "columns": {one(path): kind for path, kind in layout.columns.items()},
        "prompt": paths(layout.prompt),
        "chosen": paths(layout.chosen),
        "rejected": paths(layout.rejected),
        "absent": [],
    }
    if layout.gather and layout.gather.by:
        changes["gather"] = layout.gather.model_copy(
            update={"by": [one(path) for path in layout.gather.by]}
        )
    if layout.candidates:
        items = paths(layout.candidates.items)
        changes["candidates"] = layout.candidates.model_copy(update={"items": items})
    return layout.model_copy(update=changes)
