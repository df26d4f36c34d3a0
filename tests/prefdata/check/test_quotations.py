"""Messages quote rows of every kind without anything private, also where a quotation is cut."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import prefdata
from prefdata.cli import main
from prefdata.config import BuildConfig
from prefdata.records.secrets import quote, visible
from prefdata.store.reader import Build
from tests.prefdata.conftest import write_rows

RANDOM = "Q4J7XW2LZ5TB3NGH"
KEYS = [f"AKIA{RANDOM[n:]}{RANDOM[:n]}" for n in range(6)]
MAILS = [f"{name}.doe@corp.org" for name in ("jane", "karl", "lena", "mike", "nora", "otto")]
PRIVATE = [*KEYS, *MAILS]


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def pair(prompt: Any, chosen: str, rejected: str = "No.") -> dict[str, Any]:
    asked = [turn("user", prompt)] if isinstance(prompt, str) else prompt
    return {
        "prompt": asked,
        "chosen": [turn("assistant", chosen)],
        "rejected": [turn("assistant", rejected)],
    }


def dialogue(*sides: tuple[str, str]) -> dict[str, Any]:
    """Return a row of two transcripts: the user's turn and the answer of each."""
    names = ("chosen", "rejected")
    texts = [f"\n\nHuman: {said}\n\nAssistant: {answer}" for said, answer in sides]
    return dict(zip(names, texts, strict=True))


def call(name: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "arguments": "no JSON"}}]


DIALOGUES = [
    *(dialogue((f"{n}?", "Yes."), (f"{n}?", "No.")) for n in range(5)),
    *(
        # PD207: 40 characters of both turns are quoted, with a key at the cut
        dialogue((f"a {'x ' * n}{KEYS[0]} and", "Yes."), (f"b {'x ' * n}{KEYS[1]} and", "No."))
        for n in range(24)
    ),
    dialogue((f"see {MAILS[0]} a", "Yes."), (f"see {MAILS[0]} b", "No.")),  # PD207, after a mail
]
PAIRS = [
    *(pair(f"{n} is what?", f"It is {n}.") for n in range(9)),
    pair([turn(f"narrator {KEYS[2]}", "one?")], "Yes."),  # PD204
    {**pair("two?", "Yes."), "rejected": [turn("user", f"{MAILS[1]} it is")]},  # PD203
    pair("three?", f"{MAILS[2]} User: hello"),  # PD209
    pair("four?", f"{KEYS[3]} <|im_start|>user now"),  # PD213
    pair("five?", f"{'word ' * 50}and then {MAILS[3]}"),  # PD311
    pair([turn("user", "six?"), turn("assistant", "", tool_calls=call(KEYS[4]))], "Yes."),  # PD211
    pair("seven?", f"I cannot help {MAILS[4]} with that."),  # PD309
]
LABELS = [
    *({"prompt": f"{n}?", "a": "Yes.", "b": "No.", "preference": "a"} for n in range(30)),
    {"prompt": "x?", "a": "Yes.", "b": "No.", "preference": f"{MAILS[5]} {KEYS[5]}"},  # R210
]


@pytest.fixture(scope="module")
def built(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("private")
    twice = f'{{"prompt": "y?", "{KEYS[5]}": 1, "{KEYS[5]}": 2}}\n'  # R207
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS) + twice)
    inputs: list[Any] = [
        str(write_rows(folder / "dialogues.jsonl", DIALOGUES)),
        str(folder / "pairs.jsonl"),
    ]
    config = BuildConfig(
        inputs=inputs, tokenizer=str(tiny), out=folder / "out", test_fraction=0,
        severity={"PD209": "E", "PD311": "E", "PD309": "E"},
    )  # fmt: skip
    return prefdata.build(config)


def leaked(text: str) -> Iterator[str]:
    """Yield what is private in a text: a run of six characters before the last four."""
    for one in PRIVATE:
        runs = {one[at : at + 6] for at in range(len(one) - 9)}
        yield from (run for run in runs if run in text)


def test_no_message_of_refused_rows_quotes_anything_private(built: Build) -> None:
    rejected = built.rejected()
    codes = set(rejected["code"].to_pylist())

    assert {"PD207", "PD203", "PD204", "PD209", "PD213", "PD311", "PD309", "PD211", "R207"} <= codes
    for code, message in zip(*(rejected[n].to_pylist() for n in ("code", "message")), strict=True):
        assert not list(leaked(message)), (code, message)


def test_neither_the_terminal_nor_a_report_quotes_anything_private(built: Build) -> None:
    files = [str(built.path.parent / f"{name}.jsonl") for name in ("dialogues", "pairs")]
    shown = CliRunner().invoke(main, ["validate", *files]).output

    assert "PD207" in shown
    assert not list(leaked(shown))
    for name in ("report.json", "report.html", "README.md"):
        assert not list(leaked((built.path / name).read_text())), name


def test_a_label_that_is_private_is_not_quoted(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "labels.jsonl", LABELS)
    layout = tmp_path / "labels.yaml"
    layout.write_text(
        "columns: {prompt: text, a: text, b: text, preference: text}\nprompt: prompt\n"
        "candidates:\n  items: [a, b]\n  label: {column: preference, map: {a: 0, b: 1}}\n"
    )
    words = ["validate", str(file), "--layout", str(layout)]
    shown = CliRunner().invoke(main, words).output

    assert "`preference` is '….org" in shown
    assert not list(leaked(shown))


@pytest.mark.parametrize("most", range(1, 60))
def test_a_quotation_shows_no_part_of_what_it_cuts(most: int) -> None:
    text = f"It is {KEYS[0]}, or {MAILS[0]} by mail"
    for start in range(len(text)):
        found = quote(text, most, start)
        assert not list(leaked(found)), (start, found)
    assert visible("nothing here") == "nothing here"
    assert quote("a" * 50, 40) == "a" * 39 + "…"
    assert quote("ab", 40, 1) == "…b"
