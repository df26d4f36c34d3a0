"""Checks of a whole set: what parts of it count one by one, and what the sums say.

Texts are not needed: a part has one narrow row for each kept record.
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
from prefdata.check.sets.found import RowSums, SetFinding, rows_in
from prefdata.check.sets.leaks import count_threads, find_threads
from prefdata.check.sets.licences import find_unclear_licence
from prefdata.check.sets.prompts import (
    completions_of,
    count_both_ways,
    count_cycles,
    count_frequent_prompts,
    find_boilerplate,
    find_both_ways,
    find_cycles,
    find_frequent_prompts,
    frequent_completions,
)
from prefdata.check.sets.tally import Tally, tally_of

Counting = Callable[[pl.DataFrame, CheckLimits], RowSums]
OF_PROMPTS: dict[str, Counting] = {
    "PD404": count_cycles,
    "PD405": count_frequent_prompts,
    "PD406": count_both_ways,
}
"""Checks that count rows in a part of the set that has all pairs of its prompts."""
OF_ROWS: dict[str, Callable[[RowSums, CheckLimits], list[SetFinding]]] = {
    "PD404": find_cycles,
    "PD405": find_frequent_prompts,
    "PD406": find_both_ways,
    "PD407": find_boilerplate,
    "PD504": find_threads,
}
"""Findings by the sums of the rows that are counted."""
OF_TALLIES: dict[str, Callable[[Tally, CheckLimits], list[SetFinding]]] = {
    "PD601": find_length_bias,
    "PD602": find_model_bias,
    "PD603": find_position_bias,
    "PD604": find_format_bias,
    "PD606": find_unclear_licence,
}
"""Findings by the sums over the profiles of all pairs."""
SET_CHECKS = (*OF_ROWS, *OF_TALLIES)


def find_in_set(
    frame: pl.DataFrame, severity: Mapping[str, Severity], limits: CheckLimits
) -> list[SetFinding]:
    """Return the findings in one frame, which has all pairs of the set.

    It has the columns of `keys.KEYS` and of PROFILE, and `at`, a row's index in the keys; also
    `split`, a number, if the inputs have splits.
    """
    counted = {code: count(frame, limits) for code, count in OF_PROMPTS.items()}
    rows, completions = frequent_completions(completions_of(frame), limits)
    counted["PD407"] = rows_in(rows.unique(), completions.groups, completions.most)
    if "split" in frame.columns:
        counted["PD504"] = count_threads(frame, limits)
    return conclude(counted, tally_of(frame), severity, limits)


def conclude(
    counted: Mapping[str, RowSums],
    tally: Tally,
    severity: Mapping[str, Severity],
    limits: CheckLimits,
) -> list[SetFinding]:
    """Return the findings of all checks that are not off, by the sums over the set."""
    if not tally.rows:
        return []
    found = [
        OF_ROWS[code](rows, limits) for code, rows in counted.items() if severity[code] != "off"
    ]
    found += [find(tally, limits) for code, find in OF_TALLIES.items() if severity[code] != "off"]
    return [one for some in found for one in some]


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
