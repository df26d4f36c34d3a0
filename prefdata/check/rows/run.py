"""Checks of records: which are kept, which are refused, and what is found in the kept ones."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from prefdata.check.catalog import CHECKS
from prefdata.check.limits import CheckLimits
from prefdata.check.rows.context import CheckContext
from prefdata.check.rows.evaluate import evaluate
from prefdata.check.rows.profile import PROFILE, profile_scene
from prefdata.check.rows.rules import rules_of
from prefdata.check.rows.secrets import describe, find_private
from prefdata.check.sets.triggers import TriggerCandidate, add_seeds, find_trigger_candidates
from prefdata.check.severity import resolve_severity
from prefdata.records.findings import EXAMPLES, CodeCount, Location, merge_counts
from prefdata.records.rejected import rejects_of
from prefdata.records.schema import RECORDS, REJECTED

NO_CHANGES: Mapping[str, str] = MappingProxyType({})
DEFAULT_LIMITS = CheckLimits()
MAX_COPY = 2**27  # bytes


class RowChecks(NamedTuple):
    """Options of the checks of rows."""

    severity: Mapping[str, str] = NO_CHANGES
    """Changes to the severities of the catalog, by code."""
    control_tokens: tuple[str, ...] = ()
    """Added tokens of the target tokenizer (PD210); none: those of common ones, at severity W."""
    limits: CheckLimits = DEFAULT_LIMITS
    evaluations: tuple[str, ...] = ()
    """Files that rows must not overlap (PD503)."""
    examples: int = EXAMPLES
    """Number of examples kept for each code."""

    def codes_at(self, *levels: str) -> list[str]:
        """Return the codes with one of the severities, in the order of the rules."""
        resolved: dict[str, str] = dict(resolve_severity(self.severity))
        if not self.control_tokens and "PD210" not in self.severity:
            resolved["PD210"] = "W"
        return [code for code in rules_of(self.limits) if resolved[code] in levels]


class CheckedRows(NamedTuple):
    """Kept records, refused rows, and what is found in the kept ones."""

    kept: pa.Table
    refused: pa.Table
    """Rows of REJECTED, each under the first rule of severity E that it breaks."""
    reported: dict[str, CodeCount]
    """Findings of severity W, by code."""
    counted: dict[str, CodeCount]
    """Findings of severity I, by code."""
    profile: pl.DataFrame
    """PROFILE of the kept records, in their order."""
    seeds: list[TriggerCandidate]
    """Trigger candidates (PD608); empty if the check is off."""


def examine_rows(records: pa.Table, checks: RowChecks) -> CheckedRows:
    """Run all checks of rows and profile the kept ones, in one pass over each batch."""
    refusing, reporting, counting = (checks.codes_at(level) for level in ("E", "W", "I"))
    kept, refused = [_empty(RECORDS)], [_empty(REJECTED)]
    profiles, reported, counted = [pl.DataFrame(schema=PROFILE)], [], []
    seeds, seeks = [], resolve_severity(checks.severity)["PD608"] != "off"
    for batch in _batches(records):
        scene = CheckContext(batch, checks.limits, checks.evaluations)
        broken = evaluate(scene, [*refusing, *reporting, *counting], checks.control_tokens)
        first = _first(broken, refusing, batch.num_rows)
        kept_mask = first.is_null()
        table = pa.Table.from_batches([batch])
        kept.append(table.filter(kept_mask.to_arrow()))
        refused.append(_refused(table, first))
        profiles.append(profile_scene(scene).filter(kept_mask))
        seeds.append(find_trigger_candidates(scene, checks.examples) if seeks else [])
        broken = broken.select(pl.all() & kept_mask)
        reported.append(_met(scene, broken.select(reporting), checks.examples))
        counted.append(_met(scene, broken.select(counting), checks.examples))
    return CheckedRows(
        pa.concat_tables(kept),
        pa.concat_tables(refused),
        merge_counts(reported, checks.examples),
        merge_counts(counted, checks.examples),
        pl.concat(profiles),
        add_seeds(seeds, checks.examples),
    )


def check_rows(
    records: pa.Table,
    *,
    severity: Mapping[str, str] = NO_CHANGES,
    control_tokens: Sequence[str] = (),
    limits: CheckLimits = DEFAULT_LIMITS,
) -> tuple[pa.Table, pa.Table]:
    """Return the kept records, and rows of REJECTED for those that break a rule of severity E."""
    checks = RowChecks(severity, tuple(control_tokens), limits)
    kept, refused = [_empty(RECORDS)], [_empty(REJECTED)]
    codes = checks.codes_at("E")
    for batch in records.to_batches():
        first = _first(_evaluate(batch, codes, checks), codes, batch.num_rows)
        table = pa.Table.from_batches([batch])
        kept.append(table.filter(first.is_null().to_arrow()))
        refused.append(_refused(table, first))
    return pa.concat_tables(kept), pa.concat_tables(refused)


def find_rows(
    records: pa.Table,
    *,
    severity: Mapping[str, str] = NO_CHANGES,
    control_tokens: Sequence[str] = (),
    limits: CheckLimits = DEFAULT_LIMITS,
) -> pa.Table:
    """Return findings of severity W, in REJECTED's schema: one row per finding."""
    checks = RowChecks(severity, tuple(control_tokens), limits)
    codes, found = checks.codes_at("W"), [_empty(REJECTED)]
    for batch in records.to_batches():
        broken = _evaluate(batch, codes, checks)
        table = pa.Table.from_batches([batch])
        found += [_refused(table, _first(broken, [code], batch.num_rows)) for code in codes]
    return pa.concat_tables(found)


