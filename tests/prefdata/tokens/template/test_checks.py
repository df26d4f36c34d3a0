"""Everything that a template drops from a pair or writes twice has a code."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from prefdata.read import expand_inputs
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.stage import TokenRows, encode_table
from prefdata.tokens.tokenizer import load_tokenizer_spec
from tests.prefdata.conftest import CHATML, save_tokenizer
from tests.prefdata.read.rows import read_file

Turn = dict[str, Any]


def user(content: str = "Who wrote Emma?", **more: Any) -> Turn:
    return {"role": "user", "content": content, **more}


def assistant(content: str | None = "Jane Austen.", **more: Any) -> Turn:
    return {"role": "assistant", "content": content, **more}


def call(arguments: Any, name: str = "find") -> Turn:
    function = {"name": name, "arguments": arguments}
    return {"id": "k1", "type": "function", "function": function}


TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
CALLS = [assistant(None, tool_calls=[call({"q": "Emma"})])]
RESULT = [{"role": "tool", "tool_call_id": "k1", "content": "A novel of 1815"}]
# A template that writes everything that a row may have.
FULL = (
    "{% set nl = '\n' %}"
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}{{ nl }}"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>{{ nl }}{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_TOOLS = FULL.replace("{% if tools %}", "{% if false %}")
NO_RESULTS = FULL.replace("{{ m.content }}", "{% if m.role != 'tool' %}{{ m.content }}{% endif %}")
NO_ARGUMENTS = FULL.replace("c.function | tojson", "c.function.name")
NO_CALLS = FULL.replace("{{ c.function | tojson }}", "")
NO_NAMES = FULL.replace("{% if m.name %} {{ m.name }}{% endif %}", "")
NO_SYSTEM = CHATML.replace(
    "%}<|im_start|>", "%}{% if message.role != 'system' %}<|im_start|>", 1
).replace("{% endfor %}", "{% endif %}{% endfor %}")
LATE_REASONING = FULL.replace("m.reasoning_content %}", "m.reasoning_content and loop.last %}", 1)


class Case(NamedTuple):
    """A template, a pair's prompt and chosen side, and the expected code."""

    template: str
    prompt: list[Turn]
    code: str | None
    words: str = ""
    chosen: list[Turn] = [assistant("Jane Austen wrote it.")]  # noqa: RUF012 - never changed
    tools: list[Any] | None = None
    is_kept: bool = False


PROMPTS = {
    "everything is written": Case(FULL, [user(), *CALLS, *RESULT], None, tools=TOOLS),
    "a template of text only": Case(CHATML, [user(), *CALLS, *RESULT], "PD707", tools=TOOLS),
    "tools only": Case(CHATML, [user()], "PD707", "drops the tools", tools=TOOLS),
    "tools, calls written": Case(
        NO_TOOLS, [user(), *CALLS, *RESULT], "PD707", "the tools", tools=TOOLS
    ),
    "result": Case(NO_RESULTS, [user(), *CALLS, *RESULT], "PD707", "tool", tools=TOOLS),
    "arguments": Case(
        NO_ARGUMENTS, [user(), *CALLS, *RESULT], "PD707", "arguments of", tools=TOOLS
    ),
    "arguments as text": Case(
        NO_ARGUMENTS, [user(), assistant(None, tool_calls=[call('{"q": "Emma"}')]), *RESULT],
        "PD707", "arguments of", tools=TOOLS,
    ),
    "numbers in arguments": Case(
        NO_ARGUMENTS, [user(), assistant(None, tool_calls=[call({"n": 3})]), *RESULT],
        "PD707", "arguments of", tools=TOOLS,
    ),
    "a call whose name is in a text": Case(
        NO_CALLS, [user("Please find who wrote Emma."), *CALLS, *RESULT],
        "PD707", "call of 'find'", tools=TOOLS,
    ),
    "a system text": Case(
        NO_SYSTEM, [{"role": "system", "content": "Be kind."}, user()], "PD707", "system"
    ),
    "an earlier answer": Case(
        CHATML.replace("{{ message['content'] }}", "{{ message['content'][:9] }}"),
        [user("Hello."), assistant("Hello, I am well."), user("Good.")], "PD707", "assistant",
        chosen=[assistant("Well.")],
    ),
    "reasoning that is never written": Case(
        CHATML, [user(), assistant(reasoning_content="hm"), user("And?")], "PD707", "reasoning"
    ),
    "reasoning of earlier turns": Case(
        LATE_REASONING, [user(), assistant(reasoning_content="hm"), user("And?")],
        "PD719", is_kept=True,
    ),
    "names": Case(NO_NAMES, [user(name="Ada")], "PD717", is_kept=True),
    "names that are written": Case(FULL, [user(name="Ada")], None),
    "arguments of an answer": Case(
        NO_ARGUMENTS, [user()], "PD707", "arguments of", tools=TOOLS,
        chosen=[assistant("", tool_calls=[call({"q": "Emma"})])],
    ),
}  # fmt: skip

OPENS = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
STRIPS = OPENS.replace("message['content'] }}", "message['content'].split('</think>')[-1] }}")
WRITES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n"
    "{{ m.reasoning_content or '' }}\n</think>\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
