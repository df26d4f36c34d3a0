"""Processing of one shard, from records to hashed files: the second unit of work and of resume."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
from prefdata.engine.exchange import Rows, read_parts, run_bytes
from prefdata.progress import Progress
from prefdata.records.text import text_table
from prefdata.stages.chunk import gather
from prefdata.stages.settle import LATE
from prefdata.stages.share import OfPart, OfSplit
from prefdata.store.commit import FileDigest, fsync_path, seal_file
from prefdata.store.shards import TOKENS, open_parquet
from prefdata.store.staging import Staging, stage_bytes, stage_shard
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
    share: OfSplit | OfPart
    """The records: read from the files of the decisions."""
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
    def refused_path(self) -> str:
        return f"parts/{self.name}.refused.arrow"

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
    refused: dict[str, int]
    """Records of the task that are not in the shard, by code; their file has the rest."""
    first_refused: dict[str, list[tuple[int, str]]]
    """The first of these records, by code, with the reason."""
    findings: dict[str, int]
    first: dict[str, list[int]]
    """The first records of the task with each of the findings."""
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
    tasks: Sequence[ShardTask],
    workers: Engine,
    progress: Progress,
    staging: Staging,
    begins: Callable[[ShardTask], pl.DataFrame | None] | None = None,
) -> list[ShardResult]:
    """Make every shard, except those that an interrupted build has finished.

    `begins` returns the lines of elements of JSON arrays; None: records are only checked.
    """
    work = check_shard if begins is None else build_shard
    known = {
        task.name: None if begins is None else staging.known(task.name, SHARD_STATS)
        for task in tasks
    }

    def item(task: ShardTask) -> ShardTask | Done[ShardResult]:
        found = known[task.name]
        if found is not None:
            return Done(ShardResult(task.name, found[1], found[0]))
        return task if begins is None else task._replace(begins=begins(task))

    shards = []
    with progress.bar("tokens", sum(task.share.num_rows for task in tasks)) as advance:
        for task, shard in zip(tasks, workers.map(work, map(item, tasks)), strict=True):
            if begins is not None and known[task.name] is None:
                staging.record(shard.name, shard.files, shard.facts)
            shards.append(shard)
            advance(task.share.num_rows)
    return shards


def build_shard(task: ShardTask) -> ShardResult:
    """Encode the task's records and write both of the shard's files."""
    rows = task.share.read(task.root)["at"].to_numpy()
    with _TextFile(task.root / task.text_path, task) as text:
        done = list(_encode_slices(task, rows, text))
    tokens = pa.concat_tables([empty_table(TOKENS), *(made.tokens for made in done)])
    files = {
        task.tokens_path: stage_shard(task.root / task.tokens_path, tokens, rows=tokens.num_rows),
        task.text_path: text.seal(rows=tokens.num_rows),
    }
    return ShardResult(task.name, _facts(done, rows), files | _refused_file(task, done, rows))


def check_shard(task: ShardTask) -> ShardResult:
    """Encode the task's records for a validation, and write only which are refused."""
    rows = task.share.read(task.root)["at"].to_numpy()
    done = list(_encode_slices(task, rows, None))
    return ShardResult(task.name, _facts(done, rows), _refused_file(task, done, rows))


def _refusals(done: Sequence[TokenRows], rows: Rows) -> list[tuple[int, Refusal]]:
    """Return the records that were refused, by index, in order."""
    return sorted(
        (int(rows[number * SLICE_ROWS + row]), refusal)
        for number, made in enumerate(done)
        for row, refusal in made.refusals.items()
    )


def _refused_file(task: ShardTask, done: Sequence[TokenRows], rows: Rows) -> dict[str, FileDigest]:
    """Write the refused records, if there are any, as a run of LATE."""
    said = [(at, why.code, why.message) for at, why in _refusals(done, rows)]
    if not said:
        return {}
    data = run_bytes(pl.DataFrame(said, LATE, orient="row"))
    return {task.refused_path: stage_bytes(task.root / task.refused_path, memoryview(data))}


def _facts(done: Sequence[TokenRows], rows: Rows) -> ShardStats:
    """Return the statistics of the slices of a shard, whose records are `rows`."""
    first: dict[str, list[tuple[int, str]]] = {}
    refused = Counter[str]()
    for at, why in _refusals(done, rows):
        refused[why.code] += 1
        if refused[why.code] <= MOST_PLACES:
            first.setdefault(why.code, []).append((at, why.message))
    findings = Counter[str]()
    for made in done:
        findings.update(made.findings)
    return measure_shard([made.tokens for made in done])._replace(
        refused=dict(refused),
        first_refused=first,
        findings=dict(sorted(findings.items())),
        first={code: [int(rows[row]) for row in _first(done, code)] for code in sorted(findings)},
        note=next((made.note for made in done if made.note), None),
    )


def measure_shard(tables: Sequence[pa.Table]) -> ShardStats:
    """Return the statistics of the tokens of a shard."""
    tokens = pa.concat_tables([empty_table(TOKENS), *tables])
    return ShardStats(
        rows=tokens.num_rows,
        groups=int(pc.count_distinct(tokens["group_id"]).as_py()),
        prompt_tokens=_count_tokens(tokens["prompt_ids"]),
        chosen_tokens=_count_tokens(tokens["chosen_ids"]),
        rejected_tokens=_count_tokens(tokens["rejected_ids"]),
        refused={},
        first_refused={},
        findings={},
        first={},
        note=None,
    )


def _first(done: Sequence[TokenRows], code: str) -> list[int]:
    """Return the first records of the task with a finding."""
    rows = (n * SLICE_ROWS + row for n, made in enumerate(done) for row in made.first.get(code, ()))
    return list(islice(rows, MOST_PLACES))


def _encode_slices(task: ShardTask, rows: Rows, text: "_TextFile | None") -> Iterator[TokenRows]:
    """Encode the records in slices, so that few of them are Python objects at a time."""
    parts = read_parts(task.root)
    for start in range(0, len(rows), SLICE_ROWS):
        records = gather(parts, rows[start : start + SLICE_ROWS])
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
