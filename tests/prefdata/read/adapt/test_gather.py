"""Rows that give pairs only together: every line is kept, or refused with a code."""

import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdata.read import Layout, Limits, Pairing, load_layout, shipped_layouts
from prefdata.read.adapt.adapter import Adapter
from prefdata.read.faults import RowError
from prefdata.validation import ValidateOptions, validate
from tests.prefdata.read.rows import FileRows

Read = Callable[..., FileRows]


def unpaired(prompt: str, completion: str, label: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "label": label}


def jsonl(*rows: Any) -> bytes:
    return b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows)


def sides(rows: FileRows) -> list[tuple[str, str]]:
    return [
        (r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows.records.to_pylist()
    ]


def test_each_good_completion_is_preferred_to_each_bad_one_of_its_prompt(read: Read) -> None:
    rows = read(
        jsonl(
            unpaired("p", "a", True),
            unpaired("q", "x", True),
            unpaired("p", "b", False),
            unpaired("p", "c", True),
            unpaired("q", "y", False),
        )
    )

    assert sides(rows) == [("a", "b"), ("c", "b"), ("x", "y")]
    assert rows.records["line"].to_pylist() == [1, 4, 2]
    assert rows.members.rows() == [(1, 0, 3), (4, 0, 3), (2, 0, 5)]
    assert rows.counts.rejected == 0


def test_a_prompt_with_one_label_is_refused_row_by_row(read: Read) -> None:
    content = jsonl(unpaired("p", "a", True), unpaired("p", "b", True), unpaired("q", "x", False))

    rows = read(content)

    refused = [(row["line"], row["code"], row["raw"]) for row in rows.rejected.to_pylist()]
    messages = rows.rejected["message"].to_pylist()
    assert "same label" in messages[0]
    assert "no other row" in messages[2]
    lines = content.split(b"\n")
    assert refused == [(n, "R213", lines[n - 1]) for n in (1, 2, 3)]


def test_only_the_faulty_row_of_a_group_is_refused(read: Read) -> None:
    rows = read(
        jsonl(
            unpaired("p", "a", True),
            b"{broken",
            unpaired("p", "b", "maybe"),
            [1],
            b"",
            unpaired("p", "c", False),
        ),
        layout=load_layout("trl-unpaired"),
    )

    assert sides(rows) == [("a", "c")]
    refused = {row["line"]: row["code"] for row in rows.rejected.to_pylist()}
    assert refused == {2: "R201", 3: "R210", 4: "R209"}
    assert (rows.counts.lines, rows.counts.blank) == (6, 1)


def test_rows_of_a_group_need_not_be_adjacent(read: Read) -> None:
    low, high = shipped_layouts()["helpsteer2-ratings"].fixture.rows

    rows = read(jsonl(low, high | {"prompt": "other"}, low | {"prompt": "other"}, high))

    assert sides(rows) == [("It is blue.", "It is green.")] * 2


def test_rows_that_a_strategy_draws_are_kept_and_the_others_refused(read: Read) -> None:
    row = shipped_layouts()["helpsteer2-ratings"].fixture.rows[0]
    content = jsonl(*(row | {"response": str(n), "helpfulness": n} for n in (0, 1, 2)))

    best = read(content)
    every = read(content, pairing=Pairing(strategy="all"))

    assert sides(best) == [("2", "0")]
    (refused,) = best.rejected.to_pylist()
    assert (refused["line"], refused["code"]) == (2, "R213")
    assert "strategy" in refused["message"]
    assert sides(every) == [("2", "1"), ("2", "0"), ("1", "0")]
    assert every.rejected.num_rows == 0


def test_prompts_completions_and_pairs_are_counted(read: Read) -> None:
    nectar = shipped_layouts()["nectar"].fixture.rows[0]

    rows = read(jsonl(nectar, nectar, nectar | {"answers": []}), pairing=Pairing(strategy="all"))

    assert rows.notes == ("2 prompts with 6 completions gave 6 pairs",)


def message(name: str, parent: str | None, **more: Any) -> dict[str, Any]:
    row = {"message_id": name, "parent_id": parent, "message_tree_id": "t", "text": name}
    return row | {"role": "assistant" if parent else "prompter", "rank": None} | more


def test_messages_whose_parents_are_missing_or_form_a_cycle_are_refused(read: Read) -> None:
    rows = read(
        jsonl(
            message("root", None),
            message("a", "root", rank=0),
            message("b", "root", rank=1),
            message("b", "root", rank=2),
            message("lost", "nowhere", rank=0),
            message("below", "lost", rank=0),
            message("x", "y"),
            message("y", "x"),
        )
    )

    assert sides(rows) == [("a", "b")]
    assert [row["line"] for row in rows.rejected.to_pylist()] == [4, 5, 6, 7, 8]
    assert set(rows.rejected["code"].to_pylist()) == {"R213"}
    assert sorted(rows.members["member"]) == [1, 3]


def test_messages_below_a_refused_one_or_too_deep_are_refused(read: Read) -> None:
    chain = [message(f"m{n}", f"m{n - 1}" if n else None, rank=0) for n in range(500)]
    rivals = [message(f"r{n}", f"m{n - 1}", rank=1) for n in range(1, 500)]
    broken = [row | {"text": 7} if row["message_id"] == "m30" else row for row in chain]

    deep, cut = read(jsonl(*chain, *rivals)), read(jsonl(*broken, *rivals))

    assert (deep.records.num_rows, cut.records.num_rows) == (64, 29)
    for rows, num_pairs in ((deep, 64), (cut, 29)):
        refused = {row["line"] for row in rows.rejected.to_pylist()}
        assert len(refused) == 999 - 2 * num_pairs - 1


def test_a_prompt_of_a_tree_without_ranks_is_refused_by_itself(read: Read) -> None:
    row = dict(shipped_layouts()["oasst-trees"].fixture.rows[0])
    answer, *others = row["prompt"]["replies"]
    row["prompt"] = row["prompt"] | {"replies": [answer | {"rank": None}, *others]}

    rows = read(jsonl(row))

    assert sides(rows) == [("Blue too.", "Red.")]
    (refused,) = rows.rejected.to_pylist()
    assert (refused["code"], refused["ordinal"]) == ("R211", 0)
    assert rows.records["ordinal"].to_pylist() == [1]


labels = st.sampled_from([True, False, True, False, None, "x"])
some_rows = st.lists(
    st.one_of(
        st.builds(unpaired, st.sampled_from("pq"), st.sampled_from("abcd"), labels).map(jsonl),
        st.sampled_from([b"", b"{", b"[1]"]),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(content=some_rows)
def test_every_line_is_counted_once(content: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(b"\n".join([jsonl(unpaired("p", "a", True)), *content]) + b"\n")
        report = validate([str(path)], ValidateOptions(layout="trl-unpaired", workers=1))

    lines = report.lines
    assert lines.lines == 1 + len(content)
    assert lines.lines == lines.blank + lines.kept + lines.duplicates + lines.rejected


def test_a_row_is_a_duplicate_if_all_its_pairs_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [unpaired("p", "a", True), unpaired("p", "b", False), unpaired("p", "a", True)]
    path.write_bytes(jsonl(*rows))

    lines = validate([str(path)], ValidateOptions(workers=1)).lines

    assert (lines.kept, lines.duplicates, lines.rejected) == (2, 1, 0)


def test_layouts_and_faults_can_be_pickled() -> None:
    for layout in shipped_layouts().values():
        assert pickle.loads(pickle.dumps(layout)) == layout
    fault = pickle.loads(pickle.dumps(RowError("R213", "alone")))
    assert (fault.code, fault.message, str(fault)) == ("R213", "alone", "alone [R213]")


def test_reading_a_row_does_not_change_it() -> None:
    for layout in shipped_layouts().values():
        if layout.gather or layout.tree or layout.refuse:
            continue
        chosen: Layout = layout.by(next(iter(layout.dimensions))) if layout.dimensions else layout
        for row in layout.fixture.rows:
            before = orjson.dumps(row)
            with suppress(RowError):
                adapter = Adapter(chosen, Pairing(), Limits())
                adapter.read_whole(adapter.check(row))
            assert orjson.dumps(row) == before
