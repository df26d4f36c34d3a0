"""One shard of a build, from records to sealed files: the unit of work, of resume, of a process."""

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from prefdata.store.commit import FileSeal
from prefdata.store.shards import read_shard, write_shard
from prefdata.store.staging import write_staged
from prefdata.text import text_table
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.render import Refusal
from prefdata.tokens.stage import encode_table
from prefdata.tokens.target import Target


class ShardTask(NamedTuple):
    """What a process needs to make one shard."""

    root: Path
    split: str
    number: int
    total: int
    records: pa.Table
    target: Target
    options: TokenOptions
    fields: tuple[str, ...]
    """Of messages, in the text shard; none for verbatim text."""

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}-of-{self.total:05d}"

    @property
    def tokens_path(self) -> str:
        return f"tokens/{self.name}.arrow"

    @property
    def text_path(self) -> str:
        return f"text/{self.name}.parquet"


class ShardFacts(NamedTuple):
    """What is known of a shard once it is written; plain values, so that the journal keeps it."""

    rows: int
    groups: int
    prompt_tokens: int
    chosen_tokens: int
    rejected_tokens: int
    refusals: dict[int, Refusal]
    """Why a record of the task is not in the shard, by its row there."""
    findings: dict[str, int]
    note: str | None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.chosen_tokens + self.rejected_tokens

    def to_json(self) -> dict[str, Any]:
        refusals = {str(row): list(refusal) for row, refusal in self.refusals.items()}
        return {**self._asdict(), "refusals": refusals}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "ShardFacts":
        refusals = {int(row): Refusal(*refusal) for row, refusal in value["refusals"].items()}
        return ShardFacts(**{**value, "refusals": refusals})


class MadeShard(NamedTuple):
    """A shard's task by its place in its split, what it found, and its files."""

    name: str
    facts: ShardFacts
    files: dict[str, FileSeal]


def make_shard(task: ShardTask) -> MadeShard:
    """Encode the task's records and write both of the shard's files."""
    result = encode_table(task.records, task.target, task.options)
    tokens, rows = result.tokens, result.tokens.num_rows

    def write_tokens(path: Path) -> None:
        write_shard(path, tokens)
        read_shard(path, rows=rows)

    def write_text(path: Path) -> None:
        parquet.write_table(text_table(result.kept, task.fields), path, compression="zstd")
        assert parquet.read_metadata(path).num_rows == rows

    files = {
        task.tokens_path: write_staged(task.root / task.tokens_path, write_tokens),
        task.text_path: write_staged(task.root / task.text_path, write_text),
    }
    facts = ShardFacts(
        rows=rows,
        groups=_count_groups(tokens),
        prompt_tokens=_count_tokens(tokens["prompt_ids"]),
        chosen_tokens=_count_tokens(tokens["chosen_ids"]),
        rejected_tokens=_count_tokens(tokens["rejected_ids"]),
        refusals=result.refusals,
        findings=result.findings,
        note=result.note,
    )
    return MadeShard(task.name, facts, files)


def _count_tokens(column: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.list_value_length(column)).as_py() or 0)


def _count_groups(tokens: pa.Table) -> int:
    return int(pc.count_distinct(tokens["group_id"]).as_py())
