"""Messages name what is wrong with a row, and spans are the passages that they are about."""

from typing import Any

import orjson
import pytest

from prefdata.check.limits import CheckLimits
from prefdata.check.rows.evidence import Evidence, Reading, evidence_of
from tests.prefdata.check.cases import BROKEN, GOOD, LIMITS, LONG, assistant, user

SETTINGS = Reading(CheckLimits(**LIMITS), ("<|stop|>", " "))
PARTS = ("prompt", "chosen", "rejected")


def found(code: str, **case: Any) -> Evidence:
    pair = GOOD | case
    sides = {
        part: [{"role": "user" if part == "prompt" else "assistant", "content": pair[part]}]
        if isinstance(pair[part], str)
        else [turn | as_records(turn) for turn in pair[part]]
        for part in PARTS
    }
    return evidence_of(code, pair | sides, SETTINGS)


def as_records(turn: dict[str, Any]) -> dict[str, Any]:
    calls = turn.get("tool_calls")
    return {} if calls is None else {"tool_calls": orjson.dumps(calls).decode()}


def passages(evidence: Evidence, case: dict[str, Any]) -> list[str]:
    pair = GOOD | case
    contents = {
        part: [pair[part]] if isinstance(pair[part], str) else [t["content"] for t in pair[part]]
        for part in PARTS
    }
    return [contents[part][turn][start:end] for part, turn, start, end in evidence.spans]


@pytest.mark.parametrize(
    ("code", "case", "said"),
    [
        ("PD106", {"chosen": "a caf\ufffd"}, 'chosen contains damaged text: "a caf\ufffd"'),
        ("PD201", {"prompt": []}, "the prompt has no turns"),
        ("PD202", {"rejected": " \t"}, "rejected has only spaces or line breaks"),
        (
            "PD203",
            {"rejected": [assistant("b"), user("c")]},
            "turn 2 of rejected is the last one and of the role 'user'",
        ),
        (
            "PD204",
            {"prompt": [user("a"), {"role": "narrator", "content": "Once"}]},
            "turn 2 of the prompt has the role 'narrator', which is none of system, developer, "
            "user, assistant, tool",
        ),
        (
            "PD205",
            {"prompt": [user("q"), assistant("a")]},
            "turn 2 of the prompt and chosen follow each other, both of assistant",
        ),
        (
            "PD209",
            {"chosen": "No.  Human: why"},
            'chosen contains a marker of a speaker: "No.  Human: why"',
        ),
        (
            "PD210",
            {"rejected": "x<|stop|>y"},
            'rejected contains the text of a control token: "x<|stop|>y"',
        ),
        ("PD301", {"chosen": "a  b", "rejected": "a b"}, "but for spaces or Unicode forms"),
        (
            "PD304",
            {"score_chosen": 3.0, "score_rejected": 8.0},
            "chosen has the score 3, and rejected 8",
        ),
        ("PD304", {"margin": -0.5}, "the margin is -0.5"),
        ("PD305", {"score_chosen": 55.0}, "chosen has the score 55, outside of 0 to 10"),
        ("PD307", {"chosen_rank": 4, "rejected_rank": 1}, "chosen has the rank 4, and rejected 1"),
        ("PD308", {"margin": 0.25}, "the margin is 0.25, below 1"),
        ("PD311", {"chosen": LONG + "and the"}, "chosen ends with 'e'"),
        ("PD312", {"prompt": "What is this?", "chosen": "\u8fd9\u662f\u4e66"}, "chosen is zh"),
    ],
)
def test_a_message_says_what_is_wrong_with_the_row(
    code: str, case: dict[str, Any], said: str
) -> None:
    assert said in found(code, **case).said


@pytest.mark.parametrize(
    ("code", "case", "expected"),
    [
        ("PD106", {"chosen": "a\x07b", "rejected": "x\ufeffy"}, ["\x07", "\ufeff"]),
        ("PD107", {"chosen": "Yes.\n\nHuman"}, ["\n\nHuman"]),
        ("PD204", {"prompt": [{"role": "narrator", "content": "Once"}]}, ["Once"]),
        ("PD209", {"chosen": "No. Human: why", "prompt": "User: q"}, ["Human:"]),
        ("PD210", {"prompt": "see <|stop|> now"}, ["<|stop|>"]),
        ("PD213", {"prompt": "<|im_start|>user\nq"}, ["<|im_start|>user"]),
        ("PD309", {"chosen": "Well. I can't help with that."}, ["I can't help"]),
        ("PD607", {"chosen": "Write to jane.doe@corp.org now"}, ["jane.doe@corp.org"]),
    ],
)
def test_spans_are_the_passages(code: str, case: dict[str, Any], expected: list[str]) -> None:
    assert passages(found(code, **case), case) == expected


@pytest.mark.parametrize("code", BROKEN)
def test_every_case_of_every_code_has_a_message_of_one_short_line(code: str) -> None:
    for case in BROKEN[code]:
        evidence = found(code, **case)

        assert "\n" not in evidence.said
        assert 0 < len(evidence.said) < 300
        assert all(start <= end for _, _, start, end in evidence.spans)


def test_a_quotation_does_not_show_a_secret() -> None:
    secret = "AKIAQ4J7XW2LZ5TB3NGH"
    evidence = found("PD209", chosen=f"User: {secret}")

    assert secret[:8] not in evidence.said
    assert '"(private)"' in evidence.said
    assert secret[:8] not in found("PD607", chosen=secret).said


def test_a_text_full_of_matches_has_few_spans() -> None:
    assert len(found("PD106", chosen="\ufffd" * 100_000).spans) == 100
