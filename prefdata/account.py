"""The books of a build: which rows were kept, why the others were not, and the manifest over it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from prefdata.arrays import empty_table, numbers_array
from prefdata.config import BuildConfig
from prefdata.plan import TOOL_VERSION
from prefdata.records import RECORDS
from prefdata.report.card import write_card
from prefdata.report.model import Report
from prefdata.report.numbers import (
    class_of_lines,
    list_findings,
    measure_lengths,
    seal_inputs,
    total_lines,
)
from prefdata.shard import MadeShard, ShardTask
from prefdata.store.canonical import to_json
from prefdata.store.commit import FileSeal
from prefdata.store.manifest import Manifest, OtherFile, ShardSeal, SplitSeal
from prefdata.store.staging import write_staged
from prefdata.survey import Survey, count_codes, stage
from prefdata.tokens.stage import refused_records
from prefdata.tokens.target import Target

_PLACE = [("source_index", "ascending"), ("line", "ascending"), ("ordinal", "ascending")]


class Account(NamedTuple):
    """What became of every row, once the shards are made."""

    kept: pa.Table
    """Places of the kept pairs."""
    rejected: pa.Table
    refused_late: pa.Table
    """The part of `rejected` that was refused while it became tokens."""


class Made(NamedTuple):
    """The shards of a build: what was asked for, and what came of it."""

    tasks: Sequence[ShardTask]
    shards: Sequence[MadeShard]

    @property
    def notes(self) -> list[str]:
        return sorted({made.facts.note for made in self.shards if made.facts.note})

    @property
    def findings(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for made in self.shards:
            total.update(made.facts.findings)
        return total


def take_account(found: Survey, made: Made) -> Account:
    """Tell the kept records from those that the tokenizer refused."""
    kept = [empty_table(RECORDS).select([name for name, _ in _PLACE])]
    late = [found.rejected.slice(0, 0)]
    for task, shard in zip(made.tasks, made.shards, strict=True):
        refusals = shard.facts.refusals
        stays = np.ones(task.records.num_rows, np.bool_)
        stays[list(refusals)] = False
        kept.append(task.records.select([name for name, _ in _PLACE]).filter(numbers_array(stays)))
        if refusals:
            late.append(refused_records(task.records, refusals))
    refused_late = pa.concat_tables(late)
    rejected = pa.concat_tables([found.rejected, refused_late])
    return Account(pa.concat_tables(kept), rejected.sort_by(_PLACE), refused_late)


def make_report(
    found: Survey, made: Made | None, account: Account, tokens: list[pa.Table]
) -> Report:
    """The numbers of a build or, without shards, of a validation."""
    classes = class_of_lines(found.files, account.kept, found.duplicates, account.rejected)
    total = total_lines(classes)
    counted = Counter(made.findings if made else {})
    if found.duplicates.num_rows:
        counted["PD401"] += found.duplicates.num_rows
    funnel = list(found.funnel)
    if made:
        late = count_codes(account.refused_late)
        funnel.append(stage("tokens", found.records.num_rows, account.kept.num_rows, late))
    lengths, chosen_longer = measure_lengths(tokens) if tokens else (None, None)
    return Report(
        tool_version=TOOL_VERSION,
        inputs=seal_inputs(found.files, classes),
        lines=total,
        funnel=funnel,
        findings=list_findings(account.rejected, found.found, counted, total.lines - total.blank),
        splits=_splits(made) if made else None,
        lengths=lengths,
        chosen_longer=chosen_longer,
        notes=found.notes + (made.notes if made else []),
    )


def write_others(
    root: Path, tables: dict[str, pa.Table], report: Report, config: BuildConfig
) -> tuple[list[OtherFile], dict[str, FileSeal]]:
    """Everything besides the shards: what the manifest lists, and all that gets a final name.

    The card is not sealed, because people edit it.
    """
    seals = {name: _write_table(root / name, table) for name, table in tables.items()}
    report_bytes = to_json(report.model_dump(mode="json"))
    seals["report.json"] = write_staged(
        root / "report.json", lambda path: path.write_bytes(report_bytes)
    )
    listed = [
        OtherFile(
            path=name,
            rows=tables[name].num_rows if name in tables else None,
            bytes=seal.bytes,
            sha256=seal.sha256,
        )
        for name, seal in sorted(seals.items())
    ]
    card = write_card(report, name=config.out.name, tokenizer=config.tokenizer).encode()
    seals["README.md"] = write_staged(root / "README.md", lambda path: path.write_bytes(card))
    return listed, seals


def _write_table(path: Path, table: pa.Table) -> FileSeal:
    return write_staged(path, lambda path: parquet.write_table(table, path, compression="zstd"))


def make_manifest(
    config: BuildConfig, target: Target, mark: str, report: Report, made: Made
) -> Manifest:
    """The manifest but for its list of other files, and so not yet sealed."""
    shards = [
        ShardSeal(
            path=task.tokens_path,
            split=task.split,
            rows=shard.facts.rows,
            tokens=shard.facts.tokens,
            bytes=shard.files[task.tokens_path].bytes,
            sha256=shard.files[task.tokens_path].sha256,
        )
        for task, shard in zip(made.tasks, made.shards, strict=True)
    ]
    return Manifest(
        tool_version=TOOL_VERSION,
        fingerprint=mark,
        config=config.identity,
        inputs=report.inputs,
        tokenizer=target.seal(),
        lines=report.lines,
        funnel=report.funnel,
        splits=report.splits or {},
        shards=shards,
        files=_text_files(made),
    )


def _text_files(made: Made) -> list[OtherFile]:
    return [
        OtherFile(
            path=task.text_path, rows=shard.facts.rows, **shard.files[task.text_path]._asdict()
        )
        for task, shard in zip(made.tasks, made.shards, strict=True)
    ]


def _splits(made: Made) -> dict[str, SplitSeal]:
    totals: dict[str, Counter[str]] = {}
    for task, shard in zip(made.tasks, made.shards, strict=True):
        numbers = {name: getattr(shard.facts, name) for name in SplitSeal.model_fields}
        totals.setdefault(task.split, Counter()).update(numbers)
    return {
        split: SplitSeal(**{name: total[name] for name in SplitSeal.model_fields})
        for split, total in totals.items()
    }
