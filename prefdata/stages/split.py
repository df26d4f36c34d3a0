"""Splits of records: given by the file or the row, or drawn by prompt.

Near-duplicate prompts are drawn together, so neither a prompt nor a near-duplicate is in both.
"""

from collections.abc import Iterable, Mapping, Sequence
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
DRAWN = "test"
"""Name of the split that is drawn."""
_SHOWN = 3  # files or values listed in a note


SaidRows = tuple[str | None, int, int]
"""Value of a split column or null, the number of rows that have it, and the first line."""


class Splits(NamedTuple):
    """Splits of the inputs, if there are several."""

    files: list[FileSplit]
    """Split of each input, in order."""
    names: tuple[str, ...]
    """Names by precedence, the lowest first; none if all inputs are one set."""
    notes: list[str]
    read: frozenset[int]
    """Indices of the inputs whose split column names splits, so that it was read."""
    kinds: dict[str, str | None]
    """Split that each value of a split column means."""
    is_divided: bool = False
    """False if all inputs are one set."""

    def of_rows(self, source_index: int, said: pl.Series) -> NDArray[np.uint8]:
        """Return the index in `names` of the split of each record of an input.

        `said` is the text of its split column, or null.
        """
        of_file = self.files[source_index].split
        rows = pl.DataFrame({"said": said.cast(pl.String)})
        if of_file is None:
            kind = pl.col("said").replace_strict(
                dict(self.kinds), return_dtype=pl.String, default=None
            )
            split = rows.select(pl.coalesce(kind, pl.lit(TRAIN)).alias("split"))["split"]
        else:
            split = pl.Series([of_file]).new_from_index(0, len(rows))
        places = {name: at for at, name in enumerate(self.names)}
        return split.replace_strict(places, return_dtype=pl.UInt8).to_numpy()


def mixed(num_files: int) -> Splits:
    """Return all inputs as one set, without regard to their names."""
    return Splits([FileSplit(None, "none")] * num_files, (), [], frozenset(), {})


class SplitPlan(NamedTuple):
    """How a build splits the pairs that it keeps: by the splits of the inputs, or by a draw."""

    names: tuple[str, ...]
    """The splits of the build, in order."""
    places: tuple[int, ...]
    """Index in `names` of each split of the inputs."""
    fraction: float
    """Share of train that is drawn for test."""
    seed: int
    train: int
    """Index of train among the splits of the inputs; -1: they have none."""
    num_train: int
    """Pairs of train before the draw."""

    def assign(self, split: NDArray[np.uint8], split_key: Numbers) -> NDArray[np.uint8]:
        """Return the index in `names` of each pair; the pairs of a key are all here."""
        found = np.array(self.places, np.uint8)[split]
        if self.fraction:
            train = np.flatnonzero(split == self.train)
            drawn = draw_test(
                split_key[train], test_fraction=self.fraction, seed=self.seed, total=self.num_train
            )
            found[train[drawn]] += 1  # test comes after train
        return found

    def count_stuck(self, split: NDArray[np.uint8], split_key: Numbers) -> int:
        """Count the pairs of clusters that are too large for test."""
        if not self.fraction:
            return 0
        of_train = split_key[split == self.train]
        stuck = too_large(of_train, test_fraction=self.fraction, total=self.num_train)
        return int(stuck.sum())


class Draw(NamedTuple):
    """The test split that a build's config draws from train."""

    fraction: float
    """Share of it, for inputs that are one set."""
    of_divided: float | None
    """Share of it, for inputs that came in splits of which none is test or eval."""
    seed: int

    def share(self, splits: Splits) -> float:
        """Return the share of train that is drawn: none if the inputs have a test split."""
        if not splits.is_divided:
            return self.fraction
        has_test = any(kind_of(name) in ("test", "eval") for name in splits.names)
        return 0.0 if has_test else self.of_divided or 0.0

    def plan(self, splits: Splits, kept_of_splits: Sequence[int]) -> SplitPlan:
        """Return the splits of a build, of inputs with these numbers of kept pairs."""
        own = splits.names if splits.is_divided else (TRAIN,)
        train = own.index(TRAIN) if TRAIN in own else -1
        fraction = self.share(splits) if train >= 0 else 0.0
        names, places = list[str](), list[int]()
        for name in own:
            places.append(len(names))
            names += [name, DRAWN] if name == TRAIN and fraction else [name]
        num_train = kept_of_splits[train] if train >= 0 else 0
        return SplitPlan(tuple(names), tuple(places), fraction, self.seed, train, num_train)


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


def settle_splits(
    names: Sequence[str], by_file: Sequence[FileSplit], rows: Sequence[Iterable[SaidRows]]
) -> Splits:
    """Return the splits of the records, by their file, or else by their split column.

    `rows` are the values of the split column in each file: text or null, number of rows, and the
    first line. All inputs are one set if they name fewer than two splits and none is given. Raises
    E186 if a file's name and its rows disagree on what is trained.
    """
    said = [_said(of_file) for of_file in rows]
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
    kinds = {one.said: one.kind for own in said for one in own if one.said is not None}
    used = {one.split for one in settled if one.split}
    for one, own in zip(settled, said, strict=True):
        used |= {rows.kind or TRAIN for rows in own if one.split is None}
    ordered = tuple(sorted(used, key=rank_of))
    notes = [*_rest(names, settled, said), *unread]
    return Splits(settled, ordered, notes, read, kinds, is_divided=True)


class _Said(NamedTuple):
    """Rows of one file that have the same value in their split column."""

    said: str | None
    """The value; None if it is missing."""
    kind: str | None
    """The split that the value means, if it means one."""
    num: int
    line: int
    """Line of the first of the rows."""


def _said(rows: Iterable[SaidRows]) -> list[_Said]:
    """Sum the values of a file's split column over its parts, in the order of their first lines."""
    total: dict[str | None, tuple[int, int]] = {}
    for said, num, line in rows:
        before, first = total.get(said, (0, line))
        total[said] = before + num, min(first, line)
    ordered = sorted(total.items(), key=lambda one: (one[1][1], one[0] is not None, one[0] or ""))
    return [
        _Said(said, kind_of(said) if said else None, num, line) for said, (num, line) in ordered
    ]


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


def draw_test(
    groups: Numbers, *, test_fraction: float, seed: int, total: int | None = None
) -> NDArray[np.bool_]:
    """Return the mask of rows in test, by the id of their group; 0 <= test_fraction <= 1.

    A group is a cluster of near-duplicate prompts, under the smallest of their ids. Each is drawn
    independently, so adding, removing or moving rows never changes another group's split. The share
    of groups in test is `test_fraction` on average. A group with more rows than all of test should
    have, such as prompts that share one long instruction, stays in train. `groups` may be those of
    a part of all rows, of which there are `total`.
    """
    assert 0 <= test_fraction <= 1, test_fraction
    key = mix(np.array([seed], np.uint64))
    limit = round(test_fraction * 2**64)
    if limit == 2**64:
        return np.ones(len(groups), np.bool_)
    in_test: NDArray[np.bool_] = mix(groups ^ key) < np.uint64(limit)
    return in_test & ~too_large(groups, test_fraction=test_fraction, total=total)


def too_large(
    groups: Numbers, *, test_fraction: float, total: int | None = None
) -> NDArray[np.bool_]:
    """Return the mask of rows whose group has more rows than all of test should have."""
    total = len(groups) if total is None else total
    _, places, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = sizes[places] > max(FEW_ROWS, test_fraction * total)
    return found
