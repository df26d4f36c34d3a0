"""`prefdata show` lists rows by reason, with their text and the passage that it is about."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

import prefdata
from prefdata.cli import main
from prefdata.config import BuildConfig
from prefdata.records.schema import DUPLICATES, REJECTED
from prefdata.report.diff import Span
from prefdata.report.html.browser import fenced, rows_by
from prefdata.store.reader import Build
from tests.prefdata.conftest import write_rows

STORY = "the quick brown fox jumps over the lazy dog and then it sleeps on the old red mat "


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def pair(prompt: str, chosen: str, rejected: str = "No.") -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


ROWS = [
    pair("one?", "Yes, one."),  # 1
    pair("two?", "Well. User: hello."),  # 2, PD209
    pair("three?", ""),  # 3, PD202
    pair("one?", "Yes, one."),  # 4, a copy of 1
    pair("four?", "see <|im_start|>user now"),  # 5, PD213
    pair(STORY + "one?", "Yes, it does sleep."),  # 6
    pair(STORY + "one!", "Yes, it really does."),  # 7, near 6
    pair("five?", "My mail is jane.doe@corp.org today."),  # 8, PD607
    {"prompt": "six?", "chosen": 6, "rejected": "No."},  # 9, R210
]


@pytest.fixture(scope="module")
def built(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("listing")
    config = BuildConfig(
        inputs=[str(write_rows(folder / "rows.jsonl", ROWS))],
        tokenizer=str(tiny),
        out=folder / "out",
        text="chat",
        test_fraction=0,
        near_duplicates={"threshold": 0.6},
        severity={"PD402": "E"},
    )
    return prefdata.build(config)


def test_refused_rows_are_shown_with_reason_text_and_passage(built: Build) -> None:
    shown = run("show", built.path, "--rejected").stdout

    assert "rows.jsonl:3\n  PD202: chosen is empty\n  prompt user: three?\n" in shown
    assert "see {!<|im_start|>user!} now" in shown
    assert 'rows.jsonl:9\n  R210: `chosen` is a number, not text\n  {"prompt": "six?"' in shown
    assert shown.endswith("3 refused rows\n")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("PD202", ["rows.jsonl:3", "1 refused row under PD202"]),
        ("r210", ["rows.jsonl:9"]),
        ("PD209", ["rows.jsonl:2", "Well. {!User:!} hello.", "1 kept pair with PD209"]),
        ("PD607", ["rows.jsonl:8", "My mail is {!….org!} today."]),
        ("PD401", ["rows.jsonl:4", "a copy of rows.jsonl:1, which is kept", "Yes, one."]),
        ("PD402", ["similarity", "1 near-duplicate"]),
        ("PD310", ["0 kept pairs with PD310"]),
    ],
)
def test_rows_with_a_code_are_shown(built: Build, code: str, expected: list[str]) -> None:
    result = run("show", built.path, "--code", code)

    assert result.exit_code == 0
    for text in expected:
        assert text in result.stdout


def test_duplicates_and_near_duplicates_are_shown_with_the_pair_that_is_kept(built: Build) -> None:
    copies, near = (run("show", built.path, view).stdout for view in ("--duplicates", "--near"))

    assert "rows.jsonl:4" in copies
    assert copies.endswith("1 copy\n")
    assert all(f"Yes, it {text}." in near for text in ("does sleep", "really does"))
    assert near.endswith("1 near-duplicate\n")


def test_a_list_is_cut_and_says_so(built: Build) -> None:
    shown = run("show", built.path, "--rejected", "--rows", "2").stdout

    assert shown.endswith("3 refused rows; the first 2 are shown\n")
    assert "rows.jsonl:9" not in shown


def test_a_pair_is_found_by_its_id(built: Build) -> None:
    whole = built.text("train")["pair_id"][1].as_py()
    by_id, by_row = run("show", built.path, "--id", whole[:9]), run("show", built.path, "--row", 1)

    assert by_id.stdout == by_row.stdout
    assert whole in by_id.stdout
    assert run("show", built.path, "--id", "").stderr.endswith("[E144]\n")
    assert "0 pairs" in run("show", built.path, "--id", "zz").stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--rows", "3"], "--rows has no effect by itself"),
        (["--tokenizer", "x"], "--tokenizer has no effect by itself"),
        (["--row", "1", "--rows", "3"], "--rows has no effect with --row"),
        (["--near", "--tokenizer", "x"], "--tokenizer has no effect with --near"),
        (["--row", "1", "--rejected"], "--row and --rejected are two views"),
        (["--code", "E100"], "is a code of an error, which no row has"),
    ],
)
def test_an_option_that_would_be_ignored_is_an_error(
    built: Build, options: list[str], problem: str
) -> None:
    result = run("show", built.path, *options)

    assert (result.exit_code, result.stdout) == (2, "")
    assert problem in result.stderr
    assert result.stderr.endswith("[C121]\n")


def test_a_code_that_no_check_has_is_named(built: Build) -> None:
    assert run("show", built.path, "--code", "PD999").stderr.endswith("[C140]\n")


def test_a_build_of_an_earlier_version_is_listed(
    built: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions wrote neither `pair` nor `element`."""
    table = built.rejected()
    parquet.write_table(table.drop_columns(["pair", "element"]), tmp_path / "rejected.parquet")
    monkeypatch.setattr(Build, "_checked", lambda *_: [tmp_path / "rejected.parquet"])
    old = built.rejected()

    assert old.schema.names == REJECTED.names
    assert old["pair"].null_count == old["element"].null_count == len(table)


