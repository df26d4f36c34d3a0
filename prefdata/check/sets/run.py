"""Checks of a whole set, applied to one narrow frame without texts.

The frame has one row for each kept record: the columns of `keys.KEYS` and of PROFILE, and `at`,
its index in the keys; also `split`, a number, if the inputs have splits.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import polars as pl

from prefdata.check.catalog import Severity
from prefdata.check.limits import CheckLimits
from prefdata.check.sets.bias import (
    find_format_bias,
    find_length_bias,
    find_model_bias,
    find_position_bias,
)
from prefdata.check.sets.found import SetFinding
from prefdata.check.sets.leaks import find_threads
from prefdata.check.sets.licences import find_unclear_licence
from prefdata.check.sets.prompts import (
    find_boilerplate,
    find_both_ways,
    find_cycles,
    find_frequent_prompts,
)

SET_CHECKS: dict[str, Callable[[pl.DataFrame, CheckLimits], list[SetFinding]]] = {
    "PD404": find_cycles,
    "PD405": find_frequent_prompts,
    "PD406": find_both_ways,
    "PD407": find_boilerplate,
    "PD601": find_length_bias,
    "PD602": find_model_bias,
    "PD603": find_position_bias,
    "PD604": find_format_bias,
    "PD606": find_unclear_licence,
}


def find_in_set(
    frame: pl.DataFrame, severity: Mapping[str, Severity], limits: CheckLimits
) -> list[SetFinding]:
    """Return the findings of all checks that are not off."""
    checks = SET_CHECKS | ({"PD504": find_threads} if "split" in frame.columns else {})
    return [
        finding
        for code, find in checks.items()
        if severity[code] != "off" and len(frame)
        for finding in find(frame, limits)
    ]


def settle_findings(
    found: Iterable[SetFinding], severity: Mapping[str, Severity], changed: Collection[str] = ()
) -> list[SetFinding]:
    """Return the findings that are not off, with their severities, sorted by code.

    `changed` are the codes whose severity the config sets.
    """
    settled = (
        one._replace(
            severity=one.least
            if one.least == "W" and severity[one.code] == "I" and one.code not in changed
            else severity[one.code]
        )
        for one in found
    )
    return sorted((one for one in settled if one.severity != "off"), key=lambda one: one.code)
