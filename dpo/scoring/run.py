"""A scoring run: log-probs under policy and reference, then scores, suspects and their report.

OUT/data/            a build of the files, if files were given
OUT/policy/          log-probs under the policy, resumed shard by shard
OUT/reference/       log-probs under the reference, unless the build has them
OUT/scores.parquet   one row for each pair
OUT/suspects.jsonl   pairs whose label the policy contradicts, for `prefdata build --exclude`
OUT/score.json       accuracy by part, calibration
OUT/.dpo-score.json  marks the directory as made by dpo-score
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
import polars as pl

import prefdata
from dpo.data.pairs import Pairs
from dpo.data.reference_folder import MANIFEST, PARTIAL, discard_reference, reference_folder
from dpo.data.reference_store import Reference, open_reference
from dpo.errors import MismatchError, UsageError
from dpo.model.fingerprints import check_lengths
from dpo.model.load import check_model
from dpo.model.source import find_parts
from dpo.precision import Precision
from dpo.reference_pass import compute_reference
from dpo.scoring.rewards import ScoreReport, find_suspects, require_subsets, score_pairs, summarize
from prefdata.config import BuildConfig
from prefdata.errors import PrefdataError
from prefdata.hub.inputs import is_hub_name
from prefdata.progress import Progress, Silent
from prefdata.read.texts import TextMode
from prefdata.sharing.local import pull_cached
from prefdata.store.canonical import to_json
from prefdata.store.claim import Claim, open_claim
from prefdata.store.commit import commit_file, lock_folder, make_folder, write_bytes
from prefdata.store.manifest import NAME
from prefdata.store.ownership import (
    Read,
    is_json_of,
    require_apart,
    require_not_below,
    require_not_same,
)
from prefdata.store.reader import Build, open_lazily
from prefdata.store.staging import has_own_staging

_NAMES = ("data", "policy", "reference", "scores.parquet", "suspects.jsonl", "score.json")
_GIVES_WAY = ("T163", "T205", "T207")


class ScoreOptions(NamedTuple):
    """Settings of a scoring run."""

    model: str
    reference: str | None = None
    """A model; None uses the log-probs of the build."""
    reference_name: str | None = None
    """Name of those log-probs; None is `default`."""
    beta: float = 0.1
    subsets: tuple[str, ...] = ()
    """Keys of `meta` to break accuracy down by."""
    suspects: float = 0.2
    """Maximum share of the pairs to list as suspects."""
    mixed_precision: Precision = "no"
    text: TextMode = "auto"
    """Reading of plain-text files: as chats, verbatim, or decided from their rows."""


def score(
    data: Sequence[str],
    out: Path,
    options: ScoreOptions,
    progress: Progress | None = None,
) -> ScoreReport:
    """Score the pairs of a build or of files; raises DpoError and PrefdataError."""
    progress = progress or Silent()
    if options.reference is not None and options.reference_name is not None:
        problem = "both choose the reference"
        raise UsageError("T151", "reference and reference-name", problem, "give one of them")
    require_subsets(options.subsets)
    reference_folder(out, options.reference_name or "default")
    if len(data) == 1 and is_hub_name(data[0]):
        data = [str(pull_cached(data[0])[0])]
    claim = _claim(data, out, options)
    names = [name for name in (options.model, options.reference) if name is not None]
    models = {name: check_model(name) for name in names}  # without weights
    make_folder(out)
    with lock_folder(out):
        claim.save()
        build = _open_data(data, out, options)
        pairs = Pairs([shard for split in build.splits for shard in build.shards(split)])
        for name, model in models.items():
            check_lengths(model, pairs, place=name)
        policy = _logps(build, options.model, out / "policy", options, progress)
        if options.reference is None:
            reference = open_reference(build, options.reference_name or "default")
        else:
            reference = _logps(build, options.reference, out / "reference", options, progress)
        rows = score_pairs(build, policy, reference, beta=options.beta, subsets=options.subsets)
        report = summarize(
            rows,
            model=options.model,
            reference=reference.manifest.model,
            beta=options.beta,
            subsets=options.subsets,
        )
        _write(out, rows, find_suspects(rows, options.suspects), report)
    return report


def _claim(data: Sequence[str], out: Path, options: ScoreOptions) -> Claim:
    """Return what this command made in `out`.

    Raises E170 if it would overwrite an input, E171 if it would overwrite what it did not make.
    """
    named = [("the model", options.model), ("the reference", options.reference)]
    named += [("the data", name) for name in data]
    reads = [Read(role, Path(name)) for role, name in named if name and os.path.lexists(name)]
    require_not_same(out, reads)
    files = [one for one in reads if one.role == "the data" and not (one.path / NAME).exists()]
    require_not_below(out, files)  # a build may have its scores inside
    require_apart([out / name for name in _NAMES], reads)
    is_ours = is_json_of("dpo-score")
    return open_claim(out, "dpo-score", _NAMES, lambda: is_ours(out / "score.json"))


def _open_data(data: Sequence[str], out: Path, options: ScoreOptions) -> Build:
    if len(data) == 1 and (Path(data[0]) / NAME).exists():
        return open_lazily(data[0])
    for name in data:
        if (Path(name) / NAME).exists() or has_own_staging(Path(name)):
            problem = "is a build among others" if len(data) > 1 else "is not a finished build"
            remedy = "name one build, or files and directories of preferences"
            raise UsageError("T150", name, problem, remedy)
    config = BuildConfig(
        inputs=list(data), tokenizer=find_parts(options.model).tokenizer,
        out=out / "data", test_fraction=0.0,
        text=options.text, resplit=True, severity={"PD402": "off"},
    )  # fmt: skip
    try:
        return prefdata.build(config)
    except PrefdataError as error:
        if error.code != "E142":
            raise
        return prefdata.build(config, replace=True)  # of other files or another tokenizer


def _logps(
    build: Build, model: str, folder: Path, options: ScoreOptions, progress: Progress
) -> Reference:
    """Return log-probs under a model; replace those of another model from an earlier run."""
    for is_last in (False, True):
        try:
            compute_reference(
                build.path, model=model, name=folder,
                mixed_precision=options.mixed_precision, progress=progress,
            )  # fmt: skip
            break
        except MismatchError as error:
            is_ours = is_json_of("dpo-reference")
            marks = [p for p in (folder / MANIFEST, folder / PARTIAL) if p.exists()]
            if is_last or error.code not in _GIVES_WAY or not all(map(is_ours, marks)):
                raise
            discard_reference(folder)
    return open_reference(build, folder)


def _write(out: Path, rows: pl.DataFrame, suspects: pl.DataFrame, report: ScoreReport) -> None:
    commit_file(out / "scores.parquet", lambda path: rows.write_parquet(path.absolute()))
    columns = ("pair_id", "source", "line", "ordinal", "margin")
    lines = [orjson.dumps(row) + b"\n" for row in suspects.select(columns).to_dicts()]
    write_bytes(out / "suspects.jsonl", b"".join(lines))
    write_bytes(out / "score.json", to_json(report.model_dump(mode="json")))
