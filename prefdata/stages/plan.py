"""Plan of a build: its identity, and the shards to make."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.check.rows.own import own_checks
from prefdata.config import BuildConfig
from prefdata.engine.exchange import KEY, Bucket, cut_rows, read_bucket, read_parts
from prefdata.errors import EmptyError
from prefdata.read import InputFile, expand_inputs, installed_layouts, label_sources, load_layout
from prefdata.records.split_names import AUTO, TRAIN, Leaks
from prefdata.records.text import FIELD_NAMES
from prefdata.stages.events import LEAKED
from prefdata.stages.scan import ScanResult
from prefdata.stages.shard import ShardTask
from prefdata.stages.share import OfPart, OfSplit
from prefdata.stages.split import FEW_ROWS, Draw, expand_splits, splits_of_files
from prefdata.store.canonical import fingerprint
from prefdata.store.commit import sha256_file
from prefdata.store.manifest import FORMAT_VERSION, TokenizerIdentity, shared_name
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.tokenizer import TokenizerSpec

TOOL_VERSION = version("prefdata-dpo")
LIBRARIES = {
    name: version(name) for name in ("orjson", "polars", "pyarrow", "tokenizers", "transformers")
}


class BuildInputs(NamedTuple):
    """Files of a build, labelled, with their hashes at its start."""

    files: list[InputFile]
    """The data files."""
    evaluations: list[InputFile]
    exclude: list[InputFile]
    given: Mapping[str, str]
    """Split of each data file that is given one, by file name."""
    digests: Mapping[str, str]
    """sha256 of each file, by file name."""


class BuildSeal(NamedTuple):
    """Identity of a build, known before it is made, as manifest and report contain it."""

    config: dict[str, Any]
    """The resolved config, with labels instead of paths."""
    tokenizer: TokenizerIdentity
    fingerprint: str


def read_inputs(config: BuildConfig) -> BuildInputs:
    """Find and hash every file that a build reads."""
    files, given = expand_splits(config.inputs)
    evaluations, exclude = expand_inputs(config.evaluations), expand_inputs(config.exclude)
    digests = {f.name: sha256_file(f.path) for f in (*files, *evaluations, *exclude)}
    return BuildInputs(
        label_sources(files, digests),
        label_sources(evaluations, digests),
        label_sources(exclude, digests),
        given,
        digests,
    )


def seal_config(config: BuildConfig, inputs: BuildInputs) -> dict[str, Any]:
    """Return the config keys that decide the bytes of a build, as JSON without local paths.

    Files are named by their labels, directories by their last part. Their contents are hashed
    elsewhere.
    """
    sealed = config.identity
    sealed["inputs"] = _sealed_inputs(inputs)
    sealed["evaluations"] = [file.label for file in inputs.evaluations]
    sealed["exclude"] = [file.label for file in inputs.exclude]
    for key in ("tokenizer", "layout", "chat_template"):
        if sealed[key] is not None:
            sealed[key] = shared_name(sealed[key])
    return sealed


def _sealed_inputs(inputs: BuildInputs) -> list[Any] | dict[str, list[str]]:
    """Return the inputs by their labels, in the simplest of the forms that a config accepts."""
    if any(_settings_of(file) for file in inputs.files):
        return [
            {"path": file.label, **({"split": split} if split else {}), **_settings_of(file)}
            for file in inputs.files
            for split in [inputs.given.get(file.name)]
        ]
    by_split: dict[str, list[str]] = {}
    for file in inputs.files:
        by_split.setdefault(inputs.given.get(file.name, AUTO), []).append(file.label)
    return by_split if inputs.given else by_split.get(AUTO, [])


def _settings_of(file: InputFile) -> dict[str, Any]:
    """Return what the config says of a file's source, without its path and split."""
    said = file.of.model_dump(exclude={"path", "split"}, exclude_defaults=True)
    if "layout" in said:
        said["layout"] = shared_name(said["layout"])
    return said


def seal_build(config: BuildConfig, target: TokenizerSpec, inputs: BuildInputs) -> BuildSeal:
    """Return the config, the tokenizer's identity, and a hash of all that decides the bytes."""
    sealed, tokenizer = seal_config(config, inputs), target.seal()
    named = [] if config.resplit else splits_of_files(inputs.files, inputs.given)
    layout = load_layout(config.layout) if config.layout else None
    own = {file.of.layout: load_layout(file.of.layout) for file in inputs.files if file.of.layout}
    read = [*inputs.files, *inputs.evaluations, *inputs.exclude]
    decides = {
        "format_version": FORMAT_VERSION,
        "tool_version": TOOL_VERSION,
        "config": sealed,
        "layout": layout,
        **({"layouts": own} if own else {}),
        **_detectable(config),
        "inputs": [(file.label, inputs.digests[file.name]) for file in read],
        "splits": [list(one) for one in named],
        "tokenizer": tokenizer,
        "special_tokens": target.special_tokens,
    }
    if checks := own_checks(config.checks.own):
        decides["own_checks"] = [(check.name, check.sha256) for check in checks]
    return BuildSeal(sealed, tokenizer, fingerprint(decides))


