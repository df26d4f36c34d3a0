"""A joined dialogue equals the rendered dialogue, for every question a template asks."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Template

from prefdata.tokens.chat_template import TEMPLATE_FAULTS, Message, compile_template, sandbox
from prefdata.tokens.template.trace import MOST_PATHS, TracedTemplate, trace_template
from prefdata.tokens.template.traced_str import MARK

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Common templates in short form, and others that inspect their texts in every possible way.
TRACED = {
    "chatml": CHATML,
    "trimmed": "{% for m in messages %}[{{ m['content'] | trim }}]{% endfor %}",
    "thinking": "{% for m in messages %}{% set c = m.content if m.content is string else '' %}"
    "{% if '<t>' in c %}{{ '(' + c.strip('\n') + ')' }}{% else %}{{ c }}{% endif %}{% endfor %}",
    "prefix": "{% for m in messages %}{% if not m.content.startswith('<t>') and "
    "not m.content.endswith('</t>') %}{{ m.role ~ ':' }}{{ m.content }}{% endif %}{% endfor %}",
    "empty": "{% for m in messages if m.content %}{{ m.content }};{% else %}none{% endfor %}",
    "equal": "{{ 'same' if messages[0].content == 'a' else messages[0]['content'].lstrip() }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% endfor %}",
    "last": "{% for m in messages %}{% if loop.last %}{{ m.content.rstrip() + '!' }}{% endif %}"
    "{% endfor %}{% if messages[-1].content != '' %}.{% endif %}",
}
UNTRACED = {
    "length": "{{ messages[0].content | length }}",
    "slice": "{{ messages[0].content[:2] }}",
    "upper": "{{ messages[0].content | upper }}",
    "method": "{{ messages[0].content.upper() }}",
    "replace": "{{ messages[0].content | replace('a', 'b') }}",
    "concatenation": "{{ 'x' ~ messages[0].content }}",
    "each character": "{% for c in messages[0].content %}{{ c }}-{% endfor %}",
    "json": "{{ messages | tojson }}",
    "split": "{{ messages[0].content.split('t')[0] }}",
    "sequence": "{{ messages[0].content is sequence }}",
    "iterable": "{{ messages[0].content is iterable }}",
    "two texts": "{{ messages[0].content == messages[-1].content }}",
    "in a list": "{{ 'a' in [messages[0].content] and messages[0].content in 'abc' }}",
    "method exists": "{{ messages[0].content.upper is defined }}",
    "format": "{{ '%s' % messages[0].content }}",
    "order": "{{ messages[0].content < 'b' }}",
    "key": "{{ {'a': 1}[messages[0].content] }}",
    "refusal": "{{ raise_exception('no') if messages[0].content == 'a' else messages[0].content }}",
}
CATCHING = {
    "macro": "{% macro say(c) %}{{ c }}{% endmacro %}{{ say(messages[0].content) | length }}",
    "set block": "{% set x %}{{ messages[0].content }}{% endset %}{{ x[:1] }}",
    "filter block": "{% filter upper %}{{ messages[0].content }}{% endfilter %}",
    "block": "{% block a %}{{ messages[0].content }}{% endblock %}{{ self.a() | length }}",
}

text = st.one_of(
    st.sampled_from(
        ["", "a", " a ", "\n", "<t>", "a<t>b", "</t>", "\n<t>\n", "{{ x }}", "0", MARK]
    ),
    st.text(max_size=6),
)
role = st.sampled_from(["system", "user", "assistant", f"{MARK}7{MARK}", MARK])
dialogue = st.lists(
    st.builds(lambda r, t: {"role": r, "content": t}, role, text), min_size=1, max_size=4
)


def join(template: TracedTemplate, source: str, messages: list[Message]) -> str:
    return template.join(messages, lambda: rendered(source, messages), add_generation_prompt=True)


def traced(source: str) -> TracedTemplate | None:
    return trace_template(source, sandbox(day=None), {"bos_token": "<s>"})


@cache
def compiled(source: str) -> Template:
    return compile_template(source, sandbox(day=None))


def rendered(source: str, messages: list[Message]) -> str:
    template = compiled(source)
    values: dict[str, Any] = {"messages": messages, "tools": None, "documents": None}
    return template.render(**values, add_generation_prompt=True, bos_token="<s>")


@pytest.mark.parametrize("source", [*TRACED.values(), *UNTRACED.values()], ids=[*TRACED, *UNTRACED])
@given(dialogues=st.lists(dialogue, min_size=1, max_size=12))
def test_a_joined_dialogue_is_the_rendered_one(source: str, dialogues: list[list[Message]]) -> None:
    template = traced(source)
    assert template is not None

    for messages in dialogues * 2:
        try:
            expected = rendered(source, messages)
        except TEMPLATE_FAULTS:
            with pytest.raises(TEMPLATE_FAULTS):
                join(template, source, messages)
        else:
            assert join(template, source, messages) == expected


@pytest.mark.parametrize("source", TRACED.values(), ids=TRACED)
def test_a_known_kind_of_dialogue_is_joined_without_its_template(source: str) -> None:
    template = traced(source)
    assert template is not None
    first, second = ([{"role": "user", "content": c}] for c in ("one", "other"))

    join(template, source, first)
    found = template.join(second, lambda: pytest.fail("rendered"), add_generation_prompt=True)

    assert found == rendered(source, second)


@pytest.mark.parametrize("source", CATCHING.values(), ids=CATCHING)
def test_a_template_that_could_inspect_its_output_is_not_traced(source: str) -> None:
    assert traced(source) is None


def test_dialogues_beyond_the_most_paths_are_rendered() -> None:
    template = traced(CHATML)
    assert template is not None
    messages = [{"role": f"role {n}", "content": "x"} for n in range(MOST_PATHS + 5)]

    for message in messages:
        template.join(
            [message], lambda m=message: rendered(CHATML, [m]), add_generation_prompt=True
        )
    last = messages[-1:]

    assert template.join(last, lambda: "rendered", add_generation_prompt=True) == "rendered"
