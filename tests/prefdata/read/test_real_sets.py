"""Real files, if they are present next to the project: every line is accounted for."""

import gzip
from collections import Counter
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from prefdata.check import RowChecks, examine_rows
from prefdata.dedup import find_contradictions, find_copies
from prefdata.read import expand_inputs
from prefdata.records.keys import keys_of
from prefdata.validation import ValidateOptions, validate
from tests.prefdata.read.rows import FileRows, read_file
from tests.real_data import HH_WHOLE, WHOLE, find_hh


def real(path: Path) -> FileRows:
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    (file,) = expand_inputs([str(path)])
    return read_file(file)


def test_hh_counts_are_the_measured_ones() -> None:
    rows = real(HH_WHOLE)
    seen = examine_rows(rows.records, RowChecks.of())
    kept, refused = seen.kept, seen.refused

    assert (rows.layout, rows.counts.lines, rows.counts.blank) == ("hh", 2312, 0)
    assert set(rows.rejected["code"].to_pylist()) == {"PD207"}
    assert rows.rejected["line"].to_pylist() == [1255, 1689, 1951, 1953, 2037]
    assert set(refused["code"].to_pylist()) == {"PD202"}
    assert refused["line"].to_pylist() == [87, 517, 926, 1104]
    assert kept.num_rows == 2303
    assert find_copies(keys_of(kept)).is_empty()
    assert find_contradictions(keys_of(kept)).is_empty()


def test_hh_text_is_kept_letter_by_letter() -> None:
    def spelled(turns: list[dict[str, str]]) -> str:
        names = {"user": "Human", "assistant": "Assistant"}
        return "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in turns)

    rows = real(find_hh())
    lines = gzip.decompress(find_hh().read_bytes()).split(b"\n")
    for record in rows.records.to_pylist():
        raw = orjson.loads(lines[record["line"] - 1])
        for side in ("chosen", "rejected"):
            whole = spelled(record["prompt"] + record[side])
            # only a marker without its space is not reproduced
            assert whole == raw[side] or whole.replace(": ", ":") == raw[side].replace(": ", ":")


def test_hh_sides_with_two_turns_of_one_role_are_thirteen() -> None:
    rows = real(HH_WHOLE)
    twice = 0
    for record in rows.records.to_pylist():
        for side in ("chosen", "rejected"):
            roles = [turn["role"] for turn in record["prompt"] + record[side]]
            twice += any(a == b for a, b in pairwise(roles))

    assert twice == 13 - 5  # five of the thirteen are in rows whose prompts differ


@pytest.mark.parametrize(("language", "duplicates"), [("en", 5), ("zh", 11)])
def test_llama_factory_demo_is_read_whole(language: str, duplicates: int) -> None:
    rows = real(WHOLE / "llamafactory-demo" / f"dpo_{language}_demo.json")
    seen = examine_rows(rows.records, RowChecks.of())
    kept, refused = seen.kept, seen.refused

    assert (rows.layout, rows.counts.lines, rows.counts.pairs) == ("sharegpt-ranking", 300, 300)
    assert refused.num_rows == 0
    assert len(find_copies(keys_of(kept))) == duplicates


def test_alpaca_pairs_have_six_identical_ones() -> None:
    rows = real(WHOLE / "llms-from-scratch-pref" / "instruction-data-with-preference.json")
    refused = examine_rows(rows.records, RowChecks.of()).refused

    assert (rows.layout, rows.counts.lines, rows.counts.pairs) == ("alpaca", 1100, 1100)
    assert Counter(refused["code"].to_pylist()) == {"PD301": 6}


def measured_row(path: Path) -> str:
    """Return the row of docs/layouts.md for a real file, with new counts."""
    rows = real(path)
    report = validate([str(path)], ValidateOptions(workers=1))
    ties = rows.rejected["code"].to_pylist().count("PD303")
    groups = len(set(rows.records["group_id"].to_pylist()))
    found = sorted(report.findings, key=lambda finding: finding.code)
    codes = ", ".join(f"{finding.code} × {finding.count:,}" for finding in found) or "none"
    numbers = [report.lines.lines, groups, rows.counts.pairs, ties]
    numbers += [report.lines.kept, report.lines.duplicates, report.lines.rejected]
    counted = " | ".join(f"{number:,}" for number in numbers)
    return f"| `{path.name}` | `{rows.layout}` | {counted} | {codes} |"


@pytest.mark.parametrize(
    "name",
    [
        "hh-rlhf-harmless-base-test/test.jsonl.gz",
        "llamafactory-demo/dpo_en_demo.json",
        "llamafactory-demo/dpo_zh_demo.json",
        "llamafactory-demo/kto_en_demo.json",
        "llms-from-scratch-pref/instruction-data-with-preference.json",
        "openassistant-en100/en_100_tree.jsonl.gz",
        "openassistant-en100/en_100_message.jsonl.gz",
    ],
)
def test_the_docs_have_the_counts_of_a_real_file(name: str) -> None:
    docs = (Path(__file__).resolve().parents[3] / "docs" / "layouts.md").read_text()

    assert measured_row(WHOLE / name) in docs.splitlines()


def test_both_exports_of_the_same_trees_give_the_same_pairs() -> None:
    trees, messages = (
        real(WHOLE / "openassistant-en100" / f"en_100_{kind}.jsonl.gz")
        for kind in ("tree", "message")
    )

    assert trees.records["pair_id"] == messages.records["pair_id"]


def test_a_file_of_single_messages_gives_the_pairs_of_its_trees(tmp_path: Path) -> None:
    path = WHOLE / "openassistant-en100" / "en_100_message.jsonl.gz"
    trees = real(path)
    flat: list[bytes] = []
    for line in gzip.decompress(path.read_bytes()).splitlines():
        waiting = [orjson.loads(line)]
        tree = waiting[0]["message_id"]
        while waiting:
            node = waiting.pop()
            waiting += node.pop("replies")
            flat.append(orjson.dumps(node | {"message_tree_id": tree}))
    (tmp_path / "flat.jsonl").write_bytes(b"\n".join(flat[::-1]))  # answers before their questions

    rows = real(tmp_path / "flat.jsonl")

    assert rows.layout == "oasst-flat"
    assert set(rows.records["pair_id"].to_pylist()) == set(trees.records["pair_id"].to_pylist())
    report = validate([str(tmp_path / "flat.jsonl")], ValidateOptions(workers=1))
    assert report.lines.lines == len(flat)
    assert report.lines.kept + report.lines.rejected == len(flat)
