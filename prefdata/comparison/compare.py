"""Comparison of two builds, pair by pair: pairs that were added, are gone, flipped, moved, changed.

A pair is identified by its id, a hash of its prompt and both completions. A pair whose label is
flipped has another id, so it is found by its prompt and its two completions swapped.
"""

from collections.abc import Iterator
from typing import Any, Literal

import polars as pl

from prefdata.records.split_names import rank_of
from prefdata.report.form import report_of
from prefdata.settings import StrictModel
from prefdata.store.reader import Build

_IDS = ("prompt_ids", "chosen_ids", "rejected_ids", "chosen_mask", "rejected_mask")
_NUMBERS = ("weight", "margin", "chosen_rank", "rejected_rank")
_KEYS = ("group_id", "chosen", "rejected")


class Change(StrictModel):
    """A pair that is not the same in both builds."""

    pair_id: str
    """Id in the build that `split`, `source` and `line` are of: the first for a pair that is gone,
    otherwise the second."""
    split: str
    source: str
    line: int
    before: str | None = None
    """Split in the first build, for a pair that moved."""


class CodeChange(StrictModel):
    """Counts of a code in the two builds."""

    code: str
    name: str
    before: int
    after: int


class SettingChange(StrictModel):
    """A setting of the config, or a hash of the tokenizer or its template."""

    name: str
    before: Any
    after: Any


class Comparison(StrictModel):
    """Differences between two builds."""

    format: Literal["prefdata-comparison"] = "prefdata-comparison"
    format_version: Literal[1] = 1
    first: str
    second: str
    content_hashes: list[str]
    """Content hashes of both; equal if both train on the same data."""
    same: int
    """Number of pairs in the same split of both, with the same tokens, weight and margin."""
    added: list[Change]
    gone: list[Change]
    flipped: list[Change]
    """Pairs whose chosen completion is the rejected one of the first build."""
    moved: list[Change]
    """Pairs that are in another split."""
    tokens: list[Change]
    """Pairs with the same text but other tokens or masks."""
    numbers: list[Change]
    """Pairs with another weight, margin or rank, or another number of copies in a mixture."""
    splits: dict[str, list[int]]
    """Number of pairs of each split in the first and the second build."""
    codes: list[CodeChange]
    """Codes whose counts differ."""
    settings: list[SettingChange]

    @property
    def differs(self) -> bool:
        """Return whether the training data, the codes or the settings differ."""
        return bool(self.content_hashes[0] != self.content_hashes[1] or self.codes or self.settings)


def compare_builds(first: Build, second: Build, *, names: tuple[str, str]) -> Comparison:
    """Compare two builds, whose files must match their manifests."""
    before, after = _rows_of(first), _rows_of(second)
    both = after.join(before, on="pair_id", suffix="_before")
    added = after.join(before, on="pair_id", how="anti")
    gone = before.join(after, on="pair_id", how="anti")
    swapped = {"chosen": "rejected", "rejected": "chosen"}
    flipped = added.join(gone.rename(swapped).select(*_KEYS), on=_KEYS, how="semi")
    unflipped = gone.join(added.rename(swapped).select(*_KEYS), on=_KEYS, how="anti")
    compared = ("split", "tokens", "numbers")
    differs = [pl.col(name) != pl.col(f"{name}_before") for name in compared]
    moved, tokens, numbers = (both.filter(one) for one in differs)
    counts = {
        split: [one.splits[split].rows if split in one.splits else 0 for one in (first, second)]
        for split in sorted({*first.splits, *second.splits}, key=rank_of)
    }
    return Comparison(
        first=names[0],
        second=names[1],
        content_hashes=[first.content_hash, second.content_hash],
        same=len(both.filter(~pl.any_horizontal(differs))),
        added=_changes(added.join(flipped, on="pair_id", how="anti")),
        gone=_changes(unflipped),
        flipped=_changes(flipped),
        moved=_changes(moved),
        tokens=_changes(tokens),
        numbers=_changes(numbers),
        splits=counts,
        codes=list(_codes(first, second)),
        settings=list(_settings(first, second)),
    )


