"""Checks of records: which are kept, which are refused, and what is found in the kept ones."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from prefdata.arrow import empty_table
from prefdata.check.catalog import Severity
from prefdata.check.limits import CheckLimits
from prefdata.check.rows.context import CheckContext
from prefdata.check.rows.evidence import Reading, evidence_of
from prefdata.check.rows.own import Messages, OwnCheck, find_own, own_checks
from prefdata.check.rows.profile import PROFILE, profile_scene
from prefdata.check.rows.rules import evaluate, rules_of
from prefdata.check.sets.triggers import TriggerCandidate, add_seeds, find_trigger_candidates
from prefdata.check.severity import resolve_severity
from prefdata.records.findings import EXAMPLES, CodeCount, Location, merge_counts
from prefdata.records.rejected import rejects_of
from prefdata.records.schema import RECORDS, REJECTED
from prefdata.records.secrets import visible

DEFAULT_LIMITS = CheckLimits()
MAX_COPY = 2**27  # bytes


class RowChecks(NamedTuple):
    """Options of the checks of rows, the same for all workers of a build."""

    severity: Mapping[str, Severity]
    """Severity of every code of rows and sets, after the config's changes."""
    control_tokens: tuple[str, ...] = ()
    """Added tokens of the target tokenizer (PD210); none: those of common ones."""
    limits: CheckLimits = DEFAULT_LIMITS
    evaluations: tuple[str, ...] = ()
    """Files that rows must not overlap (PD503)."""
    examples: int = EXAMPLES
    """Number of examples kept for each code."""
    own: tuple[OwnCheck, ...] = ()
    """Checks of the user's own, from `limits`."""
    changed: frozenset[str] = frozenset()
    """Codes whose severity the config sets."""

    @staticmethod
    def of(
        changes: Mapping[str, str] = MappingProxyType({}),
        control_tokens: Sequence[str] = (),
        limits: CheckLimits = DEFAULT_LIMITS,
        evaluations: Sequence[str] = (),
        examples: int = EXAMPLES,
    ) -> "RowChecks":
        """Return the options for a config's changes to severities, and load the user's checks."""
        severity, own = resolve_severity(changes, limits.own), own_checks(limits.own)
        files = tuple(evaluations)
        codes = frozenset(changes)
        return RowChecks(severity, tuple(control_tokens), limits, files, examples, own, codes)

    @property
    def reading(self) -> Reading:
        """Return the settings that decide what breaks a rule."""
        return Reading(self.limits, self.control_tokens)

    def codes_at(self, level: Severity) -> list[str]:
        """Return the codes of rows with a severity, in order of precedence: your own are last."""
        codes = [*rules_of(self.limits), *self.limits.own]
        return [code for code in codes if self.severity[code] == level]


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
    kept, refused = [empty_table(RECORDS)], [empty_table(REJECTED)]
    profiles, reported, counted = [pl.DataFrame(schema=PROFILE)], [], []
    seeds, seeks = [], checks.severity["PD608"] != "off"
    for batch in _batches(records):
        scene = CheckContext(batch, checks.limits, checks.evaluations)
        table = pa.Table.from_batches([batch])
        broken = evaluate(scene, [*refusing, *reporting, *counting], checks.control_tokens)
        own = _own(table, broken, refusing, checks)
        said_by = [
            pl.Series(code, scene.flags(pl.Series(list(said), dtype=pl.UInt32)))
            for code, said in own.items()
        ]
        broken = broken.with_columns(said_by) if broken.width else pl.DataFrame(said_by)
        first = _first(broken, refusing, batch.num_rows)
        kept_mask = first.is_null()
        kept.append(table.filter(kept_mask.to_arrow()))
        refused.append(_refused(table, first, own, checks))
        profiles.append(profile_scene(scene).filter(kept_mask))
        seeds.append(find_trigger_candidates(scene, checks.examples) if seeks else [])
        broken = broken.select(pl.all() & kept_mask)
        reported.append(_met(scene, broken.select(reporting), own, checks))
        counted.append(_met(scene, broken.select(counting), own, checks))
    return CheckedRows(
        pa.concat_tables(kept),
        pa.concat_tables(refused),
        merge_counts(reported, checks.examples),
        merge_counts(counted, checks.examples),
        pl.concat(profiles),
        add_seeds(seeds, checks.examples),
    )


def _batches(records: pa.Table) -> list[pa.RecordBatch]:
    """Return all records as one batch, which is faster, unless that would be a large copy."""
    whole = records.combine_chunks() if records.nbytes < MAX_COPY else records
    batches: list[pa.RecordBatch] = whole.to_batches()
    return batches


def _own(
    pairs: pa.Table, broken: pl.DataFrame, refusing: Sequence[str], checks: RowChecks
) -> Messages:
    """Run the user's own checks that are not off, on the pairs that no other check refuses."""
    own = [check for check in checks.own if checks.severity[check.name] != "off"]
    if not own:
        return {}
    shipped = [code for code in refusing if code in broken.columns]
    return find_own(pairs, _first(broken, shipped, pairs.num_rows).is_null().arg_true(), own)


def _first(broken: pl.DataFrame, codes: Sequence[str], height: int) -> pl.Series:
    """Return the first of the codes that each pair has, or null."""
    if not codes:
        return pl.Series([None], dtype=pl.String).new_from_index(0, height)
    said = [pl.when(pl.col(code)).then(pl.lit(code)) for code in codes]
    return broken.select(code=pl.coalesce(*said))["code"]


def _refused(pairs: pa.Table, broken: pl.Series, own: Messages, checks: RowChecks) -> pa.Table:
    places = broken.is_not_null().arg_true()
    codes: list[str] = broken.gather(places).to_list()
    refused = pairs.take(places.to_arrow())
    said = [
        _said(code, place, pair, own, checks)
        for code, place, pair in zip(codes, places, refused.to_pylist(), strict=True)
    ]
    return rejects_of(refused, codes, said)


def _said(code: str, row: int, pair: Mapping[str, Any], own: Messages, checks: RowChecks) -> str:
    """Return the message about one pair of a batch, with nothing private in it."""
    if code in own:
        return visible(own[code][row])
    return evidence_of(code, pair, checks.reading).said


def _met(
    scene: CheckContext, broken: pl.DataFrame, own: Messages, checks: RowChecks
) -> dict[str, CodeCount]:
    """Count the pairs with each code, and locate the first ones."""
    found = {}
    for code in broken.columns:
        places = broken[code].arg_true()
        if len(places):
            first = places.head(checks.examples)
            rows = scene.batch.take(first.to_arrow()).to_pylist()
            locations = tuple(
                Location(
                    pair["source"],
                    pair["line"],
                    _said(code, row, pair, own, checks),
                    pair["offset"],
                )
                for row, pair in zip(first, rows, strict=True)
            )
            found[code] = CodeCount(len(places), locations)
    return found
