"""Which split a record is in: that of its file or row, else drawn by prompt.

Drawn splits are parted by prompt: neither a prompt nor a near-duplicate of it is in both.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.errors import UsageError
from prefdata.mix import Numbers, mix
from prefdata.read import InputFile, expand_inputs
from prefdata.split_names import AUTO, ROWS, TRAIN, FileSplit, kind_of, name_splits, rank_of

Inputs = Sequence[str] | Mapping[str, Sequence[str]]
"""Files or globs; or the same by split, with `auto` and `rows` for those that say it themselves."""
Leaks = Literal["drop_from_train", "refuse", "report"]
"""What becomes of pairs and prompts that two given splits share."""
FEW_ROWS = 16  # a group of so few may be drawn, however small the set
_SHOWN = 3  # files or values that a note names


class Splits(NamedTuple):
    """The splits that inputs came in, if they came in several."""

    files: list[FileSplit]
    """Of each input, in order."""
    names: tuple[str, ...]
    """By precedence, those that give way first; none if all inputs are one set."""
    of_rows: NDArray[np.uint8] | None
    """Place in `names` of each record's split; None if all inputs are one set."""
    notes: list[str]
    read: frozenset[int] = frozenset()
    """The inputs whose rows have a split column that names splits, so that it was read."""

    @property
    def is_divided(self) -> bool:
        return self.of_rows is not None


class SplitOptions(NamedTuple):
    """What is asked for about splits."""

    given: Mapping[str, str] = MappingProxyType({})
    """The split of each file that is given one, by its name."""
    resplit: bool = False
    """Whether all inputs are mixed, whatever splits they are."""
    leaks: Leaks = "drop_from_train"


def mixed(num_files: int) -> Splits:
    """All inputs as one set, whatever their names say."""
    return Splits([FileSplit(None, "none")] * num_files, (), None, [])


def expand_splits(inputs: Inputs) -> tuple[list[InputFile], dict[str, str]]:
    """The files that inputs name, and the split of each file that is given one."""
    if not isinstance(inputs, Mapping):
        return expand_inputs(inputs), {}
    given: dict[str, str] = {}
    first: dict[Path, tuple[str, str]] = {}
    for split, patterns in inputs.items():
        for file in expand_inputs(patterns) if split != AUTO else []:
            name, before = first.setdefault(file.path.resolve(), (file.name, split))
            if before != split:
                problem = f"is given as {split}, and as {before} under the name {name}"
                raise UsageError("E185", file.name, problem, "name each file in one split")
            given[file.name] = split
    files = expand_inputs([pattern for patterns in inputs.values() for pattern in patterns])
    is_auto = {file.name for file in expand_inputs(inputs.get(AUTO, []))}
    kept = [f for f in files if f.name in given or f.path.resolve() not in first]
    assert {f.name for f in kept} <= is_auto | set(given)
    return [InputFile(f.path, f.name, at) for at, f in enumerate(kept)], given


def splits_of_files(files: Sequence[InputFile], given: Mapping[str, str]) -> list[FileSplit]:
    """The split of each input as far as it is known before it is read."""
    return name_splits([file.name for file in files], given)


def settle_splits(names: Sequence[str], told: Sequence[FileSplit], rows: pl.DataFrame) -> Splits:
    """The split of each record, by its file, and else by what its row says.

    `rows` has `source_index`, `line` and `said`, the text of the row's split column or null. All
    inputs are one set if they name fewer than two splits and none is given. E186 if a file's name
    and its rows differ in what is trained.
    """
    values = rows["said"].cast(pl.String).unique().drop_nulls().sort().to_list()
    kinds = {value: kind_of(value) for value in values}
    frame = rows.select("source_index", "line", "said").with_columns(
        kind=pl.col("said").cast(pl.String).replace_strict(kinds, return_dtype=pl.String)
        if kinds
        else pl.lit(None, pl.String)
    )
    per_file = [frame.filter(pl.col("source_index") == at) for at in range(len(names))]
    settled = [
        _settle_file(name, one, own) for name, one, own in zip(names, told, per_file, strict=True)
    ]
    read = frozenset(at for at, own in enumerate(per_file) if own["kind"].count())
    unread = _unread_values(settled, per_file)
    if all(one.told_by == "none" for one in told) and len(_all_kinds(told, per_file)) < 2:
        one_set = [FileSplit(None, "none")] * len(names)
        return Splits(one_set, (), None, [*_one_set(names, told, per_file), *unread], read)
    for name, one, own in zip(names, told, per_file, strict=True):
        _require_agreement(name, one, own)
    by_file = pl.Series([one.split for one in settled], dtype=pl.String)
    split = frame.select(
        pl.coalesce(
            by_file.gather(frame["source_index"].cast(pl.UInt32)), pl.col("kind"), pl.lit(TRAIN)
        )
    ).to_series()
    used = {one.split for one in settled if one.split} | set(split.unique())
    ordered = tuple(sorted(used, key=rank_of))
    of_rows = split.replace_strict({n: at for at, n in enumerate(ordered)}, return_dtype=pl.UInt8)
    rest = _rest(names, settled, per_file)
    return Splits(settled, ordered, of_rows.to_numpy(), [*rest, *unread], read)


