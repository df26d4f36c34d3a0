"""A report shows three rows of each finding with the passages marked, and nothing private."""

import json
from pathlib import Path
from typing import Any

import pytest

import prefdata
import prefdata.report.form
from prefdata.config import BuildConfig
from prefdata.report.excerpts import MOST_ROWS, cut_excerpt, raw_excerpts
from prefdata.report.html.page import render_report
from prefdata.report.model import Finding, Report
from prefdata.stages.excerpts import full_report
from prefdata.store.reader import Build
from tests.prefdata.conftest import write_rows

STORY = "the quick brown fox jumps over the lazy dog and then it sleeps on the old red mat "
MAIL = "jane.doe@corp.org"


def pair(prompt: str, chosen: Any, rejected: Any = "No.") -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


ROWS = [
    *(pair(f"{n}?", "") for n in range(5)),  # PD202
    pair("one?", "Yes, one."),
    pair("two?", f"{STORY * 9} Well. User: hello {STORY * 9}"),  # PD209
    pair("one?", "Yes, one."),  # PD401
    pair("four?", f"{MAIL} <|im_start|>user now"),  # PD213
    pair(STORY + "one?", "Yes, it does sleep."),
    pair(STORY + "one!", "Yes, it really does."),  # PD402
    pair("five?", f"My mail is {MAIL} today."),  # PD607
    pair(f"six {MAIL}?", 6),  # R210
    pair("seven?", "So it is.", " So it is. "),  # PD301
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("excerpts") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def built(rows: Path, tiny: Path) -> Build:
    config = BuildConfig(
        inputs=[str(rows)], tokenizer=str(tiny), out=rows.parent / "out", text="chat",
        near_duplicates={"threshold": 0.6},
    )  # fmt: skip
    return prefdata.build(config)


def shown(finding: Finding) -> list[list[str]]:
    """Return the texts of a finding's rows, their marked passages in braces."""
    return [
        [
            "".join(f"{{{piece}}}" if marked else piece for piece, marked in one.pieces)
            for one in example.excerpts
        ]
        for example in finding.examples
    ]


def by_code(report: Report) -> dict[str, Finding]:
    return {one.code: one for one in report.findings}


EXPECTED = {
    "PD202": ["0?", "{}", "No."],
    "PD213": ["four?", "….org {<|im_start|>user} now", "No."],
    "PD301": ["seven?", "{So it is.}", "{ So it is. }"],
    "PD401": ["one?", "Yes, one.", "No."],
    "PD607": ["five?", "My mail is {….org} today.", "No."],
    "R210": ['{"prompt": "six ….org?", {"chosen"}: 6, "rejected": "No."}'],
}


def test_each_finding_of_a_validation_has_three_rows(rows: Path) -> None:
    options = prefdata.ValidateOptions(text="chat", excerpts=True)
    found = by_code(prefdata.validate(str(rows), options))

    assert [bool(one) for one in shown(found["PD202"])] == [True] * MOST_ROWS + [False] * 2
    for code, texts in EXPECTED.items():
        assert shown(found[code])[0] == texts, code
    (long,) = shown(found["PD209"])
    assert "mat  Well. {User:} hello the" in long[1]
    assert long[1].startswith("…")
    assert long[1].endswith("…")
    assert not shown(by_code(prefdata.validate(str(rows)))["PD202"])[0]


def test_the_page_of_a_build_has_the_same_rows_with_marks(built: Build) -> None:
    page = (built.path / "report.html").read_text()

    for finding in full_report(built).findings:
        part = page.split(f'id="{finding.code}-{finding.severity}"')[1].split("</article>")[0]
        num = min(finding.count, MOST_ROWS)
        assert part.count('<dl class="excerpts">') == num > 0, finding.code
        assert EXPECTED.get(finding.code, shown(finding)[0]) == shown(finding)[0]
    assert "….org <mark>&lt;|im_start|&gt;user</mark> now" in page
    assert "<mark>empty</mark>" in page
    assert MAIL not in page


def test_what_is_shared_has_no_text_of_refused_rows(built: Build) -> None:
    shared = by_code(prefdata.report.form.report_of(built))

    for code in ("PD202", "PD213", "PD301", "R210"):
        assert not any(shown(shared[code]))
    assert shown(shared["PD607"])[0] == EXPECTED["PD607"]
    page = render_report(prefdata.report.form.report_of(built))
    assert "im_start" not in page.split("<h2>Inputs")[0]
    assert "report.html" not in {file.path for file in built.manifest.files}


@pytest.mark.parametrize(
    ("raw", "message", "expected"),
    [
        (b'{"a": tru}', "unexpected character at byte 9 of the row", '{"a": tru{}}'),
        (b'{"a": tru', "unexpected end of data at byte 9 of the row", '{"a": tr{u}'),
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice in one object", '{{"a"}: 1, "a": 2}'),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 7 of the row", '{"a": "{\\xff}"}'),
        (b"", "not JSON", ""),
        (
            b'["so it begins and ends", "so it begins and stops"]',
            'they differ: "…gins and ends" against "…gins and stops"',
            '["so it be{gins and ends}", "so it be{gins and stops}"]',
        ),
    ],
)
def test_a_row_that_is_not_read_is_marked_where_its_message_says(
    raw: bytes, message: str, expected: str
) -> None:
    found = Finding.model_validate(
        {"code": "R201", "name": "x", "severity": "E", "count": 1, "share": 1, "meaning": "",
         "advice": "", "examples": [{"source": "a", "line": 1, "message": message,
                                     "excerpts": raw_excerpts(raw, message)}]}
    )  # fmt: skip

    assert shown(found) == [[expected]]


def test_private_data_at_the_edge_of_an_excerpt_is_left_out() -> None:
    key = "AKIAQ4J7XW2LZ5TB3NGH"
    for before in range(200, 260):
        text = "x " * (before // 2) + key + " now"
        found = cut_excerpt(text, [], part="chosen").text
        assert not any(key[at : at + 6] in found for at in range(len(key) - 10)), before


def test_the_json_of_a_report_has_excerpts_only_of_the_first_rows(built: Build) -> None:
    value = json.loads((built.path / "report.json").read_text())

    for finding in value["findings"]:
        assert not any(example["excerpts"] for example in finding["examples"][MOST_ROWS:])