ALWAYS = OPENS.replace(
    "}}\n{{ message['content']",
    "}}\n{% if message.role == 'assistant' %}<think>\n{% endif %}{{ message['content']",
)
TWICE = ALWAYS.replace("assistant\n<think>\n{% endif", "assistant\n{% endif")
SQUARE = ALWAYS.replace("<think>", "[THINK]")
THOUGHT = "<think>\nadd\n</think>\n\n5"
THINKING = {
    "the answer continues the thought": Case(OPENS, [user()], None, chosen=[assistant(THOUGHT)]),
    "the answer does not think": Case(OPENS, [user()], "PD701", chosen=[assistant("7")]),
    "thoughts in a field": Case(
        OPENS, [user()], "PD701", chosen=[assistant("6", reasoning_content="add")]
    ),
    "thoughts that are cut": Case(STRIPS, [user()], "PD701", chosen=[assistant(THOUGHT)]),
    "a field that is written": Case(
        WRITES, [user()], None, chosen=[assistant("5", reasoning_content="add")]
    ),
    "opened by both": Case(
        ALWAYS, [user()], "PD715", "begins with it", chosen=[assistant(THOUGHT)]
    ),
    "opened by both, another tag": Case(
        SQUARE, [user()], "PD715", "[THINK]", chosen=[assistant("[THINK]add[/THINK]5")]
    ),
    "opened by the template, then by the text": Case(
        TWICE, [user()], "PD715", "open <think>", chosen=[assistant("<think>add</think>5")]
    ),
    "as a field and in the text": Case(
        FULL, [user()], "PD715", "twice", chosen=[assistant(THOUGHT, reasoning_content="add")]
    ),
    "an earlier turn thinks": Case(
        OPENS, [user(), assistant(THOUGHT), user("And?")], None, chosen=[assistant(THOUGHT)]
    ),
    "no tag anywhere": Case(CHATML, [user()], None, chosen=[assistant(THOUGHT)]),
}  # fmt: skip


def encode(folder: Path, case: Case, **severity: str) -> TokenRows:
    rejected = [{**turn, "content": f"{turn['content']} No."} for turn in case.chosen]
    row = {"prompt": case.prompt, "chosen": case.chosen, "rejected": rejected, "tools": case.tools}
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (file,) = expand_inputs([str(path)])
    records = read_file(file).records
    assert records.num_rows == 1
    tokenizer = save_tokenizer(folder / "tokenizer", template=case.template)
    options = TokenOptions.model_validate({"severity": severity})
    return encode_table(records, load_tokenizer_spec(str(tokenizer)), options)


@pytest.mark.parametrize(
    "case", [*PROMPTS.values(), *THINKING.values()], ids=[*PROMPTS.keys(), *THINKING.keys()]
)
def test_what_is_dropped_or_written_twice_has_its_code(tmp_path: Path, case: Case) -> None:
    made = encode(tmp_path, case)

    refused = [(why.code, case.words in why.message) for why in made.refusals.values()]
    expected = [(case.code, True)] if case.code and not case.is_kept else []
    assert refused == expected, made.refusals
    assert {"PD715", "PD717", "PD719"} & made.findings.keys() == (
        {case.code} if case.is_kept else set()
    )


@pytest.mark.parametrize("name", ["the answer does not think", "thoughts that are cut"])
def test_a_lowered_pd701_is_counted_and_hides_no_loss(tmp_path: Path, name: str) -> None:
    made = encode(tmp_path, THINKING[name], PD701="W")

    if name == "thoughts that are cut":
        assert [why.code for why in made.refusals.values()] == ["PD707"]
    else:
        assert made.findings["PD701"] == 1


DEFAULT = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n"
    "You are helpful.<|im_end|>\n{% endif %}" + CHATML
)
ASKS = (
    "{% if messages[0].content and messages[0].role == 'system' %}"
    "{{ messages[0].content }}{% endif %}"
)
REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
)
EMPTY = {
    "empty": (DEFAULT, "system", "", True),
    "spaces": (DEFAULT, "system", "  \n ", True),
    "spaces longer than the default": (DEFAULT, "system", " " * 400, True),
    "developer": (DEFAULT.replace("== 'system'", "in ('system', 'developer')").replace(
        "!= 'system'", "not in ('system', 'developer')"), "developer", "", True),
    "a text": (DEFAULT, "system", "Be brief.", False),
    "no default": (CHATML, "system", "", False),
    "no default, spaces": (CHATML, "system", " ", False),
    "no system turns at all": (REFUSES, "system", "", True),
    "ignored when empty": (ASKS + NO_SYSTEM, "system", "", False),
    "a long default": (DEFAULT.replace("helpful", "helpful " * 50), "system", "", True),
    "a default by a variable": (
        "{% set s = 'Helpful.' if messages[0].role != 'system' else messages[0].content %}{{ s }}"
        + NO_SYSTEM, "system", "", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "role", "text", "is_absent"), EMPTY.values(), ids=EMPTY.keys()
)
def test_an_empty_system_text_does_not_hide_the_templates_own(
    tmp_path: Path, template: str, role: str, text: str, is_absent: bool
) -> None:
    system = {"role": role, "content": text}
    (tmp_path / "without").mkdir()
    made = encode(tmp_path, Case(template, [system, user()], None))
    without = encode(tmp_path / "without", Case(template, [user()], None))

    assert made.refusals == {}
    assert made.findings.get("PD716", 0) == int(is_absent)
    same = made.tokens["prompt_ids"].to_pylist() == without.tokens["prompt_ids"].to_pylist()
    assert same == (is_absent or template.startswith(ASKS))
