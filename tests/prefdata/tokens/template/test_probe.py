"""A template cannot escape its sandbox, run forever or fill the memory."""

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from prefdata.errors import UsageError
from prefdata.tokens.template.probe import Probe

ESCAPES = {
    "class of a text": "{{ ''.__class__ }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "globals by way of a filter": "{{ (raise_exception | attr('__globals__')).os }}",
    "initializer of a namespace": "{{ namespace.__init__.__globals__ }}",
    "format of a text": "{{ '{0.__class__}'.format(messages) }}",
    "format_map of a text": "{{ '{a.__class__}'.format_map({'a': messages}) }}",
    "the template itself": "{{ self.__init__.__globals__ }}",
    "the loop": "{% for m in messages %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "code of a function": "{{ strftime_now.__code__ }}",
    "a change to the messages": "{{ messages.append(1) }}",
    "a generator's frame": "{{ (messages | map('upper')).gi_frame.f_globals }}",
}
BOMBS = {
    "time": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "memory by product": "{{ 'a' * 9999999999 }}",
    "memory by doubling": "{% set n = namespace(s='aaaaaaaa') %}"
    "{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
}
HONEST = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def code_of(source: str) -> str | None:
    try:
        with Probe({"default": source}, {}, None) as probe:
            probe.finish()
    except UsageError as error:
        return error.code
    return None


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES.keys())
def test_an_escape_is_refused(source: str) -> None:
    assert code_of(source) == "C118"


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_and_does_no_harm(source: str) -> None:
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert code_of(source) == "C117"
    assert time.monotonic() - started < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_an_honest_template_passes_and_one_that_refuses_dialogues_does_too() -> None:
    assert code_of(HONEST) is None
    assert code_of("{{ raise_exception('tools are not supported') }}") is None


def test_a_build_with_a_hostile_template_writes_nothing(tmp_path: Path, tiny: Path) -> None:
    import prefdata
    from prefdata.config import BuildConfig

    (tmp_path / "bad.jinja").write_text(ESCAPES["subclasses"])
    row: dict[str, Any] = {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    config = BuildConfig(
        inputs=[str(tmp_path / "rows.jsonl")],
        tokenizer=str(tiny),
        out=tmp_path / "out",
        chat_template=tmp_path / "bad.jinja",
    )

    with pytest.raises(UsageError, match="C118"):
        prefdata.build(config)
    assert not (tmp_path / "out").exists()


def test_a_trial_that_could_not_start_is_not_blamed_on_the_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "none")  # no Python starts with it
    with (
        Probe({"default": "{{ messages }}"}, {}, None) as probe,
        pytest.raises(RuntimeError, match="did not run"),
    ):
        probe.finish()