def _rows_of(build: Build) -> pl.DataFrame:
    """Return each pair: its source, and hashes of its completions, its tokens and its numbers."""
    frames = []
    for split in build.splits:
        start, tokens = 0, build.tokens(split)
        for table in build.text_parts(split):
            texts = pl.DataFrame(table)
            ids = pl.DataFrame(tokens.select(_IDS).slice(start, len(texts)))
            numbers = pl.DataFrame(tokens.select(_NUMBERS).slice(start, len(texts)))
            start += len(texts)
            frames.append(
                texts.select(
                    "pair_id",
                    "group_id",
                    "source",
                    pl.col("line").cast(pl.Int64),
                    _words_of(texts.schema, "chosen"),
                    _words_of(texts.schema, "rejected"),
                    split=pl.lit(split),
                    tokens=ids.hash_rows(),
                    numbers=numbers.hash_rows(),
                )
            )
    empty = {"pair_id": pl.String, "group_id": pl.String, "source": pl.String, "line": pl.Int64}
    hashes = dict.fromkeys(("chosen", "rejected", "tokens", "numbers"), pl.UInt64)
    schema = {**empty, "chosen": pl.UInt64, "rejected": pl.UInt64, "split": pl.String} | hashes
    rows = pl.concat([pl.DataFrame(schema=schema), *frames], how="diagonal")
    copies = pl.len().over("pair_id")
    mixed = pl.when(copies > 1).then(pl.struct("numbers", copies).hash()).otherwise("numbers")
    return rows.with_columns(numbers=mixed).unique("pair_id", keep="first", maintain_order=True)


def _words_of(schema: pl.Schema, side: str) -> pl.Expr:
    """Return a hash of a side; null fields do not count, so other columns do not matter."""
    kind = schema[side]
    if not isinstance(kind, pl.List):
        return pl.col(side).hash()
    assert isinstance(kind.inner, pl.Struct)
    parts = [
        pl.when(field.is_not_null()).then(pl.lit(f"\x1f{name}=") + field).otherwise(pl.lit(""))
        for name, field in (
            (one.name, pl.element().struct.field(one.name).cast(pl.String))
            for one in kind.inner.fields
        )
    ]
    return pl.col(side).list.eval(pl.concat_str(parts)).list.join("\x1e").hash()


def _changes(rows: pl.DataFrame) -> list[Change]:
    columns = ["pair_id", "split", "source", "line"]
    has_before = "split_before" in rows.columns
    chosen = rows.select(*columns, *(["split_before"] if has_before else []))
    return [
        Change(pair_id=one[0], split=one[1], source=one[2], line=one[3],
               before=one[4] if has_before and one[4] != one[1] else None)
        for one in chosen.iter_rows()
    ]  # fmt: skip


def _codes(first: Build, second: Build) -> Iterator[CodeChange]:
    found: list[dict[str, int]] = []
    names: dict[str, str] = {}
    for build in (first, second):
        report = report_of(build)
        found.append({finding.code: finding.count for finding in report.findings})
        names |= {finding.code: finding.name for finding in report.findings}
    for code, name in sorted(names.items()):
        before, after = (counts.get(code, 0) for counts in found)
        if before != after:
            yield CodeChange(code=code, name=name, before=before, after=after)


def _settings(first: Build, second: Build) -> Iterator[SettingChange]:
    """Yield what differs: settings except the inputs, and hashes of tokenizer and template."""
    configs = [build.manifest.config for build in (first, second)]
    seals = [build.manifest.tokenizer.model_dump() for build in (first, second)]
    for key in dict.fromkeys([*configs[0], *configs[1]]):
        before, after = (config.get(key) for config in configs)
        if before != after and key != "inputs":
            yield SettingChange(name=key, before=before, after=after)
    for key in ("tokenizer_sha256", "template_sha256"):
        if seals[0][key] != seals[1][key]:
            yield SettingChange(name=key, before=seals[0][key], after=seals[1][key])
