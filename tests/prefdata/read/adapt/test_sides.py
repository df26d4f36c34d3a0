"""Splits of dialogues and texts into a prompt and two completions."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdata.read.adapt.ids import Messages
from prefdata.read.adapt.sides import (
    Split,
    read_transcript,
    split_after_prompt,
    split_common_lines,
    split_common_text,
    split_common_turns,
    split_last_turn,
    split_transcripts,
)
from prefdata.read.faults import RowError
from prefdata.read.layouts.registry import load_layout
from tests.prefdata.read.rows import FileRows

ROLES = load_layout("hh").roles


def said(messages: Messages) -> list[str]:
    return [f"{message[0]}: {message[1]}" for message in messages]


def test_only_the_two_markers_split_a_transcript() -> None:
    text = "\n\nHuman: a\n\nAssistants b\n\nHuman\n\nHum: c\n\nAssistant: d Human: e\n\nHuman"

    turns = read_transcript("chosen", text, ROLES)

    assert said(turns) == [
        "user: a\n\nAssistants b\n\nHuman\n\nHum: c",
        "assistant: d Human: e\n\nHuman",
    ]


def test_one_space_belongs_to_the_marker_and_all_others_are_text() -> None:
    turns = read_transcript("chosen", "\n\nHuman:a\n\nAssistant:  b \n\nAssistant: ", ROLES)

    assert said(turns) == ["user: a", "assistant:  b ", "assistant: "]


def test_text_before_the_first_marker_is_refused() -> None:
    with pytest.raises(RowError, match=r"\[R210\]$"):
        read_transcript("chosen", "Hello\n\nHuman: a\n\nAssistant: b", ROLES)


texts = st.text(alphabet="ab :\nHumanAssistant", max_size=20)
turns = st.lists(st.tuples(st.sampled_from(["Human", "Assistant"]), texts), min_size=1, max_size=5)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(chosen=turns, rejected=turns)
def test_the_fast_path_splits_as_the_full_parser_does(chosen: list, rejected: list) -> None:
    first, second = (
        "".join(f"\n\n{who}:{text}" for who, text in side) for side in (chosen, rejected)
    )
    a, b = read_transcript("chosen", first, ROLES), read_transcript("rejected", second, ROLES)

    if a[:-1] != b[:-1]:
        with pytest.raises(RowError, match=r"\[PD207\]$"):
            split_transcripts(first, second, ROLES)
    else:
        assert split_transcripts(first, second, ROLES) == (a[:-1], a[-1:], b[-1:])


def chat(*texts: str) -> Messages:
    roles = ("user", "assistant") * len(texts)
    return [(role, text, None, None, None, None) for role, text in zip(roles, texts, strict=False)]


SPLITS = {
    "mid-word": ("The sky is blue.", "The sky is black.", "The sky is"),
    "a word that continues": ("The sky", "The skyline", "The"),
    "a new line": ("Q: a\nyes", "Q: a\nno", "Q: a\n"),
    "nothing shared": ("yes", "no", ""),
    "a word in common but its end": ("don't", "done", ""),
    "Chinese": ("天空是蓝色", "天空是绿色", "天空是"),
}


@pytest.mark.parametrize(("chosen", "rejected", "prompt"), SPLITS.values(), ids=SPLITS.keys())
def test_texts_are_split_between_words(chosen: str, rejected: str, prompt: str) -> None:
    split = split_common_text(chosen, rejected)

    assert split.prompt[0][1] == prompt
    assert split.prompt[0][1] + split.chosen[0][1] == chosen
    assert split.prompt[0][1] + split.rejected[0][1] == rejected


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text("ab \n", max_size=12), st.text("ab \n", max_size=12))
def test_no_word_is_ever_cut(chosen: str, rejected: str) -> None:
    if chosen.startswith(rejected) or rejected.startswith(chosen):
        return
    prompt = split_common_text(chosen, rejected).prompt[0][1]
    for text in (chosen, rejected):
        around = text[max(len(prompt) - 1, 0) : len(prompt) + 1]
        assert not prompt or len(around) < 2 or any(c.isspace() for c in around)


def test_dialogues_are_split_after_their_last_common_turn() -> None:
    split = split_common_turns(chat("q", "a", "r", "b"), chat("q", "c"))

    assert [len(part) for part in split] == [1, 3, 1]


@pytest.mark.parametrize(
    ("split", "first", "second", "what"),
    [
        (split_common_text, "The sky is", "The sky is blue", "text"),
        (split_common_lines, "Q: a\n", "Q: a\nno", "text"),
        (split_common_turns, chat("q", "a"), chat("q", "a", "r", "b"), "dialogue"),
    ],
)
def test_a_side_that_is_the_beginning_of_the_other_is_refused_as_that(
    split: Callable[[Any, Any], Split], first: Any, second: Any, what: str
) -> None:
    said = f"the {what} of {{}} is the beginning of that of {{}}, so nothing is left of {{}}"
    for pair, sides in (
        ((first, second), ("chosen", "rejected", "chosen")),
        ((second, first), ("rejected", "chosen", "rejected")),
    ):
        with pytest.raises(RowError) as caught:
            split(*pair)
        assert caught.value.code == "PD202"
        assert caught.value.message.startswith(said.format(*sides))


def test_equal_sides_are_refused() -> None:
    for split, side in ((split_common_turns, chat("q", "a")), (split_common_text, "a")):
        with pytest.raises(RowError, match=r"\[PD301\]$"):
            split(side, side)  # type: ignore[operator]


def test_a_prompt_that_is_not_the_first_user_turn_is_refused() -> None:
    with pytest.raises(RowError, match=r"first user turn of rejected.*\[PD207\]$"):
        split_after_prompt(chat("q"), chat("q", "a"), chat("p", "b"))


def test_tools_keep_their_key_order_and_ids_do_not_depend_on_it(
    read: Callable[[bytes], FileRows],
) -> None:
    """Check that key order changes only token ids: templates print tools key by key."""
    row = (
        b'{"prompt": [{"role": "user", "content": "Light?"}], "tools": [%s],'
        b' "chosen": [{"role": "assistant", "content": "", "tool_calls": [%s]}],'
        b' "rejected": [{"role": "assistant", "content": "No."}]}\n'
    )
    orders = [
        (b'{"type": "function", "name": "f"}', b'{"name": "f", "arguments": {"x": 1, "a": 2}}'),
        (b'{"name": "f", "type": "function"}', b'{"arguments": {"a": 2, "x": 1}, "name": "f"}'),
    ]

    records = read(b"".join(row % order for order in orders)).records

    given = [tools.decode().replace(": ", ":").replace(", ", ",") for tools, _ in orders]
    assert records["tools"].to_pylist() == [f"[{tools}]" for tools in given]
    assert len(set(records["pair_id"].to_pylist())) == 1
    assert len(set(records["group_id"].to_pylist())) == 1


def turn(role: str, text: str, calls: str | None = None) -> Any:
    return (role, text, None, calls, None, None)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            [turn("user", "What is the capital of France?")],
            [turn("user", "What is the capital of Spain?")],
            'turn 1 on: "… capital of France?" against "… capital of Spain?"',
        ),
        (
            [turn("system", "Hi"), turn("user", "q")],
            [turn("user", "q")],
            "turn 1 on: it is of system in one, of user in the other",
        ),
        (
            [turn("user", "q"), turn("assistant", "a"), turn("user", "r")],
            [turn("user", "q")],
            "turn 2 on: one has 3 turns before the answer, the other 1",
        ),
        (
            [turn("assistant", "q", "[1]")],
            [turn("assistant", "q")],
            "turn 1 on: its name, tool calls or reasoning differ",
        ),
    ],
)
def test_prompts_that_differ_are_quoted_where_they_do(
    first: Messages, second: Messages, said: str
) -> None:
    answer = [turn("assistant", "yes")]
    with pytest.raises(RowError, match=r"\[PD207\]$") as caught:
        split_last_turn(first + answer, second + answer)

    assert caught.value.message == f"the prompts of chosen and rejected differ from {said}"
