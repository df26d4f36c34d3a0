"""Each code refuses its row and keeps the rows next to it."""

from collections.abc import Callable
from typing import Any
from unicodedata import normalize

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefdata.check import CheckLimits, RowChecks, examine_rows
from prefdata.check.catalog import catalog
from prefdata.check.rows.rules import rules_of
from prefdata.errors import UsageError
from prefdata.records.schema import RECORDS, REJECTED
from tests.prefdata.check.cases import BROKEN, FINE, GOOD, LIMITS, LONG

RecordsOf = Callable[..., pa.Table]
RULES = rules_of(CheckLimits())
STOP = ("<|stop|>", " ", "")
SET = CheckLimits(**LIMITS)


def walk(cases: dict[str, list[dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    return [(code, case) for code, some in cases.items() for case in some]


def only(code: str, level: str = "E") -> dict[str, str]:
    return {other: "off" for other in RULES if other != code} | {code: level}


@pytest.mark.parametrize(("code", "case"), walk(BROKEN))
def test_a_broken_row_is_refused_and_its_neighbor_kept(
    records_of: RecordsOf, code: str, case: dict[str, Any]
) -> None:
    records = records_of(GOOD, GOOD | case, GOOD)

    seen = examine_rows(records, RowChecks.of(only(code), STOP, SET))

    (row,) = seen.refused.to_pylist()
    assert (row["code"], row["line"], row["ordinal"]) == (code, 2, 0)
    assert row["message"] != catalog()[code].meaning  # it says what is wrong with this row
    assert set(orjson.loads(row["pair"])) == {"prompt", "chosen", "rejected"}
    assert seen.kept["line"].to_pylist() == [1, 3]


@pytest.mark.parametrize(("code", "case"), walk(FINE))
def test_a_row_near_the_rule_is_kept(
    records_of: RecordsOf, code: str, case: dict[str, Any]
) -> None:
    records = records_of(GOOD | case)
    seen = examine_rows(records, RowChecks.of(only(code), STOP, SET))

    assert (seen.kept.num_rows, seen.refused["code"].to_pylist()) == (1, []), code


@pytest.mark.parametrize(
    ("code", "case"), [case for case in walk(BROKEN) if catalog()[case[0]].severity == "E"]
)
def test_by_default_a_row_is_refused_under_its_own_code(
    records_of: RecordsOf, code: str, case: dict[str, Any]
) -> None:
    seen = examine_rows(records_of(GOOD | case), RowChecks.of({}, STOP, SET))

    assert seen.refused["code"].to_pylist() == [code]


def test_every_rule_is_in_the_catalog_and_tested() -> None:
    assert set(RULES) - {"PD503"} == set(BROKEN) == set(FINE)  # PD503: test_contamination.py
    assert set(RULES) == {c.code for c in catalog().values() if c.found == "checking"}


@pytest.mark.parametrize("code", BROKEN)
def test_a_code_can_be_raised_lowered_or_switched_off(records_of: RecordsOf, code: str) -> None:
    records = records_of(GOOD, GOOD | BROKEN[code][0])

    for level in ("E", "W", "I", "off"):
        seen = examine_rows(records, RowChecks.of(only(code, level), STOP, SET))
        assert seen.refused["code"].to_pylist() == [code] * (level == "E")
        assert {c: met.num for c, met in seen.reported.items()} == (
            {code: 1} if level == "W" else {}
        )
        assert {c: met.num for c, met in seen.counted.items()} == (
            {code: 1} if level == "I" else {}
        )
        assert len(seen.profile) == seen.kept.num_rows == (1 if level == "E" else 2)


def test_what_is_kept_has_the_same_findings_again(records_of: RecordsOf) -> None:
    records = records_of(*(GOOD | case for _, case in walk(BROKEN)))

    seen = examine_rows(records, RowChecks.of({}, STOP, SET, examples=99))
    again = examine_rows(seen.kept, RowChecks.of({}, STOP, SET, examples=99))

    assert (again.kept.to_pylist(), again.refused.num_rows) == (seen.kept.to_pylist(), 0)
    assert (again.reported, again.counted) == (seen.reported, seen.counted)


def test_without_a_tokenizer_a_common_control_token_is_only_reported(records_of: RecordsOf) -> None:
    records = records_of(GOOD | {"chosen": "done <|im_end|>"})

    assert examine_rows(records, RowChecks.of()).reported["PD210"].num == 1
    assert examine_rows(records, RowChecks.of(control_tokens=("<|stop|>",))).reported == {}
    assert examine_rows(records, RowChecks.of({"PD210": "E"})).refused.num_rows == 1


def test_only_the_ending_of_a_secret_is_shown(records_of: RecordsOf) -> None:
    secret = "AKIAQ4J7XW2LZ5TB3NGH"
    seen = examine_rows(records_of(GOOD | {"prompt": f"{secret} is mine"}), RowChecks.of())

    ((_, line, message, *_),) = seen.counted["PD607"].first
    assert (line, message) == (1, "aws_access_key …3NGH")


@pytest.mark.parametrize(
    ("severity", "code"),
    [({"PD999": "W"}, "C130"), ({"PD301": "warn"}, "C131"), ({"PD207": "W"}, "C132")],
)
def test_an_invalid_severity_is_refused(severity: dict[str, str], code: str) -> None:
    with pytest.raises(UsageError, match=rf"\[{code}\]$"):
        RowChecks.of(severity)


def test_a_check_of_tokens_needs_a_tokenizer() -> None:
    with pytest.raises(UsageError, match=r"no tokenizer is named; name one \[C130\]$"):
        RowChecks.of({"PD707": "W"})


def test_no_rows_are_no_rows() -> None:
    seen = examine_rows(pa.Table.from_batches([], schema=RECORDS), RowChecks.of())

    assert (seen.kept.schema, seen.refused.schema) == (RECORDS, REJECTED)
    assert (seen.kept.num_rows, seen.refused.num_rows) == (0, 0)


def test_slices_and_chunks_change_nothing(records_of: RecordsOf) -> None:
    rows = [*(GOOD | case for _, case in walk(BROKEN)), GOOD]
    records = records_of(*rows)
    chunked = pa.concat_tables([records.slice(n, 3) for n in range(0, len(rows), 3)])

    whole, parts = (examine_rows(table, RowChecks.of()) for table in (records, chunked))

    assert whole.kept.to_pylist() == parts.kept.to_pylist()
    assert whole.refused.to_pylist() == parts.refused.to_pylist()
    assert (whole.reported, whole.counted) == (parts.reported, parts.counted)


sides = st.text(alphabet="a ,.\u00e9e\u0301<", max_size=5)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(sides, sides, sides), min_size=1, max_size=6))
def test_kept_and_refused_are_all_rows_and_every_kept_pair_has_a_preference(
    records_of: RecordsOf, pairs: list[tuple[str, str, str]]
) -> None:
    records = records_of(*({"prompt": p, "chosen": c, "rejected": r} for p, c, r in pairs))

    seen = examine_rows(records, RowChecks.of())
    kept, refused = seen.kept["line"].to_pylist(), seen.refused["line"].to_pylist()

    assert sorted(kept + refused) == [*range(1, len(pairs) + 1)]
    expected = [
        n
        for n, (p, c, r) in enumerate(pairs, 1)
        if all(side.strip() for side in (p, c, r))
        and normalize("NFC", " ".join(c.split())) != normalize("NFC", " ".join(r.split()))
    ]
    assert kept == expected


@pytest.mark.parametrize("text", ["a" * 4_000_000, "a b " * 1_000_000, "x\n" * 2_000_000])
def test_a_huge_side_is_checked_in_bounded_time(records_of: RecordsOf, text: str) -> None:
    """Comparing such sides by character would take hours, and their runs gigabytes."""
    records = records_of(
        {"prompt": "q", "chosen": f"one {text} end", "rejected": f"two {text} done"}
    )

    seen = examine_rows(records, RowChecks.of())

    assert {"PD310", "PD313"} <= set(seen.reported)


def test_a_profile_clips_what_exceeds_its_dtypes(records_of: RecordsOf) -> None:
    turns = [{"role": "user" if n % 2 else "assistant", "content": "-"} for n in range(70_000)]
    metas = [f'{{"source":"{n}"}}' for n in range(1500)]
    records = records_of(
        {"prompt": turns, "chosen": "\n- x" * 400, "rejected": "b", "score_chosen": 1e300},
        *(GOOD | {"meta": meta} for meta in metas),
    )

    profile = examine_rows(records, RowChecks.of()).profile

    assert (profile["turns_prompt"][0], profile["items_chosen"][0]) == (65_535, 255)
    assert profile["origin"].drop_nulls().unique().to_list() == ["(various)"]


MATH = LONG + "So the answer is\n#### {}"
CUT = LONG + "and then the children went home {} by the"


@pytest.mark.parametrize(
    ("sides", "num"),
    [
        (["#### 72, an end that all share"], 0),
        ([MATH.format(n) for n in range(40)], 0),
        ([MATH.format(n) for n in range(38)] + [CUT.format(1), CUT.format(2)], 1),
        ([CUT.format(n) for n in range(40)], 20),
        ([LONG + f"step {n}\n" for n in range(40)], 20),
        ([LONG + f"and {n}" for n in range(20)] + [f"short {n}" for n in range(40)], 0),
        ([LONG + f"and {n}" for n in range(20)] + [f"Short {n}." for n in range(40)], 10),
        ([LONG + f"```\nx = {n}\n" for n in range(40)] + [f"short {n}" for n in range(40)], 20),
    ],
    ids=["one", "math", "math and a cut one", "cut", "no line", "no stops", "stops", "code"],
)
def test_a_cut_end_is_one_that_the_set_does_not_have_by_itself(
    records_of: RecordsOf, sides: list[str], num: int
) -> None:
    pairs = [
        {"prompt": f"q{n}", "chosen": one, "rejected": other}
        for n, (one, other) in enumerate(zip(sides[::2], sides[1::2], strict=False))
    ]
    seen = examine_rows(records_of(GOOD, *pairs), RowChecks.of(only("PD311", "I")))

    assert getattr(seen.counted.get("PD311"), "num", 0) == num