def test_duplicates_have_the_text_that_is_lost_otherwise(built: Build) -> None:
    table = built.duplicates()

    assert table.schema == DUPLICATES
    assert pa.compute.is_valid(table["pair"]).to_pylist() == [False, True]


LONG = "word " * 2000


def test_a_long_text_is_cut_around_its_passage(tiny: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [pair("q?", f"{LONG} User: hello {LONG}")])
    config = BuildConfig(
        inputs=[str(file)], tokenizer=str(tiny), out=tmp_path / "out", max_length=9999, text="chat"
    )
    shown = run("show", prefdata.build(config).path, "--code", "PD209").stdout

    assert "word  {!User:!} hello word" in shown
    assert len(shown) < 1500


def test_a_check_of_your_own_is_listed_by_its_name(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_listing.py").write_text(
        "def loud(row):\n    '''A side shouts.'''\n"
        "    return 'it shouts' if row['chosen'][0]['content'].isupper() else None\n"
    )
    monkeypatch.chdir(tmp_path)
    rows = [pair("one?", "Yes, one."), pair("two?", "YES")]
    config = BuildConfig(
        inputs=[str(write_rows(tmp_path / "rows.jsonl", rows))],
        tokenizer=str(tiny),
        out=tmp_path / "out",
        text="chat",
        checks={"own": {"my_listing:loud": {}}},
    )
    shown = run("show", prefdata.build(config).path, "--code", "my_listing:loud").stdout

    assert "loud: it shouts" in shown
    assert shown.endswith("1 kept pair with my_listing:loud\n")


def test_pages_have_the_rows_of_each_finding_with_passages_marked(
    built: Build, tmp_path: Path
) -> None:
    folder = tmp_path / "pages"
    shown = run("show", built.path, "--html", folder)
    assert shown.exit_code == 0, shown.output
    index = (folder / "index.html").read_text()

    codes = set(re.findall(r'href="code-(\w+)\.html"', index))
    assert {"PD202", "PD209", "PD213", "PD401", "PD402", "PD607", "R210"} <= codes
    pages = {code: (folder / f"code-{code}.html").read_text() for code in codes}
    assert "see <mark>&lt;|im_start|&gt;user</mark> now" in pages["PD213"]
    assert "Well. <mark>User:</mark> hello." in pages["PD209"]
    assert "My mail is <mark>….org</mark> today." in pages["PD607"]
    assert "jane.doe" not in pages["PD607"]
    assert "{&#34;prompt&#34;: &#34;six?&#34;" in pages["R210"]
    cluster = pages["PD402"].split('class="sides cluster"')[1]
    assert 0 < cluster.index("Yes, it does sleep.") < cluster.index("<mark>really does</mark>.")
    links = re.findall(r'href="index\.html#row-(\d+)"', index)
    assert links == [str(row) for row in range(len(links))]
    assert all(f'id="row-{row}"' in index for row in links)


