"""Names of splits, found in the names of files and directories and in the `split` column.

    data/train_prefs-00000-of-00001.parquet   train        prefs_test.jsonl.gz   test
    data/dev/part-0.jsonl                     validation   latest.jsonl          none

Only a whole word of a name counts. Two readings that differ in what is trained, such as
`test-prep-questions.jsonl` among other files, are an error (E185) that shows both.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from prefdata.errors import UsageError

TRAIN = "train"
KINDS = {
    **dict.fromkeys(("train", "training", "trainset"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev", "valset", "devset"), "validation"),
    **dict.fromkeys(("eval", "evaluation", "evals", "evalset"), "eval"),
    **dict.fromkeys(("test", "testing", "testset", "heldout", "holdout"), "test"),
}
PRECEDENCE = ("validation", "eval", "test")
"""Order of precedence: the later split keeps shared pairs; train and other names come before."""
SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
MAX_NAME = 64
SPLIT_KEYS = ("split", "Split", "SPLIT", "data_split", "dataset_split", "split_name")
"""Columns that can name a row's split."""
SPLIT_PATHS = (*SPLIT_KEYS, "metadata.split", "meta.split")
"""The same, and keys of objects; the first that holds text is read."""
AUTO, ROWS = "auto", "rows"
"""Keys of `inputs` for files whose splits are found by file name, and by split column."""

