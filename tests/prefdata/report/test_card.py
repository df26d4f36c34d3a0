"""Dataset card: Markdown in which data is escaped, a correct header, a command that rebuilds."""

import re
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

import prefdata
from prefdata.config import BuildConfig, read_config
from prefdata.report.card import write_card
from prefdata.report.model import SourceShare
from tests.prefdata.report.payloads import HARMFUL, TERMINAL, XSS, naughty_strings
from tests.prefdata.report.synthetic import empty_report, full_report

MARKDOWN = [
    "[link](http://evil.example)",
    "![image](http://evil.example/x.png)",
    "<http://evil.example>",
    "https://evil.example/?a=b and www.evil.example",
    "mail@evil.example",
    "| cell | cell |",
    "# heading\n## other",
    "1. list\n- list\n* list\n+ list",
    "```\ncode\n```",
    "~~~\ncode",
    "    code by its indent",
    "---\n===",
    "[ref]: http://evil.example",
    "> quotation",
    "**bold** _soft_ `code` ~~gone~~",
    "&lt;b&gt; &#60;",
    "line  \nbreak\\",
    "$$x$$ \\(x\\) {{ x }}",
]
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def body_of(card: str) -> str:
    return card.split("---\n", 2)[2]


def header_of(card: str) -> dict[str, object]:
    header: dict[str, object] = yaml.safe_load(card.split("---\n", 2)[1])
    return header


def kinds(card: str) -> list[str]:
    """Return the card's elements, except paragraphs and line breaks."""
    found = []
    for token in PARSER.parse(body_of(card)):
        found += [token.type, *(child.type for child in token.children or [])]
    return [kind for kind in found if kind not in ("text", "softbreak", "hardbreak", "text_special")
            and not kind.startswith("paragraph")]  # fmt: skip


@lru_cache
def plain_kinds() -> list[str]:
    return kinds(write_card(full_report(" x"), name="out"))


@pytest.mark.parametrize("text", [*MARKDOWN, *XSS, *TERMINAL])
def test_text_from_data_is_text_in_the_card(text: str) -> None:
    card = write_card(full_report(f" {text}"), name=f"out {text}")

    assert not HARMFUL & set(card)
    assert kinds(card) == plain_kinds()


def test_naughty_strings_are_text_in_the_card() -> None:
    for some in naughty_strings():
        text = " ".join(some.split())  # an empty line is one in the card as well
        assert kinds(write_card(full_report(f" {text}"), name="out")) == plain_kinds(), text


def test_no_address_becomes_a_link() -> None:
    card = write_card(full_report(" https://evil.example www.evil.example a@b.c"), name="out")

    assert not re.search(r"(?<!\\)(://|(?<=www)\.|@)", body_of(card).split("## Build it again")[0])


def test_the_header_names_a_license_only_if_all_sources_have_it() -> None:
    report = full_report()
    known = [SourceShare(name=name, pairs=1, share=0.5, licence="MIT") for name in "ab"]

    assert "license" not in header_of(write_card(report, name="out"))
    assert header_of(write_card(report, name="out"))["language"] == ["en", "de"]
    header = header_of(
        write_card(report.model_copy(update={"sources": known, "languages": []}), name="out")
    )
    assert header["license"] == ["mit"]
    assert "language" not in header


def test_a_header_reads_back_with_any_licence() -> None:
    licence = "x\n---\n# heading: \u202e"
    source = SourceShare(name="a", pairs=1, share=1.0, licence=licence)
    card = write_card(full_report().model_copy(update={"sources": [source]}), name="out")

    assert header_of(card.replace(licence, "?"))["license"] == [licence.lower()]


def test_a_card_repeats_its_build(
    rows_file: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = BuildConfig(
        inputs=[str(rows_file)], tokenizer=str(tiny), out=tmp_path / "a", max_length=80
    )
    made = prefdata.build(first)
    card = (made.path / "README.md").read_text()
    block = re.search(r"```yaml\n(.*?)\n```", card, re.DOTALL)
    assert block is not None
    assert str(tmp_path) not in card
    config = tmp_path / "build.yaml"
    config.write_text(block[1])
    monkeypatch.chdir(rows_file.parent)  # the card names inputs and tokenizer without directories
    (rows_file.parent / tiny.name).symlink_to(tiny)
    again = prefdata.build(read_config(config, {"out": str(tmp_path / "b")}))

    assert again.manifest.hash == made.manifest.hash
    assert set(yaml.safe_load(block[1])) == {"inputs", "tokenizer", "max_length"}


def test_a_card_shows_lengths_as_bars() -> None:
    card = write_card(full_report(), name="out")
    block = re.search(r"```text\n(.*?)\n```", card, re.DOTALL)
    assert block is not None
    header, *rows = block[1].splitlines()

    assert header.split() == ["tokens", "prompt", "chosen", "rejected"]
    assert any(row.count("█") > 16 for row in rows)


def test_a_card_without_numbers_has_no_empty_table() -> None:
    assert "| --- |" not in write_card(empty_report(), name="out")
