"""Names of splits: what the names of files and folders, and the rows' `split` column, say.

    data/train_prefs-00000-of-00001.parquet   train        prefs_test.jsonl.gz   test
    data/dev/part-0.jsonl                     validation   latest.jsonl          none

A name speaks of a split only with a whole word. Two readings that differ in what is trained, such
as `test-prep-questions.jsonl` among other files, are an error (E185) that shows both.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
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
"""Of what two splits share, the later one keeps it; train and all other names give way to these."""
SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
MAX_NAME = 64
SPLIT_KEYS = ("split", "Split", "SPLIT", "data_split", "dataset_split", "split_name")
"""Columns in which rows say their split."""
AUTO, ROWS = "auto", "rows"
"""Keys of `inputs` for files whose splits are told by their names, and by their rows."""

_ENDINGS = frozenset(
    (
        *("jsonl", "json", "ndjson", "csv", "tsv", "txt", "parquet", "pq", "arrow", "feather"),
        *("gz", "zst", "bz2", "xz", "snappy", "zip"),
    )
)
_SHARD = re.compile(r"\d+[-_ ]?of[-_ ]?\d+", re.IGNORECASE)
_HELD_OUT = re.compile(r"(held|hold)[-_ ]out", re.IGNORECASE)
_VERSION = re.compile(r"(?<![A-Za-z])v\d+", re.IGNORECASE)
_SHARD_NAME = re.compile(r"([A-Za-z0-9_.]+)-\d{5}-of-\d{5}\.(parquet|arrow|jsonl)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_REMEDY = "say which with --split {split}=FILE or --split train=FILE, or mix all with --resplit"

ToldBy = Literal["given", "name", "folder", "rest", "rows", "drawn", "none"]
"""Who says what split a file is: the config; its name; its folder's name; no one, where others
have a split; its rows; no one, so that pairs are drawn by prompt, or, in a validation, not."""


class FileSplit(NamedTuple):
    """The split of one input."""

    split: str | None
    """None: each row has its own, or all inputs are one set."""
    told_by: ToldBy


class _Reading(NamedTuple):
    """What one name says: the words around its split's word tell how surely."""

    kind: str
    rest: frozenset[str]
    is_sure: bool
    others: frozenset[str] = frozenset()
    """Other splits that the name speaks of too."""

    @property
    def kinds(self) -> frozenset[str]:
        return self.others | {self.kind}


class _Named(NamedTuple):
    """The reading that counts of a file's path, and where it stands."""

    reading: _Reading
    told_by: ToldBy


def require_split_names(names: Sequence[str]) -> None:
    """ValueError unless all are plain names, each of a file of its own on any disk."""
    for name in names:
        if not SPLIT_NAME.fullmatch(name) or len(name) > MAX_NAME:
            message = f"{name[:MAX_NAME]!r} is no name of a split: letters, digits, _ and dots"
            raise ValueError(message)
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("two splits differ only in capital letters")


@lru_cache(maxsize=1024)
def kind_of(split: str) -> str | None:
    """The kind of split that a name is of, one of KINDS' values; None for a name of its own.

    >>> kind_of("valid1"), kind_of("test_hard"), kind_of("chat")
    ('validation', 'test', None)
    """
    reading = _read(split)
    return reading.kind if reading and reading.is_sure and not reading.others else None


def rank_of(split: str) -> tuple[int, str]:
    """Sorts splits by who gives way: train, names of their own, validation, eval, test.

    >>> sorted(["test", "chat", "train", "validation"], key=rank_of)
    ['train', 'chat', 'validation', 'test']
    """
    kind = kind_of(split)
    if kind in PRECEDENCE:
        return 2 + PRECEDENCE.index(kind), split
    return int(split != TRAIN), split


def said_split(row: Mapping[str, Any]) -> str | None:
    """What a row says of its split, as it says it."""
    found = (row.get(key) for key in SPLIT_KEYS)
    return next((value[:MAX_NAME] for value in found if isinstance(value, str) and value), None)


