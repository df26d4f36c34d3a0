"""Ways of writing the same set, further kinds: see test_front_door.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.prefdata.read.variants import Case, bot, check, gpt, human, system, user

ONE = [("user: Hi", "assistant: Hello.", "assistant: No.")]
TALK = {"prompt": [user("Hi")], "chosen": [bot("Hello.")], "rejected": [bot("No.")]}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
SUM = {"type": "function", "function": {"name": "sum", "arguments": {"a": 1, "b": 2}}}


def calling(call: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def as_text(*calls: dict[str, Any]) -> str:
    return f"assistant: {json.dumps(list(calls), separators=(',', ':'))}"


CALLS = [
    {"prompt": [user("Hi")], "chosen": [calling(CALL)], "rejected": [calling(SUM)]},
    {"prompt": [user("Ho")], "chosen": [calling(SUM)], "rejected": [calling(CALL)]},
]
CALLED = [
    ("user: Hi", as_text(CALL), as_text(SUM)),
    ("user: Ho", as_text(SUM), as_text(CALL)),
]
NULL = {"type": "function", "function": {"name": "weather", "arguments": {"city": None}}}
LIST = {"type": "function", "function": {"name": "f", "arguments": {"a": [{"x": 1}, {"y": None}]}}}
SCHEMA = [
    {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}},
    {"name": "sum", "parameters": {"properties": {"a": {"type": "integer"}}, "required": ["a"]}},
]
# The variant, the number of nulls reported for it, and the tools of its first record.
WIDENED: dict[str, tuple[Case, int, object]] = {
    "arguments in Parquet": (Case(CALLS, CALLED, form="parquet"), 6, None),
    "arguments in Arrow": (Case(CALLS, CALLED, form="arrow"), 6, None),
    "arguments in JSON": (Case(CALLS, CALLED), 0, None),
    "an explicit null in JSON": (
        Case(
            [CALLS[0] | {"rejected": [calling(NULL)]}], [("user: Hi", as_text(CALL), as_text(NULL))]
        ),
        0,
        None,
    ),
    "plain turns next to calls": (
        Case([*CALLS, TALK], [*CALLED, *ONE], form="parquet"),
        6,
        None,
    ),
    "tool schemas": (Case([TALK | {"tools": SCHEMA}], ONE, form="parquet"), 3, SCHEMA),
    "tool schemas in JSON": (Case([TALK | {"tools": SCHEMA}], ONE), 0, SCHEMA),
    "objects in a list of arguments": (
        Case(
            [CALLS[0] | {"rejected": [calling(LIST)]}],
            [
                (
                    "user: Hi",
                    as_text(CALL),
                    as_text(LIST).replace('{"y":null}', "{}"),
                )
            ],
            form="parquet",
        ),
        3,
        None,
    ),
    "calls in the prompt": (
        Case(
            [TALK | {"prompt": [user("Hi"), calling(call), user("And?")]} for call in (CALL, SUM)],
            [(f"user: Hi | {as_text(call)} | user: And?", *ONE[0][1:]) for call in (CALL, SUM)],
            form="parquet",
        ),
        3,
        None,
    ),
    "arguments as text": (
        Case(
            [TALK | {"chosen": [calling({"function": {"name": "f", "arguments": '{"a": null}'}})]}],
            [
                (
                    "user: Hi",
                    as_text({"function": {"name": "f", "arguments": '{"a": null}'}}),
                    "assistant: No.",
                )
            ],
            form="parquet",
        ),
        0,
        None,
    ),
    "KTO": (
        Case(
            [
                {"prompt": [user("Hi")], "completion": [calling(CALL)], "label": True},
                {"prompt": [user("Hi")], "completion": [calling(SUM)], "label": False},
            ],
            CALLED[:1],
            form="parquet",
        ),
        3,
        None,
    ),
}


@pytest.mark.parametrize(("case", "nulls", "tools"), WIDENED.values(), ids=WIDENED.keys())
def test_nulls_that_a_table_adds_to_tools_are_removed(
    tmp_path: Path, case: Case, nulls: int, tools: object
) -> None:
    rows = check(tmp_path, case)

    assert rows is not None
    assert rows.counts.nulls == nulls
    said = rows.records["tools"][0].as_py()
    assert (said and json.loads(said)) == tools


def labelled(good: object, bad: object, form: str = "jsonl") -> Case:
    rows = [
        {"prompt": "Hi", "completion": "Hello.", "label": good},
        {"prompt": "Hi", "completion": "No.", "label": bad},
    ]
    return Case(rows, ONE, form=form)


LABELS = {
    "booleans": labelled(True, False),
    "one and zero": labelled(1, 0),
    "floats": labelled(1.0, 0.0),
    "Python's words": labelled("True", "False"),
    "JSON's words": labelled("true", "false"),
    "capitals": labelled("TRUE", "FALSE"),
    "digits as text": labelled("1", "0"),
    "floats as text": labelled("1.0", "0.0", "csv"),
    "yes and no": labelled("yes", "no"),
    "mixed": labelled("True", 0),
    "spaces": labelled(" true", "false ", "csv"),
    "other words": Case(
        labelled("good", "bad").rows, error=r"`label` is text .*true or false.*PD102"
    ),
    "ratings": Case(labelled(5, 2).rows, error=r"`label` is a number .*true or false.*PD102"),
    "minus one in a row": Case(
        [*labelled(True, False).rows, {"prompt": "Hi", "completion": "Ho", "label": -1}],
        ONE,
        ["R210"],
    ),
}


@pytest.mark.parametrize("case", LABELS.values(), ids=LABELS.keys())
def test_a_label_is_true_or_false_however_it_is_written(tmp_path: Path, case: Case) -> None:
    check(tmp_path, case)


KITTEN = [
    ("user: Which animal?", "assistant: A kitten.", "assistant: A puppy."),
    ("user: Which animal?", "assistant: A kitten.", "assistant: A bird."),
]
ASKED = {"prompt": "Which animal?", "chosen": "A kitten.", "rejected": ["A puppy.", "A bird."]}
DIALOGUE = [user("Which animal?"), bot("A kitten.")]
MANY = {
    "texts": Case([ASKED], KITTEN),
    "texts as JSON in CSV": Case(
        [ASKED | {"rejected": json.dumps(ASKED["rejected"])}],
        KITTEN,
        form="csv",
        said="lists of texts",
    ),
    "texts in Parquet": Case([ASKED], KITTEN, form="parquet"),
    "one in a list": Case([ASKED | {"rejected": ["A puppy."]}], KITTEN[:1]),
    "none in a list": Case([ASKED, ASKED | {"rejected": []}], KITTEN, ["PD303"]),
    "a prompt of messages": Case([ASKED | {"prompt": DIALOGUE[:1]}], KITTEN),
    "lists of messages": Case(
        [
            {"prompt": DIALOGUE[:1], "chosen": DIALOGUE[1:]}
            | {"rejected": [[bot("A puppy.")], [bot("A bird.")]]}
        ],
        KITTEN,
    ),
    "after a dialogue": Case(
        [{"messages": DIALOGUE, "rejected_response": ["A puppy.", "A bird."]}], KITTEN
    ),
    "lists of messages after a dialogue": Case(
        [{"messages": DIALOGUE, "rejected_response": [[bot("A puppy.")], [bot("A bird.")]]}], KITTEN
    ),
    "a system text": Case(
        [ASKED | {"prompt": DIALOGUE[:1], "system": "Be brief."}],
        [(f"system: Be brief. | {prompt}", a, b) for prompt, a, b in KITTEN],
    ),
    "a row with a number among them": Case(
        [ASKED, ASKED | {"rejected": ["A puppy.", 3]}], KITTEN, ["R210"]
    ),
}


@pytest.mark.parametrize("case", MANY.values(), ids=MANY.keys())
def test_every_rejected_answer_makes_a_pair(tmp_path: Path, case: Case) -> None:
    check(tmp_path, case)


SHARED = {"chosen": [human("Hi"), gpt("Hello.")], "rejected": [human("Hi"), gpt("No.")]}


def renamed(user_name: str, bot_name: str, keys: tuple[str, str] = ("role", "content")) -> Case:
    def turns(*texts: str) -> list[dict[str, str]]:
        names = (user_name, bot_name)
        return [dict(zip(keys, turn, strict=True)) for turn in zip(names, texts, strict=True)]

    return Case([{"chosen": turns("Hi", "Hello."), "rejected": turns("Hi", "No.")}], ONE)


TURNS = {
    "from and value": Case([SHARED], ONE, said="gpt as assistant, human as user"),
    "from and value with our roles": renamed("user", "assistant", ("from", "value")),
    "human and gpt as roles": renamed("human", "gpt"),
    "prompter and assistant": renamed("prompter", "assistant"),
    "user and model": renamed("user", "model"),
    "from and value next to a prompt": Case([SHARED | {"prompt": "Hi"}], ONE),
    "an unknown role": Case(
        renamed("narrator", "gpt").rows, [("narrator: Hi", "assistant: Hello.", "assistant: No.")]
    ),
    "a system turn inside": Case(
        [{side: [system("Be brief."), *turns] for side, turns in SHARED.items()}],
        [("system: Be brief. | user: Hi", "assistant: Hello.", "assistant: No.")],
    ),
    "one object a side": Case(
        [{"prompt": [user("Hi")], "chosen": bot("Hello."), "rejected": bot("No.")}], ONE
    ),
    "one object a side after text": Case(
        [{"prompt": "Hi", "chosen": bot("Hello."), "rejected": gpt("No.")}], ONE
    ),
    "one object in all": Case(
        [{"prompt": user("Hi"), "chosen": gpt("Hello."), "rejected": gpt("No.")}], ONE
    ),
    "text after messages": Case([TALK | {"chosen": "Hello.", "rejected": "No."}], ONE),
    "only answers as messages after text": Case(
        [{"prompt": "Hi", "chosen": [bot("Hello.")], "rejected": [bot("No.")]}], ONE
    ),
    "dialogues in objects": Case(
        [{side: {"messages": turns} for side, turns in SHARED.items()}], ONE
    ),
    "an object without a role": Case(
        [{"prompt": "Hi", "chosen": {"text": "Hello."}, "rejected": {"text": "No."}}],
        error=r"`chosen` is an object .*PD102",
    ),
}


@pytest.mark.parametrize("case", TURNS.values(), ids=TURNS.keys())
def test_turns_are_read_by_any_of_their_names(tmp_path: Path, case: Case) -> None:
    check(tmp_path, case)
