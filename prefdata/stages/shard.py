"""Processing of one shard, from records to hashed files: the second unit of work and of resume."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet
from pydantic import TypeAdapter

from prefdata.arrow import empty_table
from prefdata.engine import Done, Engine
from prefdata.progress import Progress
from prefdata.records.text import text_table
from prefdata.stages.chunk import gather
from prefdata.store.commit import FileDigest, fsync_path, seal_file
from prefdata.store.shards import TOKENS, open_parquet
from prefdata.store.staging import Staging, stage_shard
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.stage import MOST_PLACES, TokenRows, encode_table
from prefdata.tokens.template.render import Refusal
from prefdata.tokens.tokenizer import TokenizerSpec

SLICE_ROWS = 8192


class ShardTask(NamedTuple):
    """Inputs of a worker for one shard."""

    root: Path
    split: str
    name: str
    parts: tuple[str, ...]
    """Names of the chunks that contain the records."""
    places: pl.DataFrame
    """Location of each record: `at` in all keys, its chunk `part` and its `row` there."""
    target: TokenizerSpec
    options: TokenOptions
    fields: tuple[str, ...]
    """Message fields in the text shard; none for verbatim text."""
    has_verbatim: bool = False
    """True if at least one record of the build is verbatim text."""
    begins: pl.DataFrame | None = None
    """Lines of the elements of JSON arrays, by `source_index` and `line`; None without any."""
    is_part: bool = False
    """True if the rows are written anew by the mixture, so these files are only parts."""

    @property
    def about(self) -> str:
        """Return the shard's path, to name it in an error."""
        return self.tokens_path

    @property
    def tokens_path(self) -> str:
        return f"parts/{self.name}.tokens.arrow" if self.is_part else f"tokens/{self.name}.arrow"

    @property
    def text_path(self) -> str:
        return f"parts/{self.name}.text.parquet" if self.is_part else f"text/{self.name}.parquet"


class ShardStats(NamedTuple):
    """Statistics of a written shard; plain values, so that the journal can store them."""

    rows: int
    groups: int
    prompt_tokens: int
    chosen_tokens: int
    rejected_tokens: int
    refusals: dict[int, Refusal]
    """Reasons why records of the task are not in the shard, by their row in the task."""
    findings: dict[str, int]
    first: dict[str, list[int]]
    """The first records of the task with each of the findings, by their row in the task."""
    note: str | None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.chosen_tokens + self.rejected_tokens


SHARD_STATS = TypeAdapter(ShardStats)


class ShardResult(NamedTuple):
    """Name, statistics and files of a shard."""

    name: str
    facts: ShardStats
    files: dict[str, FileDigest]


def make_shards(
    tasks: Sequence[ShardTask], workers: Engine, progress: Progress, staging: Staging | None
) -> list[ShardResult]:
    """Make every shard, except those that an interrupted build has finished.

    Without a staging directory the records are only checked, and nothing is written.
    """
    work = check_shard if staging is None else build_shard
    known = {
        task.name: None if staging is None else staging.known(task.name, SHARD_STATS)
        for task in tasks
    }

    def item(task: ShardTask) -> ShardTask | Done[ShardResult]:
        found = known[task.name]
        return task if found is None else Done(ShardResult(task.name, found[1], found[0]))

    shards = []
    with progress.bar("tokens", sum(len(task.places) for task in tasks)) as advance:
        for task, shard in zip(tasks, workers.map(work, map(item, tasks)), strict=True):
            if staging is not None and known[task.name] is None:
                staging.record(shard.name, shard.files, shard.facts)
            shards.append(shard)
            advance(len(task.places))
    return shards


def build_shard(task: ShardTask) -> ShardResult:
    """Encode the task's records and write both of the shard's files."""
    with _TextFile(task.root / task.text_path, task) as text:
        done = list(_encode_slices(task, text))
    tokens = pa.concat_tables([empty_table(TOKENS), *(made.tokens for made in done)])
    files = {
        task.tokens_path: stage_shard(task.root / task.tokens_path, tokens, rows=tokens.num_rows),
        task.text_path: text.seal(rows=tokens.num_rows),
    }
    return ShardResult(task.name, facts_of(done), files)


def check_shard(task: ShardTask) -> ShardResult:
    """Encode the task's records for a validation, and write nothing."""
    return ShardResult(task.name, facts_of(list(_encode_slices(task, None))), {})


def facts_of(done: Sequence[TokenRows]) -> ShardStats:
    """Return the statistics of the slices of a shard."""
    tokens = pa.concat_tables([empty_table(TOKENS), *(made.tokens for made in done)])
    findings: Counter[str] = Counter()
    for made in done:
        findings.update(made.findings)
    return ShardStats(
        rows=tokens.num_rows,
        groups=int(pc.count_distinct(tokens["group_id"]).as_py()),
        prompt_tokens=_count_tokens(tokens["prompt_ids"]),
        chosen_tokens=_count_tokens(tokens["chosen_ids"]),
        rejected_tokens=_count_tokens(tokens["rejected_ids"]),
        refusals={
            number * SLICE_ROWS + row: refusal
            for number, made in enumerate(done)
            for row, refusal in made.refusals.items()
        },
        findings=dict(sorted(findings.items())),
        first={code: _first(done, code) for code in sorted(findings)},
        note=next((made.note for made in done if made.note), None),
    )


def _first(done: Sequence[TokenRows], code: str) -> list[int]:
    """Return the first records of the task with a finding."""
    rows = (n * SLICE_ROWS + row for n, made in enumerate(done) for row in made.first.get(code, ()))
    return list(islice(rows, MOST_PLACES))


def _encode_slices(task: ShardTask, text: "_TextFile | None") -> Iterator[TokenRows]:
    """Encode the records in slices, so that few of them are Python objects at a time."""
    for start in range(0, len(task.places), SLICE_ROWS):
        records = gather(task.root, task.parts, task.places[start : start + SLICE_ROWS])
        made = encode_table(records, task.target, task.options)
        if text is not None:
            text.write(made.kept)
        yield made._replace(kept=made.kept.slice(0, 0))


class _TextFile:
    """Parquet file of readable pairs, written slice by slice, one row group each."""

    def __init__(self, path: Path, task: ShardTask) -> None:
        self._path, self._task = path, task
        self._writer: parquet.ParquetWriter | None = None

    def __enter__(self) -> "_TextFile":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, kept: pa.Table) -> None:
        task = self._task
        table = text_table(kept, task.fields, has_verbatim=task.has_verbatim, begins=task.begins)
        if self._writer is None:
            self._writer = open_parquet(self._path, table.schema)
        self._writer.write_table(table)

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def seal(self, *, rows: int) -> FileDigest:
        """Sync the file, check its row count, and return its digest."""
        assert parquet.read_metadata(self._path.absolute()).num_rows == rows
        fsync_path(self._path)
        return seal_file(self._path)


def _count_tokens(column: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.list_value_length(column)).as_py() or 0)
