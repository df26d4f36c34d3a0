"""Splits of records: given by the file or the row, or drawn by prompt.

Near-duplicate prompts are drawn together, so neither a prompt nor a near-duplicate is in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.errors import UsageError
from prefdata.hashing import Numbers, mix
from prefdata.read import InputFile, expand_inputs
from prefdata.records.secrets import quote
from prefdata.records.sources import Inputs, Source, as_sources
from prefdata.records.split_names import ROWS, TRAIN, FileSplit, kind_of, name_splits, rank_of
from prefdata.report.figures import listed

FEW_ROWS = 16  # a group of at most this size may be drawn, however small the dataset
_SHOWN = 3  # files or values listed in a note


class Splits(NamedTuple):
    """Splits of the inputs, if there are several."""

    files: list[FileSplit]
    """Split of each input, in order."""
    names: tuple[str, ...]
    """Names by precedence, the lowest first; none if all inputs are one set."""
    of_rows: NDArray[np.uint8] | None
    """Index in `names` of each record's split; None if all inputs are one set."""
    notes: list[str]
    read: frozenset[int] = frozenset()
    """Indices of the inputs whose split column names splits, so that it was read."""

    @property
    def is_divided(self) -> bool:
        return self.of_rows is not None


def mixed(num_files: int) -> Splits:
    """Return all inputs as one set, without regard to their names."""
    return Splits([FileSplit(None, "none")] * num_files, (), None, [])


def expand_splits(inputs: Inputs | str | Source) -> tuple[list[InputFile], dict[str, str]]:
    """Return the files of `inputs`, and the split of each file that is given one.

    A file that is given a split is left out of sources without one. Raises E185 for a file that is
    named twice and read in two ways.
    """
    sources = as_sources(inputs)
    expanded = [(source, file) for source in sources for file in expand_inputs([source.path])]
    first: dict[Path, tuple[Source, str]] = {}
    for source, file in sorted(expanded, key=lambda pair: pair[0].given is None):
        before, name = first.setdefault(file.path.resolve(), (source, file.name))
        if source.given != before.given and source.given is not None:
            problem = f"is given as {source.given}, and as {before.given} under the name {name}"
            raise UsageError("E185", file.name, problem, "name each file in one split")
        if differing := _differing(before, source):
            raise _two_readings(file.name, before, source, differing[0])
    kept: dict[str, InputFile] = {}
    for source, file in expanded:
        owner, _ = first[file.path.resolve()]
        if owner.given == source.given:
            at = replace(file, index=len(kept), of=source)
            kept.setdefault(file.name, at)
    files = _with_names(list(kept.values()))
    return files, {file.name: file.of.given for file in files if file.of.given}


def _with_names(files: list[InputFile]) -> list[InputFile]:
    """Return the files; a weighted source of several files without a name gets one.

    So its config says which files are counted together, wherever they are named one by one.
    """
    of_source: dict[tuple[str, float], list[InputFile]] = {}
    for file in files:
        of_source.setdefault((file.of.key, file.of.weight), []).append(file)
    named = {}
    for (_, weight), some in of_source.items():
        if weight != 1 and len(some) > 1 and some[0].of.name is None:
            name = f"{some[0].path.name} and {len(some) - 1:,} more"
            named.update({f.name: f.of.model_copy(update={"name": name}) for f in some})
    return [replace(file, of=named.get(file.name, file.of)) for file in files]


def _differing(source: Source, other: Source) -> list[str]:
    """Return the keys in which two sources of one file differ: weights first, as they matter."""
    keys = ("weight", "layout", "license", "name")
    return [key for key in keys if getattr(source, key) != getattr(other, key)]


def _two_readings(name: str, before: Source, source: Source, key: str) -> UsageError:
    """Return E185 for a file that two sources name, with the key in which they differ."""
    said = [
        f"{key} {one:g}" if isinstance(one, float) else f"{key} {one}" if one else f"no {key}"
        for one in (getattr(before, key), getattr(source, key))
    ]
    problem = f"is in two sources, {before.path} with {said[0]} and {source.path} with {said[1]}"
    both = before.weight + source.weight
    remedy = (
        f"name each file in one source, with one weight ({both:g} is as often as both together)"
        if key == "weight"
        else "name each file in one source"
    )
    return UsageError("E185", name, problem, remedy)


