"""Views of a build: pages and pairs, the same numbers everywhere, no raw control characters."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import prefdata
from prefdata.cli import main
from prefdata.config import BuildConfig
from prefdata.report.html.browser import PAGE_PAIRS, codes_by_place, write_browser
from prefdata.report.pair import show_pair
from prefdata.report.rows import pieces_of, read_pairs
from prefdata.report.terminal import print_report
from prefdata.store.reader import Build
from prefdata.validation import ValidateOptions
from tests.prefdata.conftest import chat_rows, write_rows
from tests.prefdata.report.payloads import HARMFUL, TERMINAL
from tests.prefdata.report.synthetic import full_report


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def build(tiny: Path, tmp_path: Path) -> Build:
    """Build sixty pairs in several shards of two splits, and a test split."""
    file = write_rows(tmp_path / "rows.jsonl", chat_rows(60))
    config = BuildConfig(
        inputs=[str(file)],
        tokenizer=str(tiny),
        out=tmp_path / "out",
        test_fraction=0.2,
        shard_rows=9,
    )
    return prefdata.build(config)


@pytest.mark.parametrize("text", TERMINAL)
def test_the_terminal_gets_no_control_character_from_data(text: str) -> None:
    console = Console(width=200, color_system=None, force_terminal=False)
    with console.capture() as captured:
        print_report(full_report(text), console)

    assert not HARMFUL & set(captured.get())
    assert "data/reviews" in captured.get()


def test_a_pair_in_the_terminal_is_harmless(tiny: Path, tmp_path: Path) -> None:
    text = "".join(TERMINAL).replace("\x00", "")
    rows = chat_rows(1)
    rows[0]["chosen"] = [{"role": "assistant", "content": text}]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    config = BuildConfig(inputs=[str(file)], tokenizer=str(tiny), out=tmp_path / "out")
    shown = "\n".join(str(part) for part in show_pair(prefdata.build(config), 0))

    assert not HARMFUL & set(shown)
    assert "\\x1b[31mred" in shown


def test_text_and_tokens_of_a_row_are_those_of_its_split(build: Build) -> None:
    total = sum(split.rows for split in build.splits.values())
    pairs = list(read_pairs(build, range(total)))

    assert [pair.row for pair in pairs] == list(range(total))
    for pair in pairs:
        assert pair.tokens == build.tokens(pair.split).slice(pair.at, 1).to_pylist()[0]
        assert pair.text["pair_id"] == pair.tokens["pair_id"].hex()


def test_pages_have_the_requested_pairs(build: Build, tmp_path: Path) -> None:
    rows = sum(split.rows for split in build.splits.values())
    pages = write_browser(build, tmp_path / "pages", most=1_000).paths
    texts = [page.read_text() for page in pages]

    assert len(pages) == -(-rows // PAGE_PAIRS)
    assert [text.count('<article class="pair"') for text in texts[:-1]] == [PAGE_PAIRS] * 2
    assert sum(text.count('<article class="pair"') for text in texts) == rows
    assert 'href="page-0002.html" rel="next"' in texts[0]
    assert 'href="index.html" rel="prev"' in texts[1]


def test_one_page_has_pairs_of_the_whole_build(build: Build, tmp_path: Path) -> None:
    page = tmp_path / "pairs.html"
    shown = run("show", build.path, "--html", page, "--rows", "6")

    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(str(page))
    assert page.read_text().count('<article class="pair"') == 6
    assert ">train[" in page.read_text()
    assert ">test[" in page.read_text()


def test_a_long_pair_does_not_make_a_long_page(tiny: Path, tmp_path: Path) -> None:
    rows = chat_rows(1)
    rows[0]["chosen"] = [{"role": "assistant", "content": "very long " * 100_000}]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    config = BuildConfig(inputs=[str(file)], tokenizer=str(tiny), out=tmp_path / "out")
    (page,), _ = write_browser(prefdata.build(config), tmp_path / "page.html", most=9)

    assert page.stat().st_size < 200_000
    assert "988,000 characters not shown" in page.read_text()


def test_a_pair_in_the_terminal_says_what_differs(build: Build) -> None:
    shown = run("show", build.path, "--row", "0").output

    assert "difference: " in shown
    assert "{+" in shown
    assert "[-" in shown


def test_a_character_of_several_tokens_is_one_piece() -> None:
    ids, mask = list("a😀é".encode()), [True] * 6 + [False]
    pieces = list(pieces_of(ids, mask, lambda some: bytes(some).decode(errors="replace")))

    assert [piece.text for piece in pieces] == ["a", "😀", "\ufffd", "\ufffd"]
    assert [token for piece in pieces for token in piece.ids] == ids
    assert [piece.trained for piece in pieces] == [True, True, True, False]


def test_a_pair_carries_the_codes_that_name_its_line() -> None:
    codes = codes_by_place(full_report())

    assert " ".join(codes["data/reviews-0.jsonl", 17]) == "PD202 PD210 PD301 PD403 PD710 R201"


def test_all_forms_of_a_report_say_the_same(rows_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(rows_file.read_bytes() + b"{\n" * 7)
    files = [tmp_path / f"report{ending}" for ending in (".json", ".html", ".sarif")]
    terminal = [run("validate", bad, "--report", file).stdout for file in files]
    report, page, log = (file.read_text() for file in files)

    assert len(set(terminal)) == 1
    assert json.loads(report)["findings"][0]["count"] == 7
    assert "<b>7</b>" in page
    assert len(json.loads(log)["runs"][0]["results"]) == 7


def test_a_report_in_no_known_form_is_refused_before_the_work(rows_file: Path) -> None:
    result = run("validate", rows_file, "--report", "report.xlsx")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("use one of .json, .html, .sarif [E160]\n")


def test_files_are_written_where_requested_or_refused_in_a_line(
    build: Build, rows_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder.html"
    folder.mkdir()
    made = [
        run("validate", rows_file, "--report", tmp_path / "new" / "report.json"),
        run("show", build.path, "--html", tmp_path / "other" / "pairs.html"),
        run("show", build.path, "--html", folder),
    ]
    refused = [
        run("validate", rows_file, "--report", folder),
        run("validate", rows_file, "--report", rows_file / "x.json"),
        run("show", build.path, "--html", rows_file),
    ]

    assert [result.exit_code for result in made] == [0, 0, 0]
    assert (folder / "index.html").is_file()
    assert [result.stderr.strip()[-6:] for result in refused] == ["[E160]", "[E140]", "[E140]"]


def test_a_validation_measures_characters_and_a_build_tokens(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    validated = prefdata.validate([str(rows_file)])
    built = run("build", rows_file, "--tokenizer", tiny, "-o", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    chosen = [f"It is {row + 1}.\n\nSure." for row in range(1, 61)]

    assert built.exit_code == 0
    assert (validated.length_unit, report["length_unit"]) == ("characters", "tokens")
    assert validated.lengths is not None
    assert validated.lengths["chosen"].mean == round(sum(map(len, chosen)) / 60, 3)
    assert validated.histograms is not None
    assert sum(validated.histograms["chosen"].counts) == 60
    assert sum(report["histograms"]["chosen"]["counts"]) == report["lines"]["kept"]
    assert report["groups"] == {"pairs": 60, "groups": 60 - 12, "completions": 120}
    assert report["example_pairs"][0]["line"] == 1


def test_a_report_names_the_checks_that_were_changed(rows_file: Path) -> None:
    options = ValidateOptions(severity={"PD301": "W", "PD202": "E"})
    report = prefdata.validate([str(rows_file)], options)

    assert [(c.code, c.was, c.now) for c in report.severity_changes] == [("PD301", "E", "W")]
