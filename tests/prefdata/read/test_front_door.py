"""Ways of writing the same set: each is read correctly or refused.

Each kind is a table of variants. A variant is read into exact pairs, as `role: text` of each turn,
or refused with a code; there is no other outcome.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefdata.read import Columns
from tests.prefdata.read.variants import Case, Rows, Shown, bot, check, gpt, human, system, user

SUMS: Rows = [
    {"q": f"What is {n} plus {n}?", "a": f"The answer is {n + n}", "b": f"The answer is {n}"}
    for n in (1, 2, 3)
]
PAIRS: list[Shown] = [
    (f"user: {row['q']}", f"assistant: {row['a']}", f"assistant: {row['b']}") for row in SUMS
]
REJECTED_LINES: list[Shown] = [
    (f"user: Q: {row['q']}\nA:", f"assistant:  {row['a']}", f"assistant:  {row['b']}")
    for row in SUMS
]


def with_column(name: str, value: Callable[[str], Any] = str) -> Rows:
    """Return rows whose prompt is in a column of this name."""
    return [{name: value(row["q"]), "chosen": row["a"], "rejected": row["b"]} for row in SUMS]


def transcripts(start: str, between: str) -> Rows:
    """Return rows without a prompt column: the prompt is the beginning of both texts."""
    return [
        {
            side: f"{start}{row['q']}{between}{row[key]}"
            for side, key in (("chosen", "a"), ("rejected", "b"))
        }
        for row in SUMS
    ]


def shared(start: str, between: str) -> list[Shown]:
    return [
        (f"user: {start}{row['q']}{between}", f"assistant: {row['a']}", f"assistant: {row['b']}")
        for row in SUMS
    ]


IMPLICIT = {
    "task": Case(with_column("task"), error=r"`task` .*--prompt-column task.*PD102"),
    "brief": Case(with_column("brief"), error=r"--prompt-column brief"),
    "source_text": Case(with_column("source_text"), error=r"--prompt-column source_text"),
    "conversation as a list": Case(
        with_column("conversation", lambda q: [user(q)]), error=r"--prompt-column conversation"
    ),
    "user in an object": Case(
        with_column("user", lambda q: {"said": q}), error=r"--prompt-column user"
    ),
    "a name in another script": Case(with_column("задача"), error=r"--prompt-column задача"),
    "two columns with text": Case(
        [row | {"note": "see below"} for row in with_column("ask")], error=r"`ask` \(or `note`\)"
    ),
    "only first words are shared": Case(
        [{"chosen": row["a"], "rejected": row["b"]} for row in SUMS],
        error=r"3 of the first 3 rows .*PD102",
    ),
    "one row of fifty shares no line": Case(
        transcripts("Q: ", "\nA: ") * 16 + [{"chosen": "Yes it is", "rejected": "No it is"}],
        error=r"1 of the first 49 rows",
    ),
    "answers as messages next to a task": Case(
        [
            {"task": row["q"], "chosen": [bot(row["a"])], "rejected": [bot(row["b"])]}
            for row in SUMS
        ],
        error=r"--prompt-column task",
    ),
    "question and answer lines": Case(transcripts("Q: ", "\nA:"), shared("Q: ", "\nA:")),
    "ChatML": Case(
        transcripts("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
        shared("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    ),
    "instruction and response": Case(
        transcripts("### Instruction:\n", "\n\n### Response:\n"),
        shared("### Instruction:\n", "\n\n### Response:\n"),
    ),
    "the column is named": Case(
        with_column("task"), PAIRS, columns=Columns(prompt="task"), said="prompt is `task`"
    ),
    "all columns are named": Case(
        SUMS, PAIRS, columns=Columns(prompt="q", chosen="a", rejected="b")
    ),
    "a named column of messages": Case(
        with_column("task", lambda q: [system("Add."), user(q)]),
        [(f"system: Add. | {prompt}", a, b) for prompt, a, b in PAIRS],
        columns=Columns(prompt="task"),
    ),
    "a name that no row has": Case(SUMS, columns=Columns(prompt="taks"), error=r"'taks'.*PD112"),
    "a tag next to transcripts": Case(
        [row | {"set": "math"} for row in transcripts("Q: ", "\nA:") * 3], shared("Q: ", "\nA:") * 3
    ),
    "words are shared, by force": Case(
        [{"chosen": "The sky is blue", "rejected": "The sky is black"}],
        [("user: The sky is", "assistant:  blue", "assistant:  black")],
        layout="trl-std-implicit",
    ),
}


@pytest.mark.parametrize("case", IMPLICIT.values(), ids=IMPLICIT.keys())
def test_answers_first_words_are_never_the_prompt(tmp_path: Path, case: Case) -> None:
    check(tmp_path, case)


ONE = [("user: Hi", "assistant: Hello.", "assistant: No.")]
BRIEF = [("system: Be brief. | user: Hi", "assistant: Hello.", "assistant: No.")]
TALK = {"prompt": [user("Hi")], "chosen": [bot("Hello.")], "rejected": [bot("No.")]}
WHOLE = {"chosen": [user("Hi"), bot("Hello.")], "rejected": [user("Hi"), bot("No.")]}
TWO = {"tools": [{"type": "function", "function": {"name": "f"}}]}


def numbers(**columns: object) -> Case:
    return Case([WHOLE | columns], ONE)


# For each column: the variant, and the fields of the record that it fills.
READ: dict[str, tuple[Case, dict[str, object]]] = {
    "system text": (Case([TALK | {"system": "Be brief."}], BRIEF), {}),
    "system message": (Case([TALK | {"system": system("Be brief.")}], BRIEF), {}),
    "system messages": (Case([TALK | {"system_prompt": [system("Be brief.")]}], BRIEF), {}),
    "systemPrompt of whole dialogues": (Case([WHOLE | {"systemPrompt": "Be brief."}], BRIEF), {}),
    "a system text that is there already": (
        Case([TALK | {"system": "Be brief.", "prompt": [system("Be brief."), user("Hi")]}], BRIEF),
        {},
    ),
    "another system text": (
        Case(
            [TALK | {"system": "Be kind.", "prompt": [system("Be brief."), user("Hi")]}],
            codes=["R222"],
        ),
        {},
    ),
    "a system text that is null": (Case([TALK, TALK | {"system": None}], ONE * 2), {}),
    "tools next to whole dialogues": (
        Case([WHOLE | TWO], ONE),
        {"tools": json.dumps(TWO["tools"], separators=(",", ":"))},
    ),
    "scores as text": (
        numbers(chosen_score="8", rejected_score="3.5"),
        {"score_chosen": 8.0, "score_rejected": 3.5},
    ),
    "chosenScore": (
        numbers(chosenScore=8, rejectedScore=3),
        {"score_chosen": 8.0, "score_rejected": 3.0},
    ),
    "reward-chosen": (
        numbers(**{"reward-chosen": 1.5, "reward-rejected": -2.0}),
        {"score_chosen": 1.5, "score_rejected": -2.0},
    ),
    "avg_rating_chosen": (
        numbers(avg_rating_chosen=4, avg_rating_rejected=2),
        {"score_chosen": 4.0, "score_rejected": 2.0},
    ),
    "ChosenRating": (
        numbers(ChosenRating=4, RejectedRating=2),
        {"score_chosen": 4.0, "score_rejected": 2.0},
    ),
    "score margin": (numbers(score_margin=0.5), {"margin": 0.5}),
    "scores that are not numbers": (
        numbers(chosen_score="high", rejected_score="low"),
        {"score_chosen": None},
    ),
    "a score of only one side": (numbers(chosen_score=8), {"score_chosen": None}),
    "images": (
        Case([TALK | {"images": []}] * 2 + [TALK | {"images": ["a.png"]}], ONE * 2, ["R223"]),
        {},
    ),
    "no images in CSV": (
        Case(
            [{"prompt": "Hi", "chosen": "Hello.", "rejected": "No.", "images": "[]"}],
            ONE,
            form="csv",
        ),
        {},
    ),
    "tools as Python writes them": (
        Case(
            [{k: json.dumps(v) for k, v in TALK.items()} | {"tools": repr(TWO["tools"])}],
            ONE,
            form="csv",
        ),
        {"tools": json.dumps(TWO["tools"], separators=(",", ":"))},
    ),
    "images in most rows": (Case([TALK | {"images": ["a.png"]}], error="hold images.*PD102"), {}),
    "a video": (Case([TALK | {"video": {"path": "a.mp4"}}], codes=["R223"]), {}),
}


@pytest.mark.parametrize(("case", "fields"), READ.values(), ids=READ.keys())
def test_columns_with_a_meaning_are_read_or_listed(
    tmp_path: Path, case: Case, fields: dict[str, object]
) -> None:
    rows = check(tmp_path, case)

    for record in rows.records.to_pylist() if rows else []:
        assert {name: record[name] for name in fields} == fields
    if rows and None in fields.values():
        assert any(name.startswith("chosen") for name in rows.counts.unread)


def cell(value: object) -> str:
    return json.dumps(value)


NUMPY = "[{'role': 'user', 'content': 'Hi'}\n {'role': 'assistant', 'content': %r}]"
DEEP = "[" * 5000 + "]" * 5000

CELLS = {
    "JSON in CSV": Case([{k: cell(v) for k, v in WHOLE.items()}], ONE, form="csv", said="parsed"),
    "repr in CSV": Case([{k: repr(v) for k, v in WHOLE.items()}], ONE, form="csv", said="parsed"),
    "numpy in CSV": Case(
        [{"chosen": NUMPY % "Hello.", "rejected": NUMPY % "No."}], ONE, form="csv"
    ),
    "JSON in JSON": Case([{k: cell(v) for k, v in TALK.items()}] * 2, ONE * 2),
    "an object with tools": Case(
        [{k: cell({"messages": v, **TWO}) for k, v in WHOLE.items()}], ONE, said="`chosen`"
    ),
    "objects whose tools differ": Case(
        [
            {
                "chosen": cell({"messages": WHOLE["chosen"], **TWO}),
                "rejected": cell({"messages": WHOLE["rejected"], "tools": []}),
            }
        ],
        codes=["R227"],
    ),
    "one message": Case(
        [{"prompt": "Hi", "chosen": cell(bot("Hello.")), "rejected": cell(bot("No."))}], ONE
    ),
    "from and value": Case(
        [
            {
                "chosen": cell([human("Hi"), gpt("Hello.")]),
                "rejected": cell([human("Hi"), gpt("No.")]),
            }
        ],
        ONE,
    ),
    "quotes, escapes and new lines": Case(
        [
            {
                "prompt": repr([user('Say "it\'s",\nthen stop.')]),
                "chosen": repr([bot("It's \\ done")]),
                "rejected": repr([bot("é 😀")]),
            }
        ],
        [('user: Say "it\'s",\nthen stop.', "assistant: It's \\ done", "assistant: é 😀")],
        form="csv",
    ),
    "KTO": Case(
        [
            {"messages": cell(WHOLE["chosen"]), "label": "True"},
            {"messages": cell(WHOLE["rejected"]), "label": "False"},
        ],
        ONE,
        form="csv",
    ),
    "a row of text among them": Case(
        [{k: cell(v) for k, v in TALK.items()}, {"prompt": "Hi", "chosen": "a", "rejected": "b"}],
        ONE,
        ["R210"],
    ),
    "a row of messages among texts": Case(
        [{"prompt": "Hi", "chosen": "a", "rejected": "b"}] * 2
        + [{k: cell(v) for k, v in TALK.items()}],
        [("user: Hi", "assistant: a", "assistant: b")] * 2,
        ["R224"],
    ),
    "a cell that is cut": Case(
        [{k: cell(v) for k, v in TALK.items()}] * 2 + [{k: cell(v)[:-3] for k, v in TALK.items()}],
        ONE * 2,
        ["R210"],
    ),
    "a key twice": Case(
        [TALK_CELLS := {k: cell(v) for k, v in TALK.items()}] * 2
        + [TALK_CELLS | {"prompt": '[{"role": "user", "content": "a", "content": "b"}]'}],
        ONE * 2,
        ["R207"],
    ),
    "code in a cell": Case(
        [{k: repr(v) for k, v in TALK.items()}] * 2
        + [
            {k: repr(v) for k, v in TALK.items()} | {"prompt": "[{'role': exit(), 'content': 'a'}]"}
        ],
        ONE * 2,
        ["R210"],
    ),
    "a deep cell": Case(
        [{k: repr(v) for k, v in TALK.items()}] * 2 + [dict.fromkeys(TALK, DEEP)], ONE * 2, ["R208"]
    ),
    "JSON written as JSON": Case([{k: cell(cell(v)) for k, v in TALK.items()}], ONE),
    "cut in every row": Case(
        [{k: repr(v)[:-9] for k, v in TALK.items()}] * 3, codes=["R224"] * 3, form="csv"
    ),
    "an array of numpy": Case(
        [{"prompt": "Hi", "chosen": f"array({[bot('a')]!r}, dtype=object)", "rejected": "b"}],
        codes=["R224"],
    ),
    "forced to be text": Case(
        [{k: cell(v) for k, v in TALK.items()}], codes=["R224"], layout="trl-std-explicit"
    ),
    "JSON that is not messages": Case(
        [{"prompt": "List two.", "chosen": "[1, 2]", "rejected": '{"a": 1}'}],
        [("user: List two.", "assistant: [1, 2]", 'assistant: {"a": 1}')],
    ),
}


LITERALS = {
    "a lone surrogate": ("'\\ud800'", "R203"),
    "U+0000": ("'a\\x00'", "R204"),
    "an infinity": ("'a', 'w': 1e999", "R205"),
    "a key twice": ("'a', 'content': 'b'", "R207"),
    "ten thousand minus signs": (f"'a', 'w': {'-' * 10_000}1", "R210"),
    "a number of five thousand digits": (f"'a', 'w': {'9' * 5000}", "R210"),
    "bytes": ("b'a'", "R210"),
    "an expression": ("'a' * 10 ** 9", "R210"),
}


@pytest.mark.parametrize(("content", "code"), LITERALS.values(), ids=LITERALS.keys())
def test_python_literals_pass_the_guards_of_json(tmp_path: Path, content: str, code: str) -> None:
    good = {side: repr(turns) for side, turns in TALK.items()}
    bad = good | {"chosen": f"[{{'role': 'assistant', 'content': {content}}}]"}

    check(tmp_path, Case([good, good, bad], ONE * 2, [code]))


@pytest.mark.parametrize("case", CELLS.values(), ids=CELLS.keys())
def test_messages_in_text_cells_are_parsed_or_refused(tmp_path: Path, case: Case) -> None:
    check(tmp_path, case)


def again(between: str = " ", start: str = "") -> Rows:
    """Return rows whose answers repeat their prompt."""
    return [
        {
            "prompt": row["q"],
            "chosen": f"{start}{row['q']}{between}{row['a']}",
            "rejected": f"{start}{row['q']}{between}{row['b']}",
        }
        for row in SUMS
    ]


def cut(between: str = " ") -> list[Shown]:
    return [
        (prompt, a.replace(": ", f": {between}", 1), b.replace(": ", f": {between}", 1))
        for prompt, a, b in PAIRS
    ]


PLAIN = with_column("prompt")
HI = {"prompt": "Hi", "chosen": "Hi there!", "rejected": "Hi."}
SEEN = [("user: Hi", "assistant: Hi there!", "assistant: Hi.")]
LONG_TALK = [
    {
        "prompt": [system("Add."), user(row["q"])],
        "chosen": [user(row["q"]), bot(row["a"])],
        "rejected": [user(row["q"]), bot(row["b"])],
    }
    for row in SUMS
]
REPEATED = {
    "a space between": Case(again(), cut(), said="cut off"),
    "a line between": Case(again("\n"), cut("\n")),
    "spaces before": Case(again(start="  "), cut()),
    "short prompts in many rows": Case(
        [
            {"prompt": f"{n}+{n}=", "chosen": f"{n}+{n}={n + n}", "rejected": f"{n}+{n}={n}"}
            for n in range(1, 10)
        ],
        [(f"user: {n}+{n}=", f"assistant: {n + n}", f"assistant: {n}") for n in range(1, 10)],
    ),
    "a greeting is not a repetition": Case([HI, *PLAIN], SEEN + PAIRS),
    "one of four rows": Case([*PLAIN, again()[0]], PAIRS, ["R220"]),
    "all but one row of a hundred and three": Case(again() * 34 + PLAIN[:1], cut() * 34, ["R221"]),
    "behind a marker": Case(again("\nAssistant: ", "Human: "), codes=["R220"] * 3),
    "a short prompt behind a marker": Case(
        [
            {"prompt": "2+2?", "chosen": "User: 2+2?\nBot: 4", "rejected": "User: 2+2?\nBot: 5"},
            *PLAIN,
        ],
        PAIRS,
        ["R220"],
    ),
    "the turns of only one side": Case(
        [{"prompt": [user("Hi")], "chosen": WHOLE["chosen"], "rejected": [bot("No.")]}],
        codes=["R220"],
    ),
    "only one side": Case(
        [PLAIN[0] | {"rejected": again()[0]["rejected"]}],
        [(PAIRS[0][0], PAIRS[0][1], "assistant: What is 1 plus 1? The answer is 1")],
    ),
    "messages without their system text": Case(
        LONG_TALK, [(f"system: Add. | {prompt}", a, b) for prompt, a, b in PAIRS], said="cut off"
    ),
    "messages, all of them": Case(
        [
            {"prompt": row["prompt"]}
            | {side: [*row["prompt"], row[side][-1]] for side in ("chosen", "rejected")}
            for row in LONG_TALK
        ],
        [(f"system: Add. | {prompt}", a, b) for prompt, a, b in PAIRS],
    ),
    "messages of another dialogue": Case(
        [{"prompt": [user("Who?")], "chosen": WHOLE["chosen"], "rejected": WHOLE["rejected"]}],
        codes=["R226"],
    ),
    "instruction and input": Case(
        [
            {"instruction": "Add up.", "input": row["q"]}
            | {
                side: f"Add up.\n{row['q']} {row[key]}"
                for side, key in (("chosen", "a"), ("rejected", "b"))
            }
            for row in SUMS
        ],
        [(prompt.replace("user: ", "user: Add up.\n"), a, b) for prompt, a, b in cut()],
    ),
    "answers as messages after text": Case(
        [
            {"prompt": row["prompt"]} | {side: [bot(row[side])] for side in ("chosen", "rejected")}
            for row in again()
        ],
        cut(),
    ),
    "a rejected dialogue after a dialogue": Case(
        [{"messages": WHOLE["chosen"], "rejected_response": WHOLE["rejected"]}], codes=["R220"]
    ),
    "ranked": Case(
        [
            {
                "prompt": row["prompt"],
                "completions": [
                    {"text": row["chosen"], "score": 2},
                    {"text": row["rejected"], "score": 1},
                ],
            }
            for row in again()
        ],
        cut(),
    ),
    "unpaired": Case(
        [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row in again()
            for side in ("chosen", "rejected")
        ],
        cut(),
    ),
    "a list of answers": Case(
        [
            {"prompt": row["prompt"], "chosen": row["chosen"], "rejected": [row["rejected"]]}
            for row in again()
        ],
        cut(),
    ),
}


@pytest.mark.parametrize("case", REPEATED.values(), ids=REPEATED.keys())
def test_a_prompt_is_trained_once(tmp_path: Path, case: Case) -> None:
    check(tmp_path, case)