def splits_of_files(files: Sequence[InputFile], given: Mapping[str, str]) -> list[FileSplit]:
    """Return the split of each input, as far as it is known before reading."""
    return name_splits([file.name for file in files], given)


def settle_splits(names: Sequence[str], by_file: Sequence[FileSplit], rows: pl.DataFrame) -> Splits:
    """Return the split of each record, by its file, or else by its split column.

    `rows` has `source_index`, `line` and `said`, the text of the split column or null. All inputs
    are one set if they name fewer than two splits and none is given. Raises E186 if a file's name
    and its rows disagree on what is trained.
    """
    said = _said(rows, len(names))
    settled = [
        _settle_file(name, one, own) for name, one, own in zip(names, by_file, said, strict=True)
    ]
    read = frozenset(at for at, own in enumerate(said) if any(one.kind for one in own))
    unread = _unread_values(settled, said)
    if all(one.said_by == "none" for one in by_file) and len(_all_kinds(by_file, said)) < 2:
        notes = [*_one_set(names, by_file, said), *unread]
        return mixed(len(names))._replace(notes=notes, read=read)
    for name, one, own in zip(names, by_file, said, strict=True):
        _require_agreement(name, one, own)
    of_files = pl.Series([one.split for one in settled], dtype=pl.String)
    kinds = {one.said: one.kind for own in said for one in own if one.said is not None}
    kind = rows["said"].cast(pl.String).replace_strict(kinds, return_dtype=pl.String, default=None)
    of_file = of_files.gather(rows["source_index"].cast(pl.UInt32))
    split = rows.select(pl.coalesce(of_file, kind, pl.lit(TRAIN)).alias("split"))["split"]
    used = {one.split for one in settled if one.split} | set(split.unique())
    ordered = tuple(sorted(used, key=rank_of))
    of_rows = split.replace_strict({n: at for at, n in enumerate(ordered)}, return_dtype=pl.UInt8)
    return Splits(
        settled, ordered, of_rows.to_numpy(), [*_rest(names, settled, said), *unread], read
    )


class _Said(NamedTuple):
    """Rows of one file that have the same value in their split column."""

    said: str | None
    """The value; None if it is missing."""
    kind: str | None
    """The split that the value means, if it means one."""
    num: int
    line: int
    """Line of the first of the rows."""


def _said(rows: pl.DataFrame, num_files: int) -> list[list[_Said]]:
    """Count the split column's values in each file, in the order of their first lines."""
    found: list[list[_Said]] = [[] for _ in range(num_files)]
    groups = rows.group_by("source_index", "said").agg(pl.len(), pl.col("line").min())
    groups = groups.with_columns(pl.col("said").cast(pl.String))
    for source, said, num, line in groups.sort("source_index", "line", "said").iter_rows():
        found[source].append(_Said(said, kind_of(said) if said else None, num, line))
    return found


def _settle_file(name: str, by_file: FileSplit, said: Sequence[_Said]) -> FileSplit:
    """Return the split of one file, by its name, or else by its rows."""
    if by_file.said_by not in ("none", "rest", "rows"):
        return by_file
    if by_file.said_by == "none" and by_file.split is not None:
        return FileSplit(by_file.split, "name")
    known = sorted({one.kind for one in said if one.kind})
    if not known:
        if by_file.said_by == "rows":
            problem = f"is given as `{ROWS}`, and no row of it has a column that names a split"
            raise UsageError("E186", name, problem, "give its split: --split train=FILE")
        return FileSplit(TRAIN, "rest")
    strange = next((one for one in said if one.said is not None and one.kind is None), None)
    if strange and known != [TRAIN]:
        problem = (
            f"its rows name the splits {', '.join(known)}, and {strange.num:,} of them "
            f"{quote(str(strange.said), 40)!r} (line {strange.line}), "
            "which may be another split or rows to train"
        )
        remedy = "give the file one split with --split train=FILE, or mix all with --resplit"
        raise UsageError("E186", name, problem, remedy)
    return FileSplit(None, "rows")


