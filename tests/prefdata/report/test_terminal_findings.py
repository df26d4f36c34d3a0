"""Findings on the terminal: the reason, the row and the remedy, whole at 80 columns."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import prefdata
from prefdata.cli import main
from prefdata.report.terminal import print_report
from prefdata.validation import ValidateOptions, validate
from tests.prefdata.conftest import save_tokenizer, write_rows


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def printed(*files: Path) -> str:
    console = Console(width=80, color_system=None, force_terminal=False)
    with console.capture() as captured:
        print_report(prefdata.validate([str(file) for file in files]), console)
    return captured.get()


def pair(prompt: str, chosen: str, rejected: str = "No.") -> dict[str, object]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_the_reason_the_row_and_the_remedy_are_on_screen(tmp_path: Path) -> None:
    folder = tmp_path / ("a-long-name-of-a-directory" * 3)
    folder.mkdir()
    file = write_rows(folder / "rows.jsonl", [pair("one?", "Yes."), pair("two?", " ")])
    lines = printed(file).splitlines()
    at = lines.index("PD202 error blank_completion: 1 pair (50.0%)")

    assert lines[at + 1] == f"    {file}:2"
    assert lines[at + 2].strip() == "chosen has only spaces or line breaks"
    assert lines[at + 3].strip().startswith("What to do: Remove the row")
    assert all(len(line) <= 80 for line in lines if str(file) not in line)


def test_errors_come_first_then_the_larger_share(tmp_path: Path) -> None:
    rows = [pair(f"{n}?", f"Yes {n}.") for n in range(6)]
    rows += [pair("same?", "No."), pair("blank?", ""), pair("empty?", "")]
    rows += [pair("speaker?", "No. User: x"), pair("speaker too?", "No. User: y")]
    rows += [pair("odd?", "a caf\ufffd")]
    found = printed(write_rows(tmp_path / "rows.jsonl", rows))
    codes = [line.split()[0] for line in found.splitlines() if line.startswith("PD")]

    assert codes == ["PD202", "PD301", "PD209", "PD106"]


def test_rows_and_pairs_are_named_as_what_they_are(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": "q", "chosen": "a", "rejected": ["b", "c", ""]},
        {"prompt": "p", "chosen": "a", "rejected": 3},
    ]
    found = printed(write_rows(tmp_path / "rows.jsonl", rows))

    assert "R210 error wrong_type: 1 row (50.0%)" in found
    assert "PD202 error blank_completion: 1 pair (33.3%)" in found


def test_a_place_in_a_json_array_is_its_line_with_the_element_beside_it(tmp_path: Path) -> None:
    rows = [pair("one?", "Yes."), pair("two?", ""), pair("three?", "No.")]
    file, report = tmp_path / "rows.json", tmp_path / "report.sarif"
    file.write_text(json.dumps(rows, indent=2))
    lines = file.read_text().splitlines()
    starts = [number for number, line in enumerate(lines, 1) if line.strip() == "{"]
    result = run("validate", file, "--report", report)
    results = json.loads(report.read_text())["runs"][0]["results"]
    regions = [one["locations"][0]["physicalLocation"]["region"] for one in results]

    assert f"{file}:{starts[1]} (element 2)" in result.stdout
    assert [region["startLine"] for region in regions] == starts[1:]
    for region in regions:
        before = file.read_bytes()[: region["byteOffset"]]
        assert before.count(b"\n") + 1 == region["startLine"]
    assert results[0]["message"]["text"].endswith("(element 2)")


def test_elements_on_one_line_are_counted_and_named_apart(tiny: Path, tmp_path: Path) -> None:
    rows = [pair("one?", "Yes."), pair("two?", ""), pair("three?", ""), pair("four?", "Yes.")]
    file, out = tmp_path / "rows.json", tmp_path / "out"
    file.write_text(json.dumps(rows))
    built = run("build", file, "--tokenizer", tiny, "-o", out)
    rejected = prefdata.open(out).rejected().to_pylist()

    assert "rows.json:1 (element 2)" in built.stdout
    assert [(row["line"], row["element"]) for row in rejected] == [(1, 2), (1, 3)]
    assert prefdata.open(out).manifest.lines.kept == 2


@pytest.mark.parametrize("cut", [1, 7, 64 * 1024])
def test_lines_of_elements_do_not_depend_on_how_the_file_is_read(cut: int) -> None:
    from prefdata.read import Limits
    from prefdata.read.files.json_array import array_blocks
    from prefdata.read.files.jsonl import Tally

    data = b'[\n\n{"a": "\\\\"},\n  {"b":\n 1}\n,{"c": "\\n"}, {"d": "x\\"y"}\n]'
    chunks = (data[at : at + cut] for at in range(0, len(data), cut))
    tally = Tally()
    blocks = array_blocks(chunks, "rows.json", Limits(), tally)
    found = [(one.line, one.data[2:3]) for block in blocks for one in block.elements]

    assert found == [(3, b"a"), (4, b"b"), (6, b"c"), (6, b"d")]
    assert list(tally.element_lines) == [3, 4, 6, 6]


def test_a_warning_about_tokens_has_its_row(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(
        tmp_path / "t", template="{% for m in messages %}{{ m.content }} {% endfor %}"
    )
    rows = [pair(f"the dog {n}?", f"the quick fox {n}") for n in range(8)]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "out"
    validated = run("validate", file, "--tokenizer", tokenizer, "--text", "chat")
    built = run("build", file, "--tokenizer", tokenizer, "--text", "chat", "-o", out)
    listed = run("show", out, "--code", "PD705")

    for shown, name in ((validated.stdout, str(file)), (built.stdout, "rows.jsonl")):
        assert f"PD705 warning missing_end: 8 pairs (100%)\n    {name}:1\n" in shown
    assert "rows.jsonl:2\n  PD705:" in listed.stdout
    assert "prompt user: the dog 1?" in listed.stdout
    assert listed.stdout.endswith("8 pairs with PD705; the first 5 are shown\n")


def test_the_first_pair_of_a_json_array_has_its_line_and_its_element(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "chosen": "a", "rejected": ""}]
    rows.append({"prompt": "Name it", "chosen": "b", "rejected": "c"})
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=1))

    report = validate([str(path)], ValidateOptions(workers=1))

    assert report.inputs[0].first_place == f"{path}:7 (element 2)"
