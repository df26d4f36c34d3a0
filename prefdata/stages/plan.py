"""Plan of a build: its identity, and the shards to make."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.check.rows.own import own_checks
from prefdata.config import BuildConfig
from prefdata.errors import EmptyError
from prefdata.read import InputFile, expand_inputs, installed_layouts, label_sources, load_layout
from prefdata.records.keys import GROUP_ID
from prefdata.records.split_names import AUTO, TRAIN, Leaks, kind_of
from prefdata.records.text import FIELD_NAMES
from prefdata.stages.scan import ScanResult
from prefdata.stages.shard import ShardTask
from prefdata.stages.split import (
    FEW_ROWS,
    Splits,
    draw_test,
    expand_splits,
    splits_of_files,
    too_large,
)
from prefdata.store.canonical import fingerprint
from prefdata.store.commit import sha256_file
from prefdata.store.manifest import FORMAT_VERSION, TokenizerIdentity, shared_name
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.tokenizer import TokenizerSpec

DRAWN = "test"
"""Name of the split that is drawn."""
_CHECKED_ROWS = 65_536  # per task of a validation
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


def shard_tasks(
    found: ScanResult, config: BuildConfig, target: TokenizerSpec, root: Path
) -> list[ShardTask]:
    """Return the shard tasks of each split; the pairs of a prompt are adjacent, in one shard."""
    kept = _side_by_side(found)
    names = tuple(part.name for part in found.parts)
    fields = _fields(found)
    has_verbatim = any(part.facts.is_text for part in found.parts)
    tasks, weights = [], np.array([file.file.of.weight for file in found.files])
    for split, rows in _by_split(kept, found, config):
        ends, is_part = _group_ends(rows), split == TRAIN and bool((weights != 1).any())
        most = np.ceil(weights).astype(np.int64) if is_part else np.ones(len(weights), np.int64)
        copies = most[found.keys["source_index"].gather(rows["at"]).to_numpy()]
        cuts = list(_cuts(ends, np.cumsum(copies)[ends - 1], config.shard_rows))
        for number, (start, stop) in enumerate(cuts):
            places = rows[start:stop].select("at", "part", "row")
            name = f"{split}-{number:05d}-of-{len(cuts):05d}"
            options = config.token_options
            task = ShardTask(root, split, name, names, places, target, options, fields)
            begins = found.element_lines(rows[start:stop]["at"])
            task = task._replace(begins=begins, has_verbatim=has_verbatim, is_part=is_part)
            tasks.append(task)
    return tasks


def check_tasks(
    found: ScanResult, target: TokenizerSpec, options: TokenOptions, root: Path
) -> list[ShardTask]:
    """Return tasks that tokenize every kept record, in input order, and write nothing."""
    kept = found.keys.select("part", "row").with_row_index("at")
    kept = kept.filter(pl.Series(found.decision.kept_mask)).select("at", "part", "row")
    names = tuple(part.name for part in found.parts)
    return [
        ShardTask(root, TRAIN, f"check-{start}", names, places, target, options, ())
        for start, places in enumerate(kept.iter_slices(_CHECKED_ROWS))
    ]


def _by_split(
    kept: pl.DataFrame, found: ScanResult, config: BuildConfig
) -> list[tuple[str, pl.DataFrame]]:
    """Return the rows of each split: the splits of the inputs, and test drawn from train."""
    of_rows = found.splits.of_rows
    parts = [(TRAIN, kept)]
    if of_rows is not None:
        own = pl.Series(of_rows)[kept["at"]]
        parts = [(name, kept.filter(own == at)) for at, name in enumerate(found.splits.names)]
    fraction = _drawn_fraction(found.splits, config)
    result = []
    for name, rows in parts:
        if name != TRAIN or not fraction:
            result.append((name, rows))
            continue
        split_key = rows["split_key"].to_numpy()
        in_test = draw_test(split_key, test_fraction=fraction, seed=config.seed)
        result += [(TRAIN, rows.filter(~in_test)), (DRAWN, rows.filter(in_test))]
    return result


def _drawn_fraction(splits: Splits, config: BuildConfig) -> float:
    """Return the share of train that is drawn for test: none if the inputs have a test split."""
    if not splits.is_divided:
        return config.fraction
    has_test = any(kind_of(name) in ("test", "eval") for name in splits.names)
    return 0.0 if has_test else config.test_fraction or 0.0


def split_notes(found: ScanResult, config: BuildConfig) -> list[str]:
    """Return notes on the splits: empty ones, an unused test_fraction, clusters kept in train."""
    notes = []
    for name in found.splits.names:
        own, size = _dropped_of(name, found)
        if not size:
            notes.append(f"no pair of {name} is left: none of its rows could be read as a pair")
        elif len(own) == size:
            shared = _count_codes(own)
            notes.append(f"no pair of {name} is left: all {size:,} are in another split ({shared})")
    fraction = _drawn_fraction(found.splits, config)
    if config.test_fraction and not fraction:
        names = ", ".join(found.splits.names)
        notes.append(f"test_fraction draws nothing: the inputs came in the splits {names}")
    if found.splits.is_divided and config.near is None:
        notes.append(
            "near-duplicate prompts in two splits (PD502) are not searched for: PD402 is off"
        )
    return notes + (_stuck_notes(found, fraction) if fraction else [])


def _stuck_notes(found: ScanResult, fraction: float) -> list[str]:
    """Return a note on pairs whose cluster is too large for test."""
    kept_mask, of_rows = found.decision.kept_mask, found.splits.of_rows
    if of_rows is not None:
        if TRAIN not in found.splits.names:
            return []
        kept_mask = kept_mask & (of_rows == found.splits.names.index(TRAIN))
    stuck = int(too_large(found.decision.split_key[kept_mask], test_fraction=fraction).sum())
    if not stuck:
        return []
    return [
        f"{stuck} pairs stay in train: their near-duplicate cluster is larger than the test split;"
        " if the prompts share a template, raise near_duplicates.threshold or set PD402 off"
    ]


def require_sound_splits(found: ScanResult, leaks_are: Leaks) -> None:
    """Raise E187 for leaks under `leaks: refuse`, E188 or E189 if train would lose its pairs."""
    leaks, splits = found.decision.leaks, found.splits
    if splits.of_rows is None:
        return
    counts = _count_codes(leaks.filter(pl.col("level") != "I"))
    if counts and leaks_are == "refuse":
        remedy = "drop them with `leaks: drop_from_train`, or keep them with `leaks: report`"
        raise EmptyError("E187", "inputs", f"splits share pairs or prompts: {counts}", remedy)
    own, size = _dropped_of(TRAIN, found)
    near = own.filter(pl.col("code") == "PD502")
    if len(near) > max(FEW_ROWS, size / 2):
        problem = (
            f"{len(near):,} of {size:,} pairs have a prompt that is a near-duplicate of one in "
            "another split (PD502), as prompts of one template are"
        )
        remedy = "raise near_duplicates.threshold, or keep them with `severity: {PD502: I}`"
        raise EmptyError("E188", "split train", problem, remedy)
    if len(own) == size and len(own):
        problem = f"all of its {size:,} pairs are in another split too: {_count_codes(own)}"
        remedy = "check the files, or keep the shared pairs with `leaks: report`"
        raise EmptyError("E189", "split train", problem, remedy)


def _dropped_of(split: str, found: ScanResult) -> tuple[pl.DataFrame, int]:
    """Return the leaks dropped from a split, and its number of pairs before that."""
    of_rows, names = found.splits.of_rows, found.splits.names
    if of_rows is None or split not in names:
        return found.decision.leaks.clear(), 0
    own = of_rows == names.index(split)
    dropped = found.decision.leaks.filter("dropped")
    return dropped.filter(pl.Series(own)[dropped["at"]]), int(own.sum())


def _count_codes(leaks: pl.DataFrame) -> str:
    counts = leaks.group_by("code").len().sort("code").iter_rows()
    return ", ".join(f"{number:,} {code}" for code, number in counts)


def _side_by_side(found: ScanResult) -> pl.DataFrame:
    """Return the kept pairs, grouped by prompt; groups are in the order of their first pairs."""
    kept = found.keys.select(*GROUP_ID, "part", "row").with_row_index("at")
    kept = kept.with_columns(split_key=pl.Series(found.decision.split_key))
    kept = kept.filter(pl.Series(found.decision.kept_mask))
    return kept.with_columns(first=pl.col("at").first().over(GROUP_ID)).sort("first", "at")


def _fields(found: ScanResult) -> tuple[str, ...]:
    """Return the message fields of the text shards; none if all data is verbatim text."""
    if not any(part.facts.is_chat for part in found.parts):
        return ()
    used = {name for part in found.parts for name in part.facts.fields}
    return tuple(sorted(used, key=FIELD_NAMES.index))


def _group_ends(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Return the end index of each group."""
    ids = rows.select(*GROUP_ID).to_numpy()
    changes = np.flatnonzero((ids[1:] != ids[:-1]).any(1)) + 1
    return np.append(changes, len(rows)) if len(rows) else changes


def _cuts(
    ends: NDArray[np.int64], filled: NDArray[np.int64], shard_rows: int
) -> Iterator[tuple[int, int]]:
    """Yield ranges of whole groups that fill at most `shard_rows` rows, unless one group is larger.

    `filled` are the rows that are written up to each end. Groups that end at 2, 3 and 7, each row
    written once, in shards of 4 rows, give the ranges 0 to 3 and 3 to 7.
    """
    first, start, before = 0, 0, 0
    while first < len(ends):
        fits = int(np.searchsorted(filled, before + shard_rows, side="right"))
        last = max(fits - 1, first)
        yield start, int(ends[last])
        first, start, before = last + 1, int(ends[last]), int(filled[last])