def _require_agreement(name: str, by_file: FileSplit, said: Sequence[_Said]) -> None:
    """Raise E186 if a file's name and its split column disagree on which rows are trained."""
    if by_file.split is None or by_file.said_by not in ("none", "name", "folder"):
        return
    against = [one for one in said if one.kind and (one.kind == TRAIN) != (by_file.split == TRAIN)]
    if against:
        rows, total = sum(one.num for one in against), sum(one.num for one in said)
        problem = (
            f"is {by_file.split} by its name, and by their column {rows:,} of its {total:,} rows "
            f"are not: line {against[0].line} says {quote(str(against[0].said), 40)!r}"
        )
        remedy = (
            f"use --split {by_file.split}=FILE for the name, or --split {ROWS}=FILE for the rows"
        )
        raise UsageError("E186", name, problem, remedy)


def _all_kinds(by_file: Sequence[FileSplit], said: Sequence[Sequence[_Said]]) -> set[str]:
    """Return all splits that files and rows name; those without a split are train."""
    found: set[str] = set()
    for one, own in zip(by_file, said, strict=True):
        found |= {of_rows.kind for of_rows in own if of_rows.kind}
        if one.split is not None:
            found.add(one.split)
        elif not own or not all(of_rows.kind for of_rows in own):
            found.add(TRAIN)
    return found


def _one_set(
    names: Sequence[str], by_file: Sequence[FileSplit], said: Sequence[Sequence[_Said]]
) -> list[str]:
    """Return a note if the inputs are one set with another name than train."""
    kinds = _all_kinds(by_file, said) - {TRAIN}
    if not kinds:
        return []
    (kind,) = kinds
    return [
        f"{listed(names, _SHOWN)}: all rows are of the {kind} split, so they are one set, of which "
        f"a build draws its own test split; --split {kind}=FILE keeps it as it is"
    ]


def _rest(
    names: Sequence[str], settled: Sequence[FileSplit], said: Sequence[Sequence[_Said]]
) -> list[str]:
    """Return notes on files and rows that name no split, which go to train."""
    rest = [name for name, one in zip(names, settled, strict=True) if one.said_by == "rest"]
    notes = (
        [f"{listed(rest, _SHOWN)}: no split in the name, so the rows are in train"] if rest else []
    )
    for name, one, own in zip(names, settled, said, strict=True):
        silent = sum(rows.num for rows in own if rows.said is None)
        if silent and one.said_by == "rows":
            total = sum(rows.num for rows in own)
            notes.append(f"{name}: {silent:,} of {total:,} rows name no split: they are in train")
    return notes


def _unread_values(settled: Sequence[FileSplit], said: Sequence[Sequence[_Said]]) -> list[str]:
    """Return a note if a split column has values that are not splits."""
    values = {
        str(rows.said)
        for one, own in zip(settled, said, strict=True)
        for rows in own
        if one.said_by != "given" and rows.said is not None and rows.kind is None
    }
    if not values:
        return []
    shown = listed(list(map(repr, sorted(values))), _SHOWN)
    return [f"the column `split` says {shown}: not a split, so not used"]


def draw_test(groups: Numbers, *, test_fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return the mask of rows in test, by the id of their group; 0 <= test_fraction <= 1.

    A group is a cluster of near-duplicate prompts, under the smallest of their ids. Each is drawn
    independently, so adding, removing or moving rows never changes another group's split. The share
    of groups in test is `test_fraction` on average. A group with more rows than all of test should
    have, such as prompts that share one long instruction, stays in train.
    """
    assert 0 <= test_fraction <= 1, test_fraction
    key = mix(np.array([seed], np.uint64))
    limit = round(test_fraction * 2**64)
    if limit == 2**64:
        return np.ones(len(groups), np.bool_)
    in_test: NDArray[np.bool_] = mix(groups ^ key) < np.uint64(limit)
    return in_test & ~too_large(groups, test_fraction=test_fraction)


def too_large(groups: Numbers, *, test_fraction: float) -> NDArray[np.bool_]:
    """Return the mask of rows whose group has more rows than all of test should have."""
    _, places, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = sizes[places] > max(FEW_ROWS, test_fraction * len(groups))
    return found
