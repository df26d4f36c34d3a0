"""The whole build in one function, read from top to bottom."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from prefdata.account import Made, make_manifest, make_report, take_account, write_others
from prefdata.config import BuildConfig
from prefdata.engine.local import choose_workers, map_items
from prefdata.errors import EmptyError, UsageError
from prefdata.plan import build_identity, read_tasks, shard_tasks
from prefdata.progress import Progress, Silent
from prefdata.read import expand_inputs
from prefdata.shard import MadeShard, ShardFacts, ShardTask, make_shard
from prefdata.store.canonical import fingerprint
from prefdata.store.commit import FileSeal, lock_folder, make_folder, sha256_file
from prefdata.store.manifest import NAME, read_manifest
from prefdata.store.reader import Build, open_build
from prefdata.store.shards import read_shard
from prefdata.store.staging import FOLDER, Staging
from prefdata.survey import CheckedFile, survey
from prefdata.tokens.target import load_target


def build(config: BuildConfig, *, replace: bool = False, progress: Progress | None = None) -> Build:
    """Make the build that a config asks for, or take up what a killed one left.

    A finished build of the same config is opened as it is; another one is refused (E142) unless
    `replace`. Raises a `PrefdataError` with its code; nothing then stands under a final name.
    """
    progress = progress or Silent()
    files = expand_inputs(config.inputs)
    target = load_target(
        config.tokenizer, revision=config.revision, chat_template=config.chat_template
    )
    make_folder(config.out)
    with lock_folder(config.out), _left_clean(config.out):
        digests = {file.name: sha256_file(file.path) for file in files}
        mark = fingerprint(build_identity(config, target, digests))
        if not replace and _is_finished(config.out, mark):
            return open_build(config.out)
        workers = choose_workers(config.workers, sum(file.path.stat().st_size for file in files))

        found = survey(read_tasks(config, files, target), workers=workers, progress=progress)
        _require_same_inputs(found.files, digests)
        _require_rows(found.records)

        staging = Staging(config.out, mark)
        tasks = shard_tasks(found.records, config, target, staging.root)
        made = Made(tasks, _make_shards(tasks, staging, workers, progress))
        account = take_account(found, made)
        _require_rows(account.kept)

        report = make_report(found, made, account, _read_tokens(made, staging))
        tables = {
            "rejected/rejected-00000-of-00001.parquet": account.rejected,
            "duplicates.parquet": found.duplicates,
        }
        listed, seals = write_others(staging.root, tables, report, config)
        manifest = make_manifest(config, target, mark, report, made)
        manifest = manifest.model_copy(update={"files": manifest.files + listed}).sealed()
        shard_files = {name: seal for shard in made.shards for name, seal in shard.files.items()}
        staging.commit({**shard_files, **seals}, manifest.to_bytes())
    for note in report.notes:
        progress.note(note)
    return open_build(config.out)


@contextmanager
def _left_clean(out: Path) -> Iterator[None]:
    """Leave nothing behind when what was asked for cannot be built at all."""
    try:
        yield
    except (UsageError, EmptyError):
        if not (out / NAME).exists():
            Staging.discard_at(out)
            if not any(out.iterdir()):
                out.rmdir()
        raise


def _is_finished(out: Path, mark: str) -> bool:
    """Whether this very build stands there; an error where something else does."""
    remedy = "name another folder, or replace it with --replace"
    if (out / NAME).exists():
        found = read_manifest(out).fingerprint
        if found != mark:
            problem = f"holds another build ({found}; this one is {mark})"
            raise UsageError("E142", str(out), problem, remedy)
        Staging.discard_at(out)
        return True
    if not (out / FOLDER).exists() and any(out.iterdir()):
        raise UsageError("E143", str(out), "is not empty, and no build of ours", remedy)
    return False


def _require_same_inputs(files: list[CheckedFile], digests: Mapping[str, str]) -> None:
    for file in files:
        if file.read.sha256 != digests[file.file.name]:
            problem, remedy = "changed while it was being read", "run again when it is complete"
            raise UsageError("E115", file.file.name, problem, remedy)


def _require_rows(records: pa.Table) -> None:
    if not records.num_rows:
        remedy = "run `prefdata validate` on the inputs to see why"
        raise EmptyError("E120", "inputs", "no pair is left to build from", remedy)


def _make_shards(
    tasks: list[ShardTask], staging: Staging, workers: int, progress: Progress
) -> list[MadeShard]:
    """Every shard, of which those that a killed build left whole are not made again."""
    done: dict[str, MadeShard] = {}
    for task in tasks:
        entry = staging.known(task.name)
        if entry is not None:
            files = {path: FileSeal(*seal) for path, *seal in entry["files"]}
            done[task.name] = MadeShard(task.name, ShardFacts.from_json(entry["facts"]), files)
    total = sum(task.records.num_rows for task in tasks)
    sizes = {task.name: task.records.num_rows for task in tasks}
    with progress.bar("tokens", total) as advance:
        advance(sum(sizes[name] for name in done))

        def record(shard: MadeShard) -> None:
            staging.record(shard.name, shard.files, shard.facts.to_json())
            advance(sizes[shard.name])

        missing = [task for task in tasks if task.name not in done]
        for shard in map_items(make_shard, missing, workers=workers, on_done=record):
            done[shard.name] = shard
    return [done[task.name] for task in tasks]


def _read_tokens(made: Made, staging: Staging) -> list[pa.Table]:
    """The made shards, mapped, wherever they are by now."""
    return [
        read_shard(staging.place_of(task.tokens_path), rows=shard.facts.rows)
        for task, shard in zip(made.tasks, made.shards, strict=True)
    ]
