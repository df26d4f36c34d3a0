"""Reading options of a file, decided from its first rows, set on its layout, and reported.

In this order: cells with messages as text; the layout; additional columns; answers that begin with
their prompt. Later rows that do not match these decisions are refused one by one.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from prefdata.errors import UsageError
from prefdata.read.adapt.adapter import Adapter
from prefdata.read.adapt.fields import column_names, role_of
from prefdata.read.adapt.ids import canonical_json
from prefdata.read.adapt.message_cells import OPENS, message_columns, parse_cell, text_list_columns
from prefdata.read.adapt.messages import OURS, our_role, read_completion
from prefdata.read.adapt.named import Columns, rename, with_names
from prefdata.read.adapt.repeated import cut_prompt, is_long
from prefdata.read.adapt.spellings import usual_columns, with_usual_columns
from prefdata.read.detect import detect_layout
from prefdata.read.faults import RowError
from prefdata.read.files.parse_json import Object
from prefdata.read.layouts.model import Layout
from prefdata.read.layouts.registry import is_shipped
from prefdata.read.limits import Limits, Pairing
from prefdata.read.unread import meaning_of
from prefdata.records.split_names import split_path

MOST_ROWS = 1024  # examined, if a share of the rows decides
NEARLY_ALL = 0.99
ENOUGH_ROWS = 8  # this many short prompts at the start of their answers are not a coincidence
_MOST_LABELS = 8  # different values of a column that names a winner
ChosenBy = Literal["columns", "name", "options", "nothing"]


class Wanted(NamedTuple):
    """Reading options given by the user."""

    layout: Layout | None = None
    """None: detected from the columns."""
    columns: Columns = Columns()


class Fitted(NamedTuple):
    """Reading options of one file."""

    layout: Layout | None
    """None: no row of the sample was an object."""
    chosen_by: ChosenBy = "nothing"
    said: tuple[str, ...] = ()


def fit(rows: Sequence[Object], wanted: Wanted, limits: Limits, place: str) -> Fitted:
    """Return a file's layout with all that its first rows decide; PD102 if ambiguous."""
    if not rows:
        return Fitted(wanted.layout)
    rows, parsed, said = _parse_cells(rows, wanted, limits)
    ours = rename(rows, wanted.columns, place) if wanted.columns.given else list(rows)
    layout, chosen_by = wanted.layout, "name"
    if layout is None:
        layout, chosen_by = detect_layout(ours, place), "columns"
    if wanted.columns.given:
        layout, chosen_by = with_names(layout, wanted.columns, place), "options"
        said += [f"{side} is `{name}`" for side, name in wanted.columns.given.items()]
    if layout.package:
        said.append(f"the layout is one of the package {layout.package}")
    layout = layout.model_copy(update={"parse": [*layout.parse, *parsed]})
    if wanted.layout is None or is_shipped(wanted.layout):
        usual = usual_columns(layout, rows)
        layout = with_usual_columns(layout, usual)
        said += [f"{field.replace('_', ' ')} is `{name}`" for field, name in usual.items()]
    if layout.repeated == "refuse" and _is_repeated(layout, rows, limits):
        layout = layout.model_copy(update={"repeated": "cut"})
        said.append("the answers begin with the prompt, which is cut off there")
    said += _roles_said(layout, rows)
    said += _split_said(rows)
    _require_one_reading(layout, wanted, rows, place)
    return Fitted(layout, chosen_by, tuple(said))  # type: ignore[arg-type]


def _split_said(rows: Sequence[Object]) -> list[str]:
    path = split_path(rows)
    return [] if path in (None, "split") else [f"rows name their split in `{path}`"]


def _require_one_reading(
    layout: Layout, wanted: Wanted, rows: Sequence[Object], place: str
) -> None:
    """Raise PD102 if the rows can be read in two ways that differ in what is trained.

    A layout that is named says which one is meant.
    """
    columns = wanted.columns
    if wanted.layout is not None:
        return
    if columns.chosen and columns.rejected:
        for name in column_names(rows):
            values = {canonical_json(row[name]) for row in rows if row.get(name) is not None}
            is_label = meaning_of(name) == "label" and name not in layout.read
            if is_label and 2 <= len(values) <= _MOST_LABELS:
                problem = (
                    f"`{name}` is {', '.join(sorted(values))} and may say which answer is better, "
                    f"but the named columns read `{columns.chosen}` as the better one in each row"
                )
                remedy = (
                    f"let `prefdata layouts --new {place}` write a layout that reads `{name}`, or "
                    f"add --layout {layout.name} if it means something else"
                )
                raise UsageError("PD102", place, problem, remedy)
    if layout.chosen and layout.rejected and _has_lone_turns(layout, rows):
        problem = (
            f"`{layout.rejected}` holds several assistant turns and `{layout.chosen}` one: several "
            "answers, or one answer of several turns"
        )
        remedy = (
            f"for one answer add --layout {layout.name}; for several write each as a text or a "
            "list of its own, or read them by `candidates: {items: "
            f"[{layout.chosen}, {layout.rejected}], in_order: true}}` in a layout of your own"
        )
        raise UsageError("PD102", place, problem, remedy)


