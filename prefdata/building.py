"""Build as one function that calls all stages, to be read from top to bottom."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from prefdata.check import RowChecks
from prefdata.config import BuildConfig, make_config
from prefdata.engine import Engine, open_engine
from prefdata.engine.exchange import FOLDER as PARTS
from prefdata.engine.exchange import read_parts
from prefdata.errors import EmptyError, UsageError
from prefdata.hub.outputs import copy_build, is_free, place_of, url_of_out
from prefdata.hub.urls import shown_url
from prefdata.progress import Progress, Silent
from prefdata.read import InputFile, RowOptions, expand_inputs, load_layout
from prefdata.read.memory import Data, named_inputs
from prefdata.records.split_names import SplitOptions
from prefdata.stages.counts import NOTHING_MADE, BuiltShards, ShardTables
from prefdata.stages.excerpts import add_excerpts
from prefdata.stages.filter import read_exclusions
from prefdata.stages.mixture import is_mixture, mix_shards
from prefdata.stages.output import (
    check_place,
    commit_build,
    files_of,
    is_finished,
    old_build,
    open_place,
    reads_of,
    with_fetched_inputs,
)
from prefdata.stages.plan import (
    draw_of,
    read_inputs,
    require_sound_splits,
    seal_build,
    shard_tasks,
    split_notes,
)
from prefdata.stages.scan import ScanOptions, ScanResult, scan
from prefdata.stages.shard import ShardTask, make_shards
from prefdata.stages.split import expand_splits
from prefdata.stages.summarize import (
    describe_build,
    make_manifest,
    make_report,
    nothing_left,
    write_others,
)
from prefdata.store.commit import lock_folder
from prefdata.store.reader import Build, open_build
from prefdata.store.staging import Staging
from prefdata.tokens.preview import text_rule, trial_of
from prefdata.tokens.tokenizer import TokenizerSpec, load_tokenizer_spec
from prefdata.tokens.tokenizer_cache import remember_place


def build(
    source: BuildConfig | Data,
    *,
    replace: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Build:
    """Make the build that a config describes, or continue one that was interrupted.

        build(BuildConfig(inputs=["hh.jsonl"], tokenizer="Qwen/Qwen3-0.6B", out="out/hh"))
        build(load_dataset("org/name"), tokenizer="Qwen/Qwen3-0.6B", out="out/name", seed=1)

    `source` is a config, or the inputs, by name or as rows (`Data`), with `settings` as the other
    keys of a config. A finished build of the same config is opened as it is; another one is an
    error (E142) unless `replace`. Raises a `PrefdataError` with its code; no file then has its
    final name.
    """
    progress = progress or Silent()
    if isinstance(source, BuildConfig):
        if settings:
            problem = f"{next(iter(settings))} is given twice: as an argument, and in the config"
            raise UsageError("C102", "prefdata.build", problem, "change the config")
        return _build(source, replace=replace, progress=progress)
    with named_inputs(source) as inputs:
        config = make_config({"inputs": inputs, **settings}, place="prefdata.build")
        return _build(config, replace=replace, progress=progress)


def _build(config: BuildConfig, *, replace: bool, progress: Progress) -> Build:
    """Make a build; that of a URL is made in the cache directory, and copied."""
    url = url_of_out(config.out)
    if url is None:
        return _make(config, replace=replace, progress=progress)
    place = place_of(url)
    is_new = is_free(url, place, replace=replace)
    config = config.model_copy(update={"out": place})
    try:
        made = _make(config, replace=False, progress=progress)  # there if its copy broke off
    except UsageError as error:
        if error.code != "E142" or not is_new:
            raise
        made = _make(config, replace=True, progress=progress)
    if is_new:
        copy_build(place, url)
    progress.note(f"{shown_url(url)} has the build that is at {place}")
    return made


def _make(config: BuildConfig, *, replace: bool, progress: Progress) -> Build:
    config = with_fetched_inputs(config)
    check_place(config.out, reads_of(config, files_of(config)))
    target = load_tokenizer_spec(
        config.tokenizer, revision=config.revision, chat_template=config.chat_template
    )
    files = expand_splits(config.inputs)[0]
    for note in filter(None, (file.note for file in files)):
        progress.note(note)  # not in the report: other names of the same files give the same bytes
    engine = open_engine(
        config.engine,
        workers=config.workers,
        total_bytes=sum(file.path.stat().st_size for file in files),
    )
    with _place(config.out) as begun, engine as workers:
        old = old_build(config.out)
        inputs = read_inputs(config)
        seal = seal_build(config, target, inputs)
        remember_place(seal.tokenizer.tokenizer_sha256, config.tokenizer)
        if is_finished(config.out, old, seal.fingerprint, replace=replace):
            return open_build(config.out)
        begun.append(staging := Staging(config.out, seal.fingerprint))
        workers.prepare(staging.root.absolute() / PARTS, _sizes(inputs.files))

        with trial_of(target, config.token_options) as trial:
            options = _options(config, target, inputs.given)
            found = scan(inputs.files, options, workers=workers, staging=staging, progress=progress)
            if trial is not None:
                trial.finish()
        _require_sound_set(found, config, inputs.digests, workers)

        found = found._replace(notes=found.notes + split_notes(found, config))
        tasks = shard_tasks(found, config, target)
        made = _made(found, tasks, config.seed, workers=workers, progress=progress, staging=staging)
        report = describe_build(make_report(found, made, workers, target), found, config, seal)
        report = add_excerpts(report, found, read_parts(found.root), options.checks.reading)
        others, seals = write_others(found, made, report, config)
        manifest = make_manifest(report, made, seal, others=others)
        del found  # Windows renames and removes no file that is mapped
        kept = commit_build(staging, made.seals | seals, manifest.to_bytes(), old)
    for note in [*kept, *report.notes]:
        progress.note(note)
    return open_build(config.out)


def _sizes(files: Sequence[InputFile]) -> dict[Path, int]:
    return {file.path.absolute(): file.path.stat().st_size for file in files}


def _options(config: BuildConfig, target: TokenizerSpec, given: Mapping[str, str]) -> ScanOptions:
    layout = load_layout(config.layout) if config.layout else None
    exclude = [file.path for file in expand_inputs(config.exclude)]
    evaluations = [str(Path(name).absolute()) for name in config.evaluations]  # for any worker
    return ScanOptions(
        RowOptions(layout, config.pairing, config.limits),
        RowChecks.of(config.row_severity, target.control_tokens, config.checks, evaluations),
        read_exclusions(exclude) if exclude else None,
        config.near,
        text=text_rule(config.text, target, config.token_options),
        splits=SplitOptions(given, config.resplit, config.leaks),
        columns=config.columns,
        draw=draw_of(config),
    )


def _made(
    found: ScanResult, tasks: Sequence[ShardTask], seed: int, *, workers: Engine,
    progress: Progress, staging: Staging,
) -> BuiltShards:  # fmt: skip
    """Make the shards, and write those of train anew if the sources have weights."""

    def begins(task: ShardTask) -> pl.DataFrame | None:
        has_arrays = any(file.element_lines is not None for file in found.files)
        return found.element_lines(task.share.read(task.root)) if has_arrays else None

    made = BuiltShards(tasks, make_shards(tasks, workers, progress, staging, begins))
    if not made.rows:
        raise nothing_left(make_report(found, made, workers))
    if is_mixture([file.file for file in found.files]):
        made = mix_shards(
            made, found, seed=seed, workers=workers, progress=progress, staging=staging
        )
    return made._replace(tokens=ShardTables(staging, made))


@contextmanager
def _place(out: Path) -> Iterator[list[Staging]]:
    """Lock the output directory; the yielded list takes the staging that is begun in it.

    If the config cannot be built at all, that staging is removed; older files are kept.
    """
    is_new = open_place(out)
    begun: list[Staging] = []
    try:
        with lock_folder(out):
            yield begun
    except (UsageError, EmptyError) as error:
        for staging in begun if error.code != "E171" else ():  # the whole build is there by then
            staging.abandon()
        if is_new and not any(out.iterdir()):
            out.rmdir()
        raise


def _require_sound_set(
    found: ScanResult, config: BuildConfig, digests: Mapping[str, str], workers: Engine
) -> None:
    """Raise an error for changed files, unsound splits, no rows, or a set-level error (E121)."""
    for file in found.files:
        if file.sha256 != digests[file.file.name]:
            problem, remedy = "changed while it was being read", "run again when it is complete"
            raise UsageError("E115", file.file.name, problem, remedy)
    require_sound_splits(found, config.leaks)
    if not found.decisions.num_kept:
        raise nothing_left(make_report(found, NOTHING_MADE, workers))
    for one in found.of_set:
        if one.severity == "E":
            remedy = f"see `prefdata explain {one.code}`, or lower severity.{one.code} to W"
            raise EmptyError("E121", "inputs", f"{one.message} ({one.code})", remedy)
