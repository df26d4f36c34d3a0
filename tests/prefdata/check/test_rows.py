"""Each code refuses its row and leaves the row beside it alone."""

from collections.abc import Callable
from typing import Any
from unicodedata import normalize

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefdata.check import CHECKS, check_rows, find_rows
from prefdata.check.rules import RULES
from prefdata.errors import UsageError
from prefdata.records import RECORDS, REJECTED

RecordsOf = Callable[..., pa.Table]

GOOD = {"prompt": "q", "chosen": "a", "rejected": "b"}
LIGHT = {"type": "function", "function": {"name": "light", "arguments": {"room": "x"}}}
TOOLS = [{"type": "function", "function": {"name": "light"}}]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text} | more


def calling(call: Any) -> dict[str, Any]:
    return GOOD | {"chosen": [assistant("", tool_calls=[call])], "tools": TOOLS}


BROKEN = {
    "PD201": [{"prompt": " \n"}, {"prompt": []}, {"prompt": [user(""), user("\u3000")]}],
    "PD202": [{"chosen": ""}, {"rejected": " \t\n"}, {"chosen": []}, {"rejected": []}],
    "PD203": [
        {"chosen": [user("a")]},
        {"rejected": [assistant("b"), user("c")]},
        {"rejected": [{"role": "tool", "name": "x", "content": "b"}]},
    ],
    "PD204": [
        {"prompt": [{"role": "narrator", "content": "Once"}]},
        {"chosen": [{"role": "Assistant", "content": "a"}]},
    ],
    "PD210": [{"prompt": "see <|stop|>"}, {"chosen": "<|stop|>"}, {"rejected": "x<|stop|>y"}],
    "PD211": [
        calling({"type": "function", "function": {"name": "light", "arguments": "{"}}),
        calling({"type": "function", "function": {"name": "light", "arguments": "[1]"}}),
        calling({"type": "function", "function": {"arguments": {}}}),
        calling("light"),
        calling(LIGHT) | {"tools": None},
        {"prompt": [user("q"), {"role": "tool", "content": "on"}]},
    ],
    "PD213": [
        {"prompt": "<|im_start|>user\nq<|im_end|>"},
        {"chosen": "<start_of_turn>model\na"},
        {"prompt": "<|start_header_id|>user<|end_header_id|>\n\nq"},
        {"prompt": "<s>[INST] q [/INST]"},
    ],
    "PD301": [
        {"rejected": "a"},
        {"chosen": "a  b", "rejected": " a\nb "},
        {"chosen": "caf\u00e9, or. so", "rejected": "cafe\u0301, or.  so"},
    ],
}
CASES = [(code, case) for code, cases in BROKEN.items() for case in cases]


@pytest.mark.parametrize(("code", "case"), CASES)
def test_a_broken_row_is_refused_and_its_neighbour_kept(
    records_of: RecordsOf, code: str, case: dict[str, Any]
) -> None:
    records = records_of(GOOD, GOOD | case, GOOD)

    kept, refused = check_rows(records, control_tokens=["<|stop|>", " ", ""])

    (row,) = refused.to_pylist()
    assert (row["code"], row["line"], row["ordinal"]) == (code, 2, 0)
    assert row["message"].startswith(CHECKS[code].name)
    raw = orjson.loads(row["raw"])
    assert set(raw) == {"prompt", "chosen", "rejected"}
    assert kept["line"].to_pylist() == [1, 3]


FINE = {
    "PD201": {"prompt": [{"role": "system", "content": ""}, user("q")]},
    "PD202": calling(LIGHT),
    "PD203": {"chosen": [assistant("a"), user("and?"), assistant("b")]},
    "PD204": {"prompt": [{"role": r, "content": "q"} for r in ("system", "developer", "user")]},
    "PD210": {"prompt": "see <|stopp|> and   spaces"},
    "PD211": {
        "prompt": [
            user("q"),
            assistant("", tool_calls=[LIGHT]),
            {"role": "tool", "tool_call_id": "1", "content": "on"},
        ],
        "tools": TOOLS,
    },
    "PD213": {"prompt": "What does [INST] or <|user|> or im_start mean?"},
    "PD301": {"chosen": "a b", "rejected": "ab"},
}


