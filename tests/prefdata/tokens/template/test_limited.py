"""A template that one row sets off stays within its limits, and the row is refused."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest

import prefdata
from prefdata.config import BuildConfig
from prefdata.errors import UsageError
from prefdata.store.reader import Build
from prefdata.tokens.template.limited import BYTES, Limits, TemplateLimitError, TemplateProcess
from tests.prefdata.conftest import CHATML, save_tokenizer, write_rows

# `c` is a character of the row's text and `k` is 1: constants would be computed while compiling.
BOMBS = {
    "product of a text": "{{ c * 99999999999 }}",
    "product of a list": "{{ ([c] * 9999999999) | length }}",
    "product in steps": "{% set x = c * 99999 %}{% set y = x * 99999 %}{{ y | length }}",
    "doubling by ~": "{% set n = namespace(s=c) %}{% for i in range(60) %}"
    "{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubling by +": "{% set n = namespace(s=[c]) %}{% for i in range(60) %}"
    "{% set n.s = n.s + n.s %}{% endfor %}",
    "join": "{{ ([c * 9999] * 99999) | join(c * 9999) }}",
    "replace": "{{ (c * 99999) | replace(c, c * 99999) }}",
    "format of a width": "{{ '%999999999d' | format(k) }}",
    "percent of a width": "{{ '%999999999d' % k }}",
    "center": "{{ c | center(9999999999) }}",
    "indent of JSON": "{{ [[[[c]]]] | tojson(indent=999999999) }}",
    "power": "{{ ((9 * k) ** (9 ** 9)) is odd }}",
    "range in range": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "output in a loop": "{% for a in range(99999) %}{{ c * 99999 }}{% endfor %}",
    "tree of macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "list that grows": "{% set n = namespace(s=[]) %}{% for a in range(99999) %}"
    "{% set n.s = n.s + [n.s] * 999 %}{% endfor %}",
    "too much text": "{{ c * 99999999 }}",
    "words": "{{ lipsum(n=99999 * k, min=9999, max=99999) }}",
}


@pytest.fixture
def run() -> Iterator[list[TemplateProcess]]:
    """Yield a list of processes, which end with the test."""
    started: list[TemplateProcess] = []
    yield started
    for process in started:
        process.close()


def set_off_by(bomb: str) -> str:
    known = "{% set c = messages[-1].content[0] %}{% set k = messages | length %}"
    return known + "{% if 'BOOM' in messages[-1].content %}" + bomb + "{% endif %}" + CHATML


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_and_the_next_row_rendered(bomb: str, run: list[TemplateProcess]) -> None:
    process = TemplateProcess(set_off_by(bomb), None, {}, limits=Limits(seconds=1))
    run.append(process)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def render(content: str) -> str:
        messages = [{"role": "user", "content": content}]
        return process.render(messages, None, add_generation_prompt=False)

    with pytest.raises(TemplateLimitError, match=r"it takes more than|it writes|exit code"):
        render("BOOM")

    assert render("hello") == "<|im_start|>user\nhello<|im_end|>\n"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_the_kernel_holds_the_limit(run: list[TemplateProcess]) -> None:
    process = TemplateProcess(CHATML, None, {})
    run.append(process)
    process.render([], None, add_generation_prompt=False)

    assert process.pid is not None
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    most = int(limits.split("Max address space")[1].split()[0])
    assert most - pages * resource.getpagesize() <= BYTES + (1 << 20)


def test_a_bomb_that_goes_off_while_compiling_is_refused(run: list[TemplateProcess]) -> None:
    process = TemplateProcess("{{ 'a' * 99999999999 }}", None, {})
    run.append(process)

    with pytest.raises(TemplateLimitError):
        process.render([], None, add_generation_prompt=False)


def test_a_recursion_without_end_and_a_refusal_are_the_templates_own(
    run: list[TemplateProcess],
) -> None:
    for source, words in (
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ raise_exception('no foxes') }}", "no foxes"),
        ("{{ messages[7].content }}", "has no element 7"),
    ):
        process = TemplateProcess(source, None, {})
        run.append(process)
        with pytest.raises(jinja2.TemplateError, match=words) as error:
            process.render([], None, add_generation_prompt=False)
        assert not isinstance(error.value, TemplateLimitError)


def test_a_missing_date_is_the_configs_fault(run: list[TemplateProcess]) -> None:
    process = TemplateProcess("{{ strftime_now('%Y') }}", None, {})
    run.append(process)

    with pytest.raises(UsageError, match="C114"):
        process.render([], None, add_generation_prompt=False)


def build(folder: Path, template: str, contents: list[str]) -> Build:
    rows: list[dict[str, object]] = [
        {
            "prompt": [{"role": "user", "content": content}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        }
        for content in contents
    ]
    path = write_rows(folder / "rows.jsonl", rows)
    tokenizer = save_tokenizer(folder / "tokenizer", template=template)
    config = BuildConfig(
        inputs=[str(path)], tokenizer=str(tokenizer), out=folder / "out", test_fraction=0.0
    )
    return prefdata.build(config)


def test_a_build_refuses_the_row_and_keeps_the_others(tmp_path: Path) -> None:
    bomb = (
        "{% if messages[0].content == 'BOOM' %}{{ messages[0].role * 9999999999 }}{% endif %}"
        + CHATML
    )

    made = build(tmp_path, bomb, ["hello", "BOOM", "good day"])

    report = json.loads(made.file("report.json").read_bytes())
    assert [(f["code"], f["count"]) for f in report["findings"] if f["severity"] == "E"] == [
        ("PD718", 1)
    ]
    assert made.manifest.lines.kept == 2
    assert "more than 256 MiB" in made.rejected().to_pylist()[0]["message"]


def test_a_template_that_many_rows_set_off_is_refused(tmp_path: Path) -> None:
    bomb = (
        "{% if 'BOOM' in messages[0].content %}{{ messages[0].role * 9999999999 }}{% endif %}"
        + CHATML
    )

    with pytest.raises(UsageError, match=r"exceeds its limits for 16 rows.*\[E184\]"):
        build(tmp_path, bomb, [f"BOOM {n}" for n in range(20)])


def test_a_text_that_is_put_out_many_times_is_not_joined_beyond_the_limit(tmp_path: Path) -> None:
    """Without the limit a trace would join 2,000 copies of a row's text in this process."""
    copies = "{% for a in range(2000) %}{{ messages[0].content }}{% endfor %}" + CHATML

    made = build(tmp_path, copies, ["short", "other", "x" * 100_000])

    assert made.manifest.lines.kept == 2
    assert made.rejected().to_pylist()[0]["code"] == "PD718"


def test_a_file_in_the_working_directory_stands_for_no_module(
    tmp_path: Path, run: list[TemplateProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jinja2.py").write_text("import pathlib; pathlib.Path('was-run').touch()\n")
    monkeypatch.chdir(tmp_path)
    process = TemplateProcess("{{ messages[0].content }}", None, {})
    run.append(process)
    process.send([{"role": "user", "content": "hello"}], None, add_generation_prompt=False)

    assert process.receive() == "hello"
    assert not (tmp_path / "was-run").exists()
