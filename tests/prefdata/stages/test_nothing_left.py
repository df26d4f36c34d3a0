"""Errors of a build with no pair left give the reasons; `validate --tokenizer` predicts them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import prefdata
from prefdata.cli import main
from prefdata.config import BuildConfig
from prefdata.errors import UsageError
from prefdata.validation import ValidateOptions
from tests.prefdata.conftest import CHATML, save_tokenizer, write_rows

REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('No system here') }}{% endif %}"
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}"
)
PICKY = REFUSING + ALTERNATE + CHATML
CUT = CHATML.replace("message['content'] }}", "message['content'][:3] }}")
TOOLS = [{"type": "function", "function": {"name": "find"}}]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


ASK = [user("Hi")]


def chat(prompt: Any = ASK, chosen: str = "Hello.", rejected: str = "What?", **more: Any) -> Any:
    sides = {"chosen": chosen, "rejected": rejected}
    turns = {name: [{"role": "assistant", "content": text}] for name, text in sides.items()}
    return {"prompt": prompt, **turns, **more}


SYSTEM = chat([{"role": "system", "content": "Be kind."}, *ASK])
CASES: dict[str, tuple[str, list[Any], str, str]] = {
    "system turns": (
        PICKY,
        [SYSTEM, SYSTEM | {"rejected": [{"role": "assistant", "content": "No."}]}],
        "PD711",
        "No system here",
    ),
    "user twice": (PICKY, [chat([*ASK, *ASK])], "PD711", "Roles must alternate"),
    "tools": (CHATML, [chat(tools=TOOLS)], "PD707", "drops the tools"),
    "texts": (CUT, [chat(chosen="Hello to you.")], "PD707", "content of the assistant's turn"),
    "template marks": (
        CHATML,
        [{"prompt": "<|im_start|>user\nq\n", "chosen": "a", "rejected": "b"}],
        "PD213",
        "the prompt contains the markup of a chat template",
    ),
    "blank answers": (CHATML, [chat(chosen="")], "PD202", "rows.jsonl:1"),
    "same answers": (CHATML, [chat(chosen="a", rejected="a")], "PD301", "rows.jsonl:1"),
    "a foreign prompt": (
        CHATML.replace("assistant\n{% endif", "assistant\n<think>{% endif"),
        [chat()],
        "PD701",
        "not the beginning",
    ),
    "tokens that are the same": (
        CHATML.replace("message['content'] }}", "message['content'] | lower }}"),
        [chat(chosen="yes", rejected="YES")],
        "PD707",
        "rows.jsonl:1",
    ),
}


@pytest.mark.parametrize(("template", "rows", "code", "words"), CASES.values(), ids=CASES.keys())
def test_a_build_with_nothing_left_names_codes_and_reasons(
    tmp_path: Path, template: str, rows: list[Any], code: str, words: str
) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer", template=template)
    path = write_rows(tmp_path / "rows.jsonl", rows)
    arguments = [str(path), "--tokenizer", str(tokenizer), "-o", str(tmp_path / "out")]
    report = tmp_path / "report.json"

    done = CliRunner().invoke(main, ["build", *arguments, "--report", str(report)])

    assert done.exit_code == 3
    assert "[E120]" in done.stderr
    assert code in done.stderr
    assert words in done.stderr
    assert f"prefdata explain {code}" in done.stderr
    assert code in done.stdout  # the report is on the screen as well
    assert code in {finding["code"] for finding in json.loads(report.read_bytes())["findings"]}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("template", "rows", "code", "words"), CASES.values(), ids=CASES.keys())
def test_validate_with_a_tokenizer_reports_it_beforehand(
    tmp_path: Path, template: str, rows: list[Any], code: str, words: str
) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer", template=template)
    good = chat([user("bye")], "yes", "no")
    if code == "PD701":
        good = chat([user("bye")], "<think>yes", "<think>no")
    rows = [row if isinstance(row["prompt"], list) else chat([user(row["prompt"])]) for row in rows]
    path = write_rows(tmp_path / "rows.jsonl", [*rows, good])

    report = prefdata.validate([str(path)], ValidateOptions(tokenizer=str(tokenizer)))

    found = {finding.code: finding for finding in report.findings if finding.severity == "E"}
    assert found[code].count == len(rows)
    assert words in f"rows.jsonl:1 {found[code].examples[0].message}"
    assert report.lines.rejected == len(rows)


def test_validate_and_build_find_the_same(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer", template=PICKY)
    rows = [SYSTEM, chat([*ASK, *ASK]), chat(), chat([user("Bye")])]
    path = write_rows(tmp_path / "rows.jsonl", rows)

    report = prefdata.validate([str(path)], ValidateOptions(tokenizer=str(tokenizer)))
    made = prefdata.build(
        BuildConfig(
            inputs=[str(path)], tokenizer=str(tokenizer), out=tmp_path / "out", test_fraction=0.0
        )
    )

    built = json.loads(made.file("report.json").read_bytes())
    assert [(f.code, f.count) for f in report.findings] == [
        (f["code"], f["count"]) for f in built["findings"]
    ]
    assert report.lines == made.manifest.lines


def test_the_severities_of_token_checks_can_be_changed(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    path = write_rows(tmp_path / "rows.jsonl", [chat(tools=TOOLS)])

    def counts(**severity: str) -> dict[str, str]:
        options = ValidateOptions(tokenizer=str(tokenizer), severity=severity)
        report = prefdata.validate([str(path)], options)
        return {f.code: f.severity for f in report.findings if f.code.startswith("PD7")}

    assert counts() == {"PD707": "E"}
    assert counts(PD707="W") == {"PD707": "W"}
    assert counts(PD707="off") == {}
    for wrong in ({"PD707": "X"}, {"PD711": "W"}):
        with pytest.raises(UsageError, match=r"\[C13[12]\]"):
            counts(**wrong)