def _settle_file(name: str, told: FileSplit, rows: pl.DataFrame) -> FileSplit:
    """The split of one file of several splits, by its name or else by its rows."""
    if told.told_by not in ("none", "rest", "rows"):
        return told
    if told.told_by == "none" and told.split is not None:
        return FileSplit(told.split, "name")
    known = rows["kind"].drop_nulls()
    if not len(known):
        if told.told_by == "rows":
            problem = f"is given as `{ROWS}`, and no row of it has a column that names a split"
            raise UsageError("E186", name, problem, "give its split: --split train=FILE")
        return FileSplit(TRAIN, "rest")
    strange = rows.filter(pl.col("said").is_not_null() & pl.col("kind").is_null())
    if len(strange) and known.n_unique() + (TRAIN not in known) > 1:
        line, value = strange.select("line", pl.col("said").cast(pl.String)).row(0)
        problem = (
            f"its rows name the splits {', '.join(known.unique().sort())}, and {len(strange):,} of "
            f"them {value!r} (line {line}), which may be another split or rows to train on"
        )
        remedy = "give the file one split with --split train=FILE, or mix all with --resplit"
        raise UsageError("E186", name, problem, remedy)
    return FileSplit(None, "rows")


def _require_agreement(name: str, told: FileSplit, rows: pl.DataFrame) -> None:
    """E186 if a file's name would train rows that their column holds out, or the other way."""
    if told.split is None or told.told_by not in ("none", "name", "folder"):
        return
    against = rows.filter((pl.col("kind") == TRAIN) != (told.split == TRAIN))
    if len(against):
        line, value = against.select("line", pl.col("said").cast(pl.String)).row(0)
        problem = (
            f"is {told.split} by its name, and by their column {len(against):,} of its "
            f"{len(rows):,} rows are not: line {line} says {value!r}"
        )
        remedy = f"say --split {told.split}=FILE for the name, or --split {ROWS}=FILE for the rows"
        raise UsageError("E186", name, problem, remedy)


def _all_kinds(told: Sequence[FileSplit], per_file: Sequence[pl.DataFrame]) -> set[str]:
    """The splits that names and rows speak of; what no one speaks of is train."""
    found: set[str] = set()
    for one, rows in zip(told, per_file, strict=True):
        found |= set(rows["kind"].drop_nulls().unique())
        if one.split is not None:
            found.add(one.split)
        elif rows["kind"].null_count() or not len(rows):
            found.add(TRAIN)
    return found


def _one_set(
    names: Sequence[str], told: Sequence[FileSplit], per_file: Sequence[pl.DataFrame]
) -> list[str]:
    """A note if inputs that are one set are named as something else than train."""
    kinds = _all_kinds(told, per_file) - {TRAIN}
    if not kinds:
        return []
    (kind,) = kinds
    return [
        f"{_some(names)}: all rows are of the {kind} split, so they are one set, of which a build "
        f"draws its own test split; --split {kind}=FILE keeps it as it is"
    ]


def _rest(
    names: Sequence[str], settled: Sequence[FileSplit], per_file: Sequence[pl.DataFrame]
) -> list[str]:
    """Notes on files and rows that no one speaks of, which go to train."""
    rest = [name for name, one in zip(names, settled, strict=True) if one.told_by == "rest"]
    notes = [f"{_some(rest)}: no split in the name, so the rows are in train"] if rest else []
    for name, one, rows in zip(names, settled, per_file, strict=True):
        silent = rows["said"].null_count() if one.told_by == "rows" else 0
        if silent:
            notes.append(
                f"{name}: {silent:,} of {len(rows):,} rows say no split: they are in train"
            )
    return notes


def _unread_values(settled: Sequence[FileSplit], per_file: Sequence[pl.DataFrame]) -> list[str]:
    """A note if a column called split holds other names."""
    frames = [rows for one, rows in zip(settled, per_file, strict=True) if one.told_by != "given"]
    strange = [
        rows.filter(pl.col("kind").is_null())["said"].drop_nulls().cast(pl.String)
        for rows in frames
    ]
    values = pl.concat(strange).unique().sort().to_list() if strange else []
    if not values:
        return []
    return [f"the column `split` says {_some(list(map(repr, values)))}: not a split, so not used"]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def draw_test(groups: Numbers, *, test_fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are in test, by the id of their group; 0 <= test_fraction <= 1.

    A group is a prompt, or prompts that are near-duplicates, under the smallest of their ids. Each
    is drawn by itself, so rows that come, go or move never change where another group lies; the
    share of groups in test is `test_fraction` on average. A group with more rows than the whole of
    test should have, such as prompts that share one long instruction, stays in train.
    """
    assert 0 <= test_fraction <= 1, test_fraction
    key = mix(np.array([seed], np.uint64))
    limit = round(test_fraction * 2**64)
    if limit == 2**64:
        return np.ones(len(groups), np.bool_)
    in_test: NDArray[np.bool_] = mix(groups ^ key) < np.uint64(limit)
    return in_test & ~too_large(groups, test_fraction=test_fraction)


def too_large(groups: Numbers, *, test_fraction: float) -> NDArray[np.bool_]:
    """Which rows are of a group that has more rows than the whole of test should have."""
    _, places, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = sizes[places] > max(FEW_ROWS, test_fraction * len(groups))
    return found
