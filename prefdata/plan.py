"""What a build will do, before it does it: its identity, the files to read, the shards to make."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from prefdata.config import BuildConfig
from prefdata.read import InputFile, load_layout
from prefdata.shard import ShardTask
from prefdata.split import split_groups
from prefdata.store.manifest import FORMAT_VERSION
from prefdata.survey import ReadTask
from prefdata.text import message_fields
from prefdata.tokens.target import Target

TOOL_VERSION = version("prefdata-dpo")


def build_identity(
    config: BuildConfig, target: Target, digests: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that decides the bytes of a build."""
    layout = load_layout(config.layout).model_dump(mode="json") if config.layout else None
    return {
        "format_version": FORMAT_VERSION,
        "tool_version": TOOL_VERSION,
        "config": config.identity,
        "layout": layout,
        "inputs": list(digests.items()),
        "tokenizer": target.seal().model_dump(mode="json"),
        "special_tokens": target.special_tokens,
    }


def read_tasks(config: BuildConfig, files: list[InputFile], target: Target) -> list[ReadTask]:
    """One task for each file."""
    layout = load_layout(config.layout) if config.layout else None
    return [
        ReadTask(
            file,
            layout,
            config.pairing,
            config.limits,
            config.row_severity,
            target.control_tokens,
        )
        for file in files
    ]


def shard_tasks(
    records: pa.Table, config: BuildConfig, target: Target, root: Path
) -> list[ShardTask]:
    """Records to shards: by split, the pairs of a prompt side by side and in one shard."""
    is_chat = bool((pl.Series(records["form"]) != "text").any())
    fields = message_fields(records) if is_chat else ()
    train, test = split_groups(records, test_fraction=config.test_fraction, seed=config.seed)
    tasks = []
    for split, rows in (("train", train), ("test", test)):
        chunks = list(_chunks(_side_by_side(rows), config.shard_rows))
        for number, chunk in enumerate(chunks):
            tasks.append(
                ShardTask(
                    root, split, number, len(chunks), chunk, target, config.token_options, fields
                )
            )
    return tasks


def _groups(records: pa.Table) -> pl.DataFrame:
    return pl.DataFrame({"group": pl.Series(records["group_id"].cast(pa.binary()))})


def _side_by_side(records: pa.Table) -> pa.Table:
    """Groups in the order of their first pairs, the pairs of each in their own order."""
    places = _groups(records).with_row_index("at")
    first = places.with_columns(first=pl.col("at").first().over("group"))
    return records.take(first.sort("first", "at")["at"].to_arrow())


def _chunks(records: pa.Table, shard_rows: int) -> Iterator[pa.Table]:
    """Runs of whole groups with at most `shard_rows` rows, unless one group has more."""
    start = end = 0
    for length in _groups(records)["group"].rle().struct.field("len").to_list():
        if end > start and end + length - start > shard_rows:
            yield records.slice(start, end - start)
            start = end
        end += length
    if end > start:
        yield records.slice(start, end - start)