def _detectable(config: BuildConfig) -> dict[str, Any]:
    """Return the layouts of installed packages, if a file's layout may be one of them."""
    layouts = {} if config.layout else installed_layouts()
    found = {name: one.model_dump(mode="json") for name, one in layouts.items() if one.detect}
    return {"installed_layouts": found} if found else {}


def draw_of(config: BuildConfig) -> Draw:
    """Return the test split that a config draws."""
    return Draw(config.fraction, config.test_fraction, config.seed)


def shard_tasks(found: ScanResult, config: BuildConfig, target: TokenizerSpec) -> list[ShardTask]:
    """Return the shard tasks of each split; the pairs of a prompt are adjacent, in one shard."""
    plan = found.plan
    assert plan is not None
    weights = np.array([file.file.of.weight for file in found.files])
    is_mixed = bool((weights != 1).any())
    most = np.ceil(weights).astype(np.int64)
    cutters = [
        _Cutter(config.shard_rows, most if is_mixed and name == TRAIN else None)
        for name in plan.names
    ]
    paths = found.decisions.paths(found.root, "order")
    for rows in cut_rows(read_parts(found.root).num_rows):
        order = read_bucket(paths, rows).select(KEY, "final", "source_index").sort(KEY)
        for split, cutter in enumerate(cutters):
            cutter.take(order.filter(pl.col("final") == split))
    tasks = []
    for split, (name, cutter) in enumerate(zip(plan.names, cutters, strict=True)):
        cuts = cutter.finish()
        for number, (keys, num) in enumerate(cuts):
            tasks.append(
                ShardTask(
                    found.root,
                    name,
                    f"{name}-{number:05d}-of-{len(cuts):05d}",
                    OfSplit(found.decisions, split, keys, num),
                    target,
                    config.token_options,
                    _fields(found),
                    has_verbatim=any(part.facts.is_text for part in found.parts),
                    is_part=is_mixed and name == TRAIN,
                )
            )
    return tasks


def check_tasks(found: ScanResult, target: TokenizerSpec, options: TokenOptions) -> list[ShardTask]:
    """Return tasks that tokenize every kept record, in input order, and write no shard."""
    parts = read_parts(found.root)
    shares = [
        OfPart(found.decisions, part, parts.size_of(part)) for part in range(len(parts.names))
    ]
    return [
        ShardTask(found.root, TRAIN, f"check-{number:05d}", share, target, options, ())
        for number, share in enumerate(shares)
    ]


def split_notes(found: ScanResult, config: BuildConfig) -> list[str]:
    """Return notes on the splits: empty ones, an unused test_fraction, clusters kept in train."""
    notes = []
    for name in found.splits.names:
        own, size = _dropped_of(name, found)
        if not size:
            notes.append(f"no pair of {name} is left: none of its rows could be read as a pair")
        elif _total(own) == size:
            shared = _count_codes(own)
            notes.append(f"no pair of {name} is left: all {size:,} are in another split ({shared})")
    fraction = draw_of(config).share(found.splits)
    if config.test_fraction and not fraction:
        names = ", ".join(found.splits.names)
        notes.append(f"test_fraction draws nothing: the inputs came in the splits {names}")
    if found.splits.is_divided and config.near is None:
        notes.append(
            "near-duplicate prompts in two splits (PD502) are not searched for: PD402 is off"
        )
    if stuck := found.checked.stuck:
        notes.append(
            f"{stuck} pairs stay in train: their near-duplicate cluster is larger than the test "
            "split; if the prompts share a template, raise near_duplicates.threshold or set PD402 "
            "off"
        )
    return notes