def test_all_refused_rows_are_on_pages_of_their_own(
    built: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefdata.report.html.findings.MOST_ROWS", 2)
    shown = run("show", built.path, "--html", tmp_path / "pages")
    assert shown.exit_code == 0, shown.output
    first, second = (
        (tmp_path / "pages" / name).read_text() for name in ("refused.html", "refused-0002.html")
    )

    assert 'href="refused.html"' in (tmp_path / "pages" / "index.html").read_text()
    assert "<b>3</b> refused rows" in first
    places = [re.findall(r'<h2><code dir="auto">(.*?)</code>', page) for page in (first, second)]
    assert places == [["rows.jsonl:3", "rows.jsonl:5"], ["rows.jsonl:9"]]
    assert "see <mark>&lt;|im_start|&gt;user</mark> now" in first
    assert 'href="code-R210.html">R210</a>' in second
    assert 'href="refused-0002.html" rel="next"' in first


@pytest.fixture(scope="module")
def array(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a build of a JSON array with a copy, and near-duplicates that are only reported."""
    folder = tmp_path_factory.mktemp("array")
    rows = [pair("one?", "Yes."), *ROWS[5:7], pair("one?", "Yes."), pair("two?", "")]
    file = folder / "rows.json"
    file.write_text("[\n\n" + ",\n\n".join(json.dumps(row) for row in rows) + "]")
    config = BuildConfig(
        inputs=[str(file)], tokenizer=str(tiny), out=folder / "out", text="chat", test_fraction=0,
        near_duplicates={"threshold": 0.6},
    )  # fmt: skip
    return prefdata.build(config)


def test_near_duplicates_that_are_only_reported_are_shown_side_by_side(
    array: Build, tmp_path: Path
) -> None:
    shown = run("show", array.path, "--near").stdout
    assert "rows.json:7 (element 3)\n  PD402: similarity" in shown
    assert "to rows.json:5 (element 2), which is kept too\n" in shown
    assert all(f"Yes, it {text}." in shown for text in ("does sleep", "really does"))

    assert run("show", array.path, "--html", tmp_path / "pages").exit_code == 0
    page = (tmp_path / "pages" / "code-PD402.html").read_text()
    cluster = page.split('class="sides cluster"')[1]
    assert 0 < cluster.index("Yes, it does sleep.") < cluster.index("<mark>really does</mark>.")
    table = array.near_duplicates()
    assert table.schema == DUPLICATES
    assert table["pair"].null_count == len(table) == 1
    assert array.manifest.lines.kept == 3


def test_rows_of_a_json_array_have_their_line_and_number(array: Build, tmp_path: Path) -> None:
    shown = {
        view: run("show", array.path, *view.split()).stdout
        for view in ("--row 0", "--duplicates", "--rejected", "--code PD202")
    }
    page = tmp_path / "page.html"
    run("show", array.path, "--html", page)

    assert ", rows.json:3 (element 1)\n" in shown["--row 0"]
    assert (
        "rows.json:9 (element 4)\n  PD401: a copy of rows.json:3 (element 1),"
        in (shown["--duplicates"])
    )
    assert "rows.json:11 (element 5)" in shown["--rejected"]
    assert "rows.json:11 (element 5)" in shown["--code PD202"]
    assert "rows.json:7 (element 3)" in page.read_text()
    assert array.text("train")["element_line"].to_pylist() == [3, 5, 7]
    assert array.text("train")["line"].to_pylist() == [1, 2, 3]


def test_pairs_are_sorted_by_gap_or_margin(tiny: Path, tmp_path: Path) -> None:
    scores = [(3, 1), (9, 1), (5, 4), (None, None)]
    rows = [
        pair(f"{n}?", "Yes. " * (n + 1)) | {"score_chosen": high, "score_rejected": low}
        for n, (high, low) in enumerate(scores)
    ]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    config = BuildConfig(
        inputs=[str(file)], tokenizer=str(tiny), out=tmp_path / "out", text="chat", test_fraction=0
    )
    build = prefdata.build(config)
    prompts = [row["prompt"][0]["content"] for row in build.text("train").to_pylist()]

    assert [prompts[row] for row in rows_by(build, "length-gap", 9)] == ["3?", "2?", "1?", "0?"]
    assert [prompts[row] for row in rows_by(build, "margin", 9)] == ["2?", "0?", "1?"]
    page = tmp_path / "page.html"
    shown = run("show", build.path, "--html", page, "--sort", "margin", "--rows", "2")
    assert shown.output.endswith("shows 2 of 4 pairs\n")
    assert page.read_text().index('<div class="text" dir="auto">2?') < page.read_text().index("0?")


def test_a_sort_without_pages_or_margins_is_refused(built: Build, tmp_path: Path) -> None:
    assert "C121" in run("show", built.path, "--sort", "margin").output
    assert "C121" in run("show", built.path, "--rejected", "--sort", "margin").output
    refused = run("show", built.path, "--html", tmp_path / "page.html", "--sort", "margin")
    assert refused.exit_code == 2
    assert "has no pair with a margin" in refused.output


def test_fenced_code_is_marked_as_code_across_differences() -> None:
    text = "Try\n```python\nx = 1\n```\nor\n```\ny"
    spans = [Span(text[:16], differs=False), Span(text[16:], differs=True)]
    found = fenced(spans)

    assert "".join(one.text for one in found) == text
    code = "".join(one.text for one in found if one.code)
    assert code == "```python\nx = 1\n```" + "```\ny"
    assert "".join(one.text for one in found if one.differs) == text[16:]


def test_suspects_are_shown_in_the_order_of_their_file(built: Build, tmp_path: Path) -> None:
    rows = built.text("train").to_pylist()
    wanted = [rows[2]["pair_id"], "00" * 16, rows[0]["pair_id"], rows[2]["pair_id"]]
    file = tmp_path / "suspects.jsonl"
    file.write_text("".join(json.dumps({"pair_id": one, "margin": -1.0}) + "\n" for one in wanted))
    page = tmp_path / "page.html"
    shown = run("show", built.path, "--html", page, "--suspects", file)

    assert shown.output.endswith(f"shows 2 of {len(rows)} pairs\n")
    assert re.findall(r'id="row-(\d+)"', page.read_text()) == ["2", "0"]
    assert "C121" in run("show", built.path, "--suspects", file).output
    both = run("show", built.path, "--html", page, "--suspects", file, "--sort", "margin")
    assert "C121" in both.output
    for text, problem in (("{}\n", "is not a list of suspects"), ("", "has no pair of")):
        file.write_text(text)
        refused = run("show", built.path, "--html", page, "--suspects", file)
        assert (refused.exit_code, "E144" in refused.output) == (2, True)
        assert problem in " ".join(refused.output.split())
