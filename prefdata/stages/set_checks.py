"""Dataset-level checks over the kept records."""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from prefdata.check import RowChecks
from prefdata.check.sets.bias import find_label_imbalance
from prefdata.check.sets.found import SetFinding
from prefdata.check.sets.run import find_in_set, settle_findings
from prefdata.check.sets.triggers import strongest_triggers
from prefdata.read import LineCounts
from prefdata.report.figures import listed
from prefdata.stages.chunk import ChunkResult
from prefdata.stages.split import Splits
from prefdata.store.manifest import Reading

_SHOWN = 5  # columns listed in a message


def frame_of(keys: pl.DataFrame, profile: pl.DataFrame, splits: Splits) -> pl.DataFrame:
    """Return keys and profile of all records as one table, with `at`, their index in the keys.

    It has a column `split`, a number, if the inputs came in splits.
    """
    frame = pl.concat([keys, profile], how="horizontal").with_row_index("at")
    if splits.of_rows is None:
        return frame
    return frame.with_columns(split=pl.Series(splits.of_rows))


def find_together(
    kept_mask: pl.DataFrame,
    parts: Sequence[ChunkResult],
    counts: Sequence[LineCounts],
    readings: Sequence[Reading],
    checks: RowChecks,
) -> list[SetFinding]:
    """Return all dataset-level findings, sorted by code.

    `counts` and `readings` have one item for each input, in order.
    """
    found = [
        *find_in_set(kept_mask, checks.severity, checks.limits),
        *_find_drift(kept_mask, counts),
        *_find_unread(kept_mask, readings),
        *find_label_imbalance(
            kept_mask,
            sum(of_file.desirable for of_file in counts),
            sum(of_file.undesirable for of_file in counts),
        ),
        *_find_triggers(kept_mask, parts),
    ]
    return settle_findings(found, checks.severity, checks.changed)


def _find_drift(kept_mask: pl.DataFrame, counts: Sequence[LineCounts]) -> list[SetFinding]:
    """Find columns that the layout does not name and that a part of a file's rows lacks (PD105)."""
    said, rows, examples = list[str](), 0, list[int]()
    for index, of_file in enumerate(counts):
        num_rows = of_file.lines - of_file.blank - of_file.rejected
        some = {key: num for key, num in of_file.extra_keys.items() if num < num_rows}
        if some:
            said += [f"`{key}` in {num:,} of {num_rows:,} rows" for key, num in some.items()]
            rows += max(min(num, num_rows - num) for num in some.values())
            changes = min(of_file.drift.lines.get(key, 1) for key in some)
            own = kept_mask.filter(pl.col("source_index") == index)
            after = own.filter(pl.col("line") >= changes)
            examples += (own if after.is_empty() else after)["at"].head(1).to_list()
    message = f"schema_drift: {listed(said, _SHOWN)}"
    return [SetFinding("PD105", rows, tuple(examples), message)] if said else []


def _find_unread(kept_mask: pl.DataFrame, readings: Sequence[Reading]) -> list[SetFinding]:
    """Find columns that the layout does not read although training can use them (PD110)."""
    said: dict[str, str] = {}
    rows, examples = 0, []
    for index, reading in enumerate(readings):
        named = [column for column in reading.not_read if column.means]
        if named:
            said |= {column.name: f"`{column.name}` ({column.means})" for column in named}
            rows += max(column.rows for column in named)
            examples += kept_mask.filter(pl.col("source_index") == index)["at"].head(1).to_list()
    columns = listed(list(said.values()), _SHOWN)
    message = f"the layout does not read {columns}, so it does not affect training"
    return [SetFinding("PD110", rows, tuple(examples), message)] if said else []


def _find_triggers(kept_mask: pl.DataFrame, parts: Sequence[ChunkResult]) -> list[SetFinding]:
    """Find possible backdoor triggers, each with the first row that has it (PD608)."""
    seeds = strongest_triggers(part.facts.seeds for part in parts)
    if not seeds:
        return []
    first = pl.DataFrame(
        [seed.first[0] for seed in seeds],
        schema={"source_index": pl.Int32, "line": pl.Int64},
        orient="row",
    ).with_row_index("rank")
    places = first.join(kept_mask.select("source_index", "line", "at"), on=["source_index", "line"])
    examples = places.sort("rank", "at").unique("rank", keep="first", maintain_order=True)["at"]
    message = "; ".join(map(str, seeds))
    return [SetFinding("PD608", len(seeds), tuple(examples), message)]


def note_copies(own: Mapping[int, str], keys: pl.DataFrame, copies: pl.DataFrame) -> Iterator[str]:
    """Yield a sentence on copies in the text of a build, which only a mixture writes there.

    `own` are the files with such text, by index in the inputs.
    """
    sources = pl.DataFrame({name: keys["source_index"][copies[name]] for name in ("at", "kept")})
    same = sources.filter(pl.col("at") == pl.col("kept"), pl.col("at").is_in(list(own)))["at"]
    if len(same):
        yield (
            f"{listed([own[index] for index in same.unique().sort()], 3)}: text of a mixture, read "
            f"with each pair once: its {len(same):,} further copies are dropped (PD401); to train "
            "on the mixture, use its build, or give its sources with their weights again"
        )