def require_sound_splits(found: ScanResult, leaks_are: Leaks) -> None:
    """Raise E187 for leaks under `leaks: refuse`, E188 or E189 if train would lose its pairs."""
    if not found.splits.is_divided:
        return
    leaks = found.settled.counts.filter(pl.col("kind") == LEAKED, pl.col("level") != "I")
    if len(leaks) and leaks_are == "refuse":
        remedy = "drop them with `leaks: drop_from_train`, or keep them with `leaks: report`"
        problem = f"splits share pairs or prompts: {_count_codes(leaks)}"
        raise EmptyError("E187", "inputs", problem, remedy)
    own, size = _dropped_of(TRAIN, found)
    near = _total(own.filter(pl.col("code") == "PD502"))
    if near > max(FEW_ROWS, size / 2):
        problem = (
            f"{near:,} of {size:,} pairs have a prompt that is a near-duplicate of one in "
            "another split (PD502), as prompts of one template are"
        )
        remedy = "raise near_duplicates.threshold, or keep them with `severity: {PD502: I}`"
        raise EmptyError("E188", "split train", problem, remedy)
    if _total(own) == size and len(own):
        problem = f"all of its {size:,} pairs are in another split too: {_count_codes(own)}"
        remedy = "check the files, or keep the shared pairs with `leaks: report`"
        raise EmptyError("E189", "split train", problem, remedy)


def _dropped_of(split: str, found: ScanResult) -> tuple[pl.DataFrame, int]:
    """Return the counts of leaks dropped from a split, and its number of pairs before that."""
    counts, names = found.settled.counts, found.splits.names
    if not found.splits.is_divided or split not in names:
        return counts.clear(), 0
    place, rows = names.index(split), found.decisions.rows_of_splits
    own = counts.filter(pl.col("kind") == LEAKED, pl.col("dropped"), pl.col("split") == place)
    return own, rows[place] if rows else 0


def _total(counts: pl.DataFrame) -> int:
    return int(counts["num"].sum())


def _count_codes(counts: pl.DataFrame) -> str:
    codes = counts.group_by("code").agg(pl.col("num").sum()).sort("code").iter_rows()
    return ", ".join(f"{number:,} {code}" for code, number in codes)


def _fields(found: ScanResult) -> tuple[str, ...]:
    """Return the message fields of the text shards; none if all data is verbatim text."""
    if not any(part.facts.is_chat for part in found.parts):
        return ()
    used = {name for part in found.parts for name in part.facts.fields}
    return tuple(sorted(used, key=FIELD_NAMES.index))


class _Cutter:
    """Cuts of one split into shards, as its pairs come by in the order of their prompts.

    A shard has whole prompts, of at most `shard_rows` rows, unless one prompt has more.
    """

    def __init__(self, shard_rows: int, copies: NDArray[np.int64] | None) -> None:
        """Take the number of times that pairs of each input are written; None: once."""
        self._most, self._copies = shard_rows, copies
        self._cuts: list[tuple[Bucket, int]] = []
        self._first: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._sizes = self._filled = np.zeros(0, np.int64)

    def take(self, rows: pl.DataFrame) -> None:
        """Take the next pairs: `key`, the first of the prompt, and `source_index`."""
        keys = rows[KEY].to_numpy()
        first, starts = np.unique(keys, return_index=True)
        sizes = np.diff(starts, append=len(keys))
        filled = sizes
        if self._copies is not None and len(keys):
            filled = np.add.reduceat(self._copies[rows["source_index"].to_numpy()], starts)
        self._first = np.concatenate([self._first, first])
        self._sizes = np.concatenate([self._sizes, sizes])
        self._filled = np.concatenate([self._filled, filled])
        cuts = list(_cuts(np.cumsum(self._filled), self._most))
        self._close(cuts[:-1])

    def finish(self) -> list[tuple[Bucket, int]]:
        """Return the range of keys of each shard, and the number of its pairs."""
        self._close(list(_cuts(np.cumsum(self._filled), self._most)))
        return self._cuts

    def _close(self, cuts: Sequence[tuple[int, int]]) -> None:
        for start, stop in cuts:
            keys = Bucket(int(self._first[start]), int(self._first[stop - 1]))
            self._cuts.append((keys, int(self._sizes[start:stop].sum())))
        done = cuts[-1][1] if cuts else 0
        rest = slice(done, None)
        self._first, self._sizes = self._first[rest], self._sizes[rest]
        self._filled = self._filled[rest]


def _cuts(filled: NDArray[np.int64], shard_rows: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of prompts that fill at most `shard_rows` rows, unless one prompt is larger.

    `filled` are the rows up to the end of each prompt: those of prompts of 2, 1 and 4 rows are 2, 3
    and 7, and in shards of 4 rows the ranges are 0 to 2 and 2 to 3.
    """
    first, before = 0, 0
    while first < len(filled):
        fits = int(np.searchsorted(filled, before + shard_rows, side="right"))
        last = max(fits - 1, first)
        yield first, last + 1
        first, before = last + 1, int(filled[last])