def split_of_rows(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The split of a pair of several rows: of those that they name, the one that gives way last."""
    kinds = (kind_of(said) for said in map(said_split, rows) if said is not None)
    return max((kind for kind in kinds if kind), key=rank_of, default=None)


def name_splits(names: Sequence[str], given: Mapping[str, str]) -> list[FileSplit]:
    """The split of each input by what is given, else by its name, else by its folder's name.

    Names divide inputs only if they say at least two splits, or if some split is given: then a
    file that no one speaks of is `rest`. Otherwise each is `none`, with the split that it names.
    """
    named = dict(zip(names, _named_by_paths(names), strict=True))
    told: dict[str, FileSplit] = {}
    for name, found in named.items():
        if name in given:
            by_rows = given[name] == ROWS
            told[name] = FileSplit(None, "rows") if by_rows else FileSplit(given[name], "given")
        else:
            told[name] = FileSplit(found and found.reading.kind, found.told_by if found else "none")
    kinds = {frozenset(one.reading.kinds if one else [TRAIN]) for one in named.values()}
    if not given and len(kinds) < 2:
        return [FileSplit(_sure_kind(named[name]), "none") for name in names]
    for name, found in named.items():
        if name in given:
            continue
        if found is not None:
            _require_one_reading(name, found.reading)
        else:
            _require_no_own_split(name, [other for other, one in named.items() if one])
            told[name] = FileSplit(TRAIN, "rest")
    return [told[name] for name in names]


def _sure_kind(named: _Named | None) -> str | None:
    reading = named.reading if named else None
    return reading.kind if reading and reading.is_sure and not reading.others else None


def _require_no_own_split(name: str, named: Sequence[str]) -> None:
    """E185 for `hard-00000-of-00001.parquet` beside `train-00000-of-00001.parquet`: a split too."""
    own = _SHARD_NAME.fullmatch(PurePath(name).name)
    folder = PurePath(name).parent
    others = (PurePath(other) for other in named)
    if own and any(o.parent == folder and _SHARD_NAME.fullmatch(o.name) for o in others):
        problem = f"may be a split {own[1]!r} of its own, as files here are named, or rows to train"
        raise UsageError("E185", name, problem, _REMEDY.format(split=own[1]))


def _require_one_reading(name: str, reading: _Reading) -> None:
    """E185 if a name may be read in two ways, of which one is trained and the other is not."""
    kinds = reading.kinds
    if TRAIN in kinds and len(kinds) > 1:
        problem = f"has {' and '.join(sorted(kinds))} in its name, and other inputs are of others"
        split = min(kinds - {TRAIN})
        raise UsageError("E185", name, problem, _REMEDY.format(split=split))
    if not reading.is_sure and reading.kind != TRAIN:
        problem = f"may be the {reading.kind} split, or rows to train on with such a name"
        raise UsageError("E185", name, problem, _REMEDY.format(split=reading.kind))


def _named_by_paths(names: Sequence[str]) -> list[_Named | None]:
    """What each path says: the file's name first, then its folders from the nearest upwards.

    Folders that all inputs lie in say nothing, so a set is read the same wherever it lies.
    """
    paths = [PurePath(os.path.abspath(name)) for name in names]  # noqa: PTH100 - links stay
    shared = len(PurePath(os.path.commonpath([path.parent for path in paths])).parts)
    files = _surer([_read(path.name, is_file=True) for path in paths])
    folders = [[_read(part) for part in reversed(path.parts[shared:-1])] for path in paths]
    depth = max(map(len, folders))
    levels = [_surer([f[at] if at < len(f) else None for f in folders]) for at in range(depth)]
    found: list[_Named | None] = []
    for number, own in enumerate(files):
        above = [level[number] for level in levels]
        sure = next((one for one in above if one is not None and one.is_sure), None)
        if own is None:
            found.append(_Named(sure, "folder") if sure else None)
            continue
        if sure is not None and (sure.kind == TRAIN) != (own.kind == TRAIN):
            own = own._replace(others=own.others | {sure.kind})
        found.append(_Named(own, "name"))
    return found


def _surer(readings: Sequence[_Reading | None]) -> list[_Reading | None]:
    """Readings, of which those are sure that name one set with a reading of another split.

    `test_prefs_clean` beside `train_prefs_clean` is the same set's test split.
    """
    rests: dict[str, set[str]] = {}
    for one in readings:
        if one is not None:
            rests.setdefault(one.kind, set()).update(one.rest)
    result: list[_Reading | None] = []
    for one in readings:
        if one is not None and not one.is_sure:
            others = [rest for kind, rest in rests.items() if kind != one.kind]
            one = one._replace(is_sure=any(one.rest & rest for rest in others))
        result.append(one)
    return result


def _read(name: str, *, is_file: bool = False) -> _Reading | None:
    """What one part of a path says; None if none of its words is that of a split.

    The split's word comes last, or first with at most one other word behind it: more words, as in
    `test-prep-questions`, or words on both sides, are not sure. Numbers and endings do not count.
    """
    words = _words(name, is_file=is_file)
    places = [at for at, word in enumerate(words) if word in KINDS]
    if not places:
        return None
    kinds = [KINDS[words[at]] for at in places]
    rest = frozenset(word for word in words if word not in KINDS)
    at = places[-1] if places[-1] == len(words) - 1 else places[0]
    is_sure = at == len(words) - 1 or (at == 0 and len(words) <= 2)
    return _Reading(KINDS[words[at]], rest, is_sure, frozenset(kinds) - {KINDS[words[at]]})


def _words(name: str, *, is_file: bool) -> list[str]:
    """Words in lower case, camelCase taken apart, without numbers, versions and a file's endings.

    >>> _words("trainPrefs_v2-00000-of-00001.jsonl.gz", is_file=True)
    ['train', 'prefs']
    """
    text = _HELD_OUT.sub(r"\1out", _VERSION.sub(" ", _SHARD.sub(" ", name)))
    found = [word.lower() for word in _WORD.findall(text)]
    while is_file and len(found) > 1 and found[-1] in _ENDINGS:
        found.pop()
    return [word for word in found if not word.isdigit()]