_ENDINGS = frozenset(
    (
        *("jsonl", "json", "ndjson", "csv", "tsv", "txt", "parquet", "pq", "arrow", "feather"),
        *("gz", "zst", "bz2", "xz", "snappy", "zip"),
    )
)
_DATA_WORDS = frozenset(
    (
        *("prefs", "pref", "preferences", "preference", "pairs", "pair", "comparisons", "set"),
        *("split", "subset", "data", "dataset", "rows", "samples", "examples", "file", "part"),
        *("partial", "shard", "sft", "gen", "dpo", "rm", "kto", "raw", "clean", "cleaned"),
        *("filtered", "binarized", "final", "full", "small", "mini", "public"),
    )
)
"""Words that mean only that a file contains data."""
_SHORT = 2  # most words in a split's name that has a kind
_SHARD = re.compile(r"\d+[-_ ]?of[-_ ]?\d+", re.IGNORECASE)
_HELD_OUT = re.compile(r"(held|hold)[-_ ]out", re.IGNORECASE)
_VERSION = re.compile(r"(?<![A-Za-z])v\d+", re.IGNORECASE)
_SHARD_NAME = re.compile(r"([A-Za-z0-9_.]+)-\d{5}-of-\d{5}\.(parquet|arrow|jsonl)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_REMEDY = "set it with --split {split}=FILE or --split train=FILE, or mix all with --resplit"

Leaks = Literal["drop_from_train", "refuse", "report"]
"""Policy for pairs and prompts that two given splits share."""
SaidBy = Literal["given", "name", "folder", "rest", "rows", "drawn", "none"]
"""Source of a file's split: the config; its name; its directory's name; none, while other files
have a split; its rows; none, so pairs are drawn by prompt (`drawn`; in a validation `none`)."""


class SplitOptions(NamedTuple):
    """Options about splits."""

    given: Mapping[str, str] = MappingProxyType({})
    """Split of each file that is given one, by file name."""
    resplit: bool = False
    """True if all inputs are mixed, without regard to their splits."""
    leaks: Leaks = "drop_from_train"


class FileSplit(NamedTuple):
    """Split of one input."""

    split: str | None
    """None: each row has its own, or all inputs are one set."""
    said_by: SaidBy


class _Reading(NamedTuple):
    """Split that one name gives; the words around the split's word decide if it is sure."""

    word: str
    rest: frozenset[str]
    """The other words."""
    is_last: bool
    """True if the split's word ends the name."""
    is_sure: bool = False
    others: frozenset[str] = frozenset()
    """Other splits in the same name."""
    said_by: SaidBy = "name"

    @property
    def kind(self) -> str:
        return KINDS[self.word]

    @property
    def kinds(self) -> frozenset[str]:
        return self.others | {self.kind}

    @property
    def is_plain(self) -> bool:
        """True if the name means one split for sure."""
        return self.is_sure and not self.others


def require_split_names(names: Sequence[str]) -> None:
    """Raise ValueError unless all are plain names that also differ on case-insensitive disks."""
    for name in names:
        if not SPLIT_NAME.fullmatch(name) or len(name) > MAX_NAME:
            message = f"{name[:MAX_NAME]!r} is not a split name: use letters, digits, _ and dots"
            raise ValueError(message)
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("two splits differ only in capital letters")


@lru_cache(maxsize=1024)
def kind_of(split: str) -> str | None:
    """Return the kind of a split's name, one of KINDS' values; None for any other name.

    >>> kind_of("valid1"), kind_of("test_hard"), kind_of("chat")
    ('validation', 'test', None)
    """
    words = _words(split, is_file=False)
    if len(words) > _SHORT or len({KINDS[word] for word in words if word in KINDS}) != 1:
        return None
    return next((KINDS[word] for word in words if word in KINDS), None)


def rank_of(split: str) -> tuple[int, str]:
    """Return the sort key of precedence: train, other names, validation, eval, test.

    >>> sorted(["test", "chat", "train", "validation"], key=rank_of)
    ['train', 'chat', 'validation', 'test']
    """
    kind = kind_of(split)
    if kind in PRECEDENCE:
        return 2 + PRECEDENCE.index(kind), split
    return int(split != TRAIN), split


def said_split(row: Mapping[str, Any]) -> str | None:
    """Return the value of a row's split column, unchanged, or None."""
    return next((value[:MAX_NAME] for _, value in _said_splits(row)), None)


def split_path(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the path under which rows name their splits, or None.

    >>> split_path([{"metadata": {"split": "train"}}])
    'metadata.split'
    """
    found = (next(_said_splits(row), None) for row in rows)
    return next((path for path, value in filter(None, found) if kind_of(value)), None)


def _said_splits(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path in SPLIT_PATHS:
        head, _, key = path.partition(".")
        value = row.get(head)
        if key:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, str) and value:
            yield path, value


def split_of_rows(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the split of a pair made from several rows: the one of highest precedence."""
    kinds = (kind_of(said) for said in map(said_split, rows) if said is not None)
    return max((kind for kind in kinds if kind), key=rank_of, default=None)


def name_splits(names: Sequence[str], given: Mapping[str, str]) -> list[FileSplit]:
    """Return the split of each input as given, or by its name, or by its directory's name.

    Names count only if they name at least two splits, or if any split is given; then a file that
    names none is `rest`. Otherwise each is `none`, with the split that it names.
    """
    named = dict(zip(names, _named_by_paths(names), strict=True))
    kinds = {frozenset(one.kinds if one else [TRAIN]) for one in named.values()}
    if not given and len(kinds) < 2:
        sure = {name: one.kind for name, one in named.items() if one and one.is_plain}
        return [FileSplit(sure.get(name), "none") for name in names]
    by_file: dict[str, FileSplit] = {}
    paths = [PurePath(name) for name, one in named.items() if one is not None]
    sharded = {path.parent for path in paths if _SHARD_NAME.fullmatch(path.name)}
    for name, found in named.items():
        if name in given:
            by_rows = given[name] == ROWS
            by_file[name] = FileSplit(None, "rows") if by_rows else FileSplit(given[name], "given")
        elif found is not None:
            _require_one_reading(name, found)
            by_file[name] = FileSplit(found.kind, found.said_by)
        else:
            _require_no_own_split(name, sharded)
            by_file[name] = FileSplit(TRAIN, "rest")
    return [by_file[name] for name in names]


def _require_no_own_split(name: str, folders: Collection[PurePath]) -> None:
    """Raise E185 if shards such as `hard-00000-of-00001` are given with shards of `train`."""
    own = _SHARD_NAME.fullmatch(PurePath(name).name)
    if own and PurePath(name).parent in folders:
        problem = f"may be a split {own[1]!r} of its own, as files here are named, or rows to train"
        raise UsageError("E185", name, problem, _REMEDY.format(split=own[1]))


def _require_one_reading(name: str, reading: _Reading) -> None:
    """Raise E185 if a name has two readings, of which only one is trained."""
    kinds = reading.kinds
    if TRAIN in kinds and len(kinds) > 1:
        problem = f"has {' and '.join(sorted(kinds))} in its name, and other inputs are of others"
        split = min(kinds - {TRAIN})
        raise UsageError("E185", name, problem, _REMEDY.format(split=split))
    if not reading.is_sure and reading.kind != TRAIN:
        problem = f"may be the {reading.kind} split, or rows to train on with such a name"
        raise UsageError("E185", name, problem, _REMEDY.format(split=reading.kind))


def _named_by_paths(names: Sequence[str]) -> list[_Reading | None]:
    """Read each path: the file's name first, then its directories from the nearest upwards.

    Directories that all inputs share are ignored, so a dataset is read the same at any path.
    """
    paths = [PurePath(os.path.abspath(name)) for name in names]  # noqa: PTH100 - links stay
    shared = len(PurePath(os.path.commonpath([path.parent for path in paths])).parts)
    files = _read_all([_words(path.name, is_file=True) for path in paths])
    folders = [list(reversed(path.parts[shared:-1])) for path in paths]
    depth = max(map(len, folders))
    levels = [
        _read_all([_words(own[at], is_file=False) if at < len(own) else [] for own in folders])
        for at in range(depth)
    ]
    found: list[_Reading | None] = []
    for number, own in enumerate(files):
        above = [level[number] for level in levels]
        folder = next((one for one in above if one is not None and one.is_sure), None)
        if folder is None and above and above[0] is not None and above[0].is_last:
            folder = above[0]
        if own is None:
            found.append(folder and folder._replace(said_by="folder"))
            continue
        if folder is not None and (folder.kind == TRAIN) != (own.kind == TRAIN):
            own = own._replace(others=own.others | {folder.kind})
        found.append(own)
    return found


class _Neighbors(NamedTuple):
    """Names in one directory level, which can confirm each other's reading."""

    plain: frozenset[frozenset[str]]
    """Words of each name without a split."""
    rests: dict[str, set[str]]
    """Other words of names with a split, by its kind."""
    last: frozenset[str]
    """Kinds of split that end a name."""


def _read_all(names: Sequence[list[str]]) -> list[_Reading | None]:
    """Read the names of one level, each by its words; a name without words is ignored."""
    readings = [_read(words) for words in names]
    both = list(zip(names, readings, strict=True))
    rests: dict[str, set[str]] = {}
    for one in filter(None, readings):
        rests.setdefault(one.kind, set()).update(one.rest)
    near = _Neighbors(
        frozenset(frozenset(words) for words, one in both if words and one is None),
        rests,
        frozenset(one.kind for one in readings if one and one.is_last),
    )
    return [one and one._replace(is_sure=_is_sure(one, near)) for one in readings]


def _read(words: list[str]) -> _Reading | None:
    """Read one part of a path; return None if none of its words names a split."""
    places = [at for at, word in enumerate(words) if word in KINDS]
    if not places:
        return None
    is_last = places[-1] == len(words) - 1
    word = words[places[-1] if is_last else places[0]]
    rest = frozenset(word for word in words if word not in KINDS)
    others = frozenset(KINDS[words[at]] for at in places) - {KINDS[word]}
    return _Reading(word, rest, is_last, others=others)


def _is_sure(one: _Reading, near: _Neighbors) -> bool:
    """Return whether a name means a split: by itself, or because other names match it.

    `test`, `test_prefs`; `hh_test` with `hh`; `my_test_en` with `my_train_en`; `a_test` with
    `b_train`. Not `test-prep-questions` or `turing-test` with `chat`, nor `valid_rows`.
    """
    if not one.rest or (one.rest <= _DATA_WORDS and one.word != "valid"):
        return True
    if one.rest in near.plain or (one.is_last and near.last - {one.kind}):
        return True
    return any(one.rest & rest for kind, rest in near.rests.items() if kind != one.kind)


def _words(name: str, *, is_file: bool) -> list[str]:
    """Return words in lower case, camelCase split, without numbers, versions and file endings.

    >>> _words("trainPrefs_v2-00000-of-00001.jsonl.gz", is_file=True)
    ['train', 'prefs']
    """
    text = _HELD_OUT.sub(r"\1out", _VERSION.sub(" ", _SHARD.sub(" ", name)))
    found = [word.lower() for word in _WORD.findall(text)]
    while is_file and len(found) > 1 and found[-1] in _ENDINGS:
        found.pop()
    return [word for word in found if not word.isdigit()]