def _batches(records: pa.Table) -> list[pa.RecordBatch]:
    """Return all records as one batch, which is faster, unless that would be a large copy."""
    whole = records.combine_chunks() if records.nbytes < MAX_COPY else records
    batches: list[pa.RecordBatch] = whole.to_batches()
    return batches


def _empty(schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([], schema=schema)


def _evaluate(batch: pa.RecordBatch, codes: Sequence[str], checks: RowChecks) -> pl.DataFrame:
    return evaluate(
        CheckContext(batch, checks.limits, checks.evaluations), codes, checks.control_tokens
    )


def _first(broken: pl.DataFrame, codes: Sequence[str], height: int) -> pl.Series:
    """Return the first of the codes that each pair has, or null."""
    if not codes:
        return pl.Series([None], dtype=pl.String).new_from_index(0, height)
    said = [pl.when(pl.col(code)).then(pl.lit(code)) for code in codes]
    return broken.select(code=pl.coalesce(*said))["code"]


def _refused(pairs: pa.Table, broken: pl.Series) -> pa.Table:
    places = broken.is_not_null().arg_true()
    codes: list[Any] = broken.gather(places).to_list()
    return rejects_of(pairs.take(places.to_arrow()), codes, [say(code) for code in codes])


def _met(scene: CheckContext, broken: pl.DataFrame, examples: int) -> dict[str, CodeCount]:
    """Count the pairs with each code, and locate the first ones."""
    found = {}
    for code in broken.columns:
        places = broken[code].arg_true()
        if len(places):
            first = places.head(examples).to_list()
            locations = tuple(
                Location(
                    scene.batch["source"][row].as_py(),
                    scene.batch["line"][row].as_py(),
                    _say(code, scene.messages, row),
                    scene.batch["offset"][row].as_py(),
                )
                for row in first
            )
            found[code] = CodeCount(len(places), locations)
    return found


def say(code: str) -> str:
    """Return the message for a row that breaks a rule."""
    return f"{CHECKS[code].name}: {CHECKS[code].meaning}"


def _say(code: str, messages: pl.DataFrame, row: int) -> str:
    """Return the message for one row; private data is shown only by class and last characters."""
    if code != "PD607":
        return say(code)
    texts = messages.filter(pl.col("row") == row)["content"]
    seen = [sighting for text in texts for sighting in find_private(text)]
    return f"{CHECKS[code].name}: {describe(seen)}"