@pytest.mark.parametrize(("code", "case"), FINE.items(), ids=FINE.keys())
def test_a_row_near_the_rule_is_kept(
    records_of: RecordsOf, code: str, case: dict[str, Any]
) -> None:
    kept, refused = check_rows(records_of(GOOD | case), control_tokens=["<|stop|>", " "])

    assert (kept.num_rows, refused["code"].to_pylist()) == (1, []), code


def test_every_rule_is_in_the_catalog_and_tested() -> None:
    assert set(RULES) == set(BROKEN) == set(FINE)
    assert set(RULES) == {c.code for c in CHECKS.values() if c.found == "checking"}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_every_code_says_what_it_means_and_how_to_mend_it(check: Any) -> None:
    assert check.code == next(code for code, known in CHECKS.items() if known is check)
    assert check.meaning.endswith(".")
    assert check.advice.endswith(".")
    assert check.example


@pytest.mark.parametrize("code", RULES)
def test_a_code_can_be_lowered_or_switched_off(records_of: RecordsOf, code: str) -> None:
    records = records_of(GOOD, GOOD | BROKEN[code][0])
    others = {other: "off" for other in RULES if other != code}

    for level, num_found in (("W", 1), ("off", 0)):
        severity = others | {code: level}
        kept, refused = check_rows(records, severity=severity, control_tokens=["<|stop|>"])
        found = find_rows(records, severity=severity, control_tokens=["<|stop|>"])
        assert (kept.num_rows, refused.num_rows) == (2, 0)
        assert found["code"].to_pylist() == [code] * num_found


@pytest.mark.parametrize(
    ("severity", "code"),
    [({"PD999": "W"}, "C130"), ({"PD301": "warn"}, "C131"), ({"PD207": "W"}, "C132")],
)
def test_a_severity_that_cannot_be_is_refused(severity: dict[str, str], code: str) -> None:
    with pytest.raises(UsageError, match=rf"\[{code}\]$"):
        check_rows(pa.Table.from_batches([], schema=RECORDS), severity=severity)


def test_no_rows_are_no_rows() -> None:
    kept, refused = check_rows(pa.Table.from_batches([], schema=RECORDS))

    assert (kept.schema, refused.schema) == (RECORDS, REJECTED)
    assert (kept.num_rows, refused.num_rows) == (0, 0)


def test_slices_and_chunks_change_nothing(records_of: RecordsOf) -> None:
    rows = [GOOD | case for cases in BROKEN.values() for case in cases] + [GOOD]
    records = records_of(*rows)
    chunked = pa.concat_tables([records.slice(n, 3) for n in range(0, len(rows), 3)])

    whole, parts = check_rows(records), check_rows(chunked)

    assert [table.to_pylist() for table in whole] == [table.to_pylist() for table in parts]


sides = st.text(alphabet="a ,.\u00e9e\u0301<", max_size=5)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(sides, sides, sides), min_size=1, max_size=6))
def test_kept_and_refused_are_all_and_no_kept_pair_prefers_nothing(
    records_of: RecordsOf, pairs: list[tuple[str, str, str]]
) -> None:
    records = records_of(*({"prompt": p, "chosen": c, "rejected": r} for p, c, r in pairs))

    kept, refused = check_rows(records)

    assert sorted(kept["line"].to_pylist() + refused["line"].to_pylist()) == [
        *range(1, len(pairs) + 1)
    ]
    expected = [
        n
        for n, (p, c, r) in enumerate(pairs, 1)
        if all(side.strip() for side in (p, c, r))
        and normalize("NFC", " ".join(c.split())) != normalize("NFC", " ".join(r.split()))
    ]
    assert kept["line"].to_pylist() == expected