def _has_lone_turns(layout: Layout, rows: Sequence[Object]) -> bool:
    """Return whether most rows have one chosen turn and several rejected ones, all plain texts."""
    num = 0
    for row in rows:
        chosen, rejected = row.get(str(layout.chosen)), row.get(str(layout.rejected))
        if type(chosen) is list and type(rejected) is list and len(chosen) == 1 < len(rejected):
            num += all(
                type(turn) is dict
                and our_role(str(role_of(turn)), layout.roles) == "assistant"
                and not turn.get("tool_calls")
                for turn in (*chosen, *rejected)
            )
    return num * 2 > len(rows)


def _parse_cells(
    rows: Sequence[Object], wanted: Wanted, limits: Limits
) -> tuple[list[Object], list[str], list[str]]:
    """Return the rows with parsed cells, the parsed columns, and notes about them."""
    names, lists = message_columns(rows, limits), text_list_columns(rows, limits)
    if wanted.layout is not None:
        kinds = wanted.layout.columns
        names = [name for name in names if kinds.get(name) not in ("text", "hh")]
        lists = [name for name in lists if kinds.get(name) not in ("text", "hh")]
        names = [name for name in names if name not in wanted.layout.parse]
    said = [f"`{name}` contains messages as text, which is parsed" for name in names]
    said += [f"`{name}` contains lists of texts as text, which is parsed" for name in lists]
    columns = [*names, *lists]
    return [_parsed(row, columns, limits) for row in rows], columns, said


def _parsed(row: Object, columns: Sequence[str], limits: Limits) -> Object:
    """Return the row with every parseable cell of `columns` parsed."""
    found: dict[str, Any] = {}
    for name in columns:
        if type(row.get(name)) is str and OPENS.match(row[name]):
            try:
                found[name] = parse_cell(name, row[name], limits)
            except RowError:
                continue
    return {**row, **found} if found else row


def _is_repeated(layout: Layout, rows: Sequence[Object], limits: Limits) -> bool:
    """Return whether in nearly all rows every answer begins with the prompt, not by chance."""
    if not layout.prompt or layout.sides not in ("completion", "after_prompt"):
        return False
    reader = Adapter(layout.model_copy(update={"repeated": "keep"}), Pairing(), limits)
    seen = [found for row in rows if (found := _prompt_and_answers(reader, row))]
    whole = [
        (prompt, answers)
        for prompt, answers in seen
        if all(cut_prompt(prompt, answer) is not None for answer in answers)
    ]
    if not seen or len(whole) < NEARLY_ALL * len(seen):
        return False
    long = sum(is_long(prompt, answers) for prompt, answers in whole)
    return long * 2 >= len(whole) or len(whole) >= ENOUGH_ROWS


def _prompt_and_answers(reader: Adapter, row: Object) -> tuple[Any, list[Any]] | None:
    layout = reader.layout
    try:
        whole = reader.check(row)
        if layout.gather:
            candidates = layout.candidates
            if candidates is None or layout.tree is not None:
                return None
            said = read_completion("completion", whole.get(candidates.text), layout.roles)
            return reader.prompt.read(whole), [said]
        draft = reader.read_whole(whole)
    except RowError:
        return None
    return draft.prompt, [side for pair in draft.pairs for side in (pair.chosen, pair.rejected)]


def _roles_said(layout: Layout, rows: Sequence[Object]) -> list[str]:
    """Return a note on roles that are renamed by convention, with their new names."""
    read, found = layout.read, dict[str, str]()
    for row in rows:
        for name in read & row.keys():
            for role in _roles(row[name]):
                if role not in OURS and role not in layout.roles:
                    found[role] = our_role(role, {})
    named = sorted(f"{role} as {ours}" for role, ours in found.items() if ours != role)
    return [f"roles: {', '.join(named)}"] if named else []


def _roles(value: Any) -> list[str]:
    roles = map(role_of, value[:100] if type(value) is list else [value])
    return [role for role in roles if type(role) is str]
