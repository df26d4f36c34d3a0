"""Text of a build as an input: read back, it gives the same build again."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import prefdata
from prefdata.config import make_config
from prefdata.read import expand_inputs
from prefdata.records.schema import RECORDS
from prefdata.records.text import message_fields, text_table
from prefdata.store.reader import Build
from tests.prefdata.conftest import write_rows
from tests.prefdata.read.rows import read_file

OF_PLACE = ("source", "source_index", "line", "offset", "ordinal")
KEPT = [name for name in RECORDS.names if name not in OF_PLACE]
IDS = {"pair_id": "0" * 32, "group_id": "0" * 32}


def records_of(path: Path) -> pa.Table:
    (file,) = expand_inputs([str(path)])
    rows = read_file(file)
    assert rows.rejected.num_rows == 0, rows.rejected["message"].to_pylist()
    return rows.records


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
said = words.filter(str.strip)
calls = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {
                "name": st.just("f"),
                "arguments": st.dictionaries(words, st.none() | words, max_size=2),
            }
        ),
    }
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": said},
    optional={
        "name": words,
        "tool_calls": st.lists(calls, min_size=1, max_size=2),
        "tool_call_id": words,
        "reasoning": said,
    },
)
numbers = st.none() | st.floats(-1e6, 1e6, width=32)
ranks = st.none() | st.integers(1, 9)
extra = {
    "score_chosen": numbers,
    "score_rejected": numbers,
    "margin": numbers,
    "weight": st.floats(0, 8, width=32),
    "model_chosen": st.none() | said,
    "model_rejected": st.none() | said,
    "chosen_rank": ranks,
    "rejected_rank": ranks,
    "tools": st.none() | st.lists(calls, min_size=1, max_size=2).map(json.dumps),
    "meta": st.dictionaries(words, words | st.integers(-9, 9), max_size=2).map(json.dumps),
    "prefdata_form": st.sampled_from(["chat", "text"]),
}
sides = ("prompt", "chosen", "rejected")
chats = st.fixed_dictionaries(
    {side: st.lists(turns, min_size=1, max_size=3) for side in sides}, optional=extra
)
texts = st.fixed_dictionaries(dict.fromkeys(sides, said), optional=extra)


@pytest.mark.parametrize("rows", [chats, texts], ids=["chat", "text"])
def test_every_field_of_a_record_is_read_back(rows: st.SearchStrategy[dict[str, Any]]) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.lists(rows, min_size=1, max_size=4))
    def read_back(some: list[dict[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            first = write_rows(Path(folder) / "first.jsonl", [IDS | row for row in some])
            before = records_of(first)
            fields = () if rows is texts else message_fields(before)
            table = text_table(before, fields, has_verbatim=True)
            parquet.write_table(table, Path(folder) / "text.parquet")
            after = records_of(Path(folder) / "text.parquet")

        assert after.select(KEPT).to_pylist() == before.select(KEPT).to_pylist()

    read_back()


TEMPLATE = (
    "{{ tools }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.reasoning_content }}"
    "{{ m.content }}{{ m.tool_calls }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(folder: Path, inputs: list[Path], tokenizer: Path) -> Build:
    template = folder.parent / "template.jinja"
    template.write_text(TEMPLATE)
    values = {"inputs": [str(path) for path in inputs], "tokenizer": str(tokenizer)}
    values |= {"out": str(folder), "test_fraction": 0.0, "chat_template": str(template)}
    return prefdata.build(make_config(values, place="test"))


def text_of(made: Build) -> list[dict[str, Any]]:
    paths = sorted((made.path / "text").glob("*.parquet"))
    rows = [row for path in paths for row in parquet.read_table(path).to_pylist()]
    return [{k: v for k, v in row.items() if k not in OF_PLACE} for row in rows]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def bot(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


RANKED = [
    {
        "prompt": f"Name number {n}.",
        "completions": [
            {"text": f"{n}", "score": 9.5},
            {"text": "no", "score": 1},
            {"text": "x", "score": 4},
        ],
    }
    for n in range(8)
]
SCORED = [
    {
        "prompt": [{"role": "system", "content": "Be brief."}, user(f"Question {n}?")],
        "chosen": [bot(f"Answer {n}.", reasoning_content="hm")],
        "rejected": [bot(f"Reply {n}?")],
        "chosen_score": 8,
        "rejected_score": 3 + n / 4,
        "margin": 0.5,
        "mood": "calm",
    }
    for n in range(8)
]
CALLED = [
    {
        "prompt": [user(f"Light {n}?")],
        "chosen": [
            bot("", tool_calls=[{"function": {"name": "f", "arguments": {"z": n, "a": None}}}]),
            {"role": "tool", "content": "on", "name": "f"},
            bot("It is on."),
        ],
        "rejected": [bot(f"No {n}.")],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": 2}}}],
    }
    for n in range(8)
]
PLAIN = [
    {"prompt": f"The number {n} is", "chosen": f" {n}.", "rejected": " odd."} for n in range(8)
]
SETS = {
    "ranked": [RANKED],
    "scores, margins, meta": [SCORED],
    "tools and masks": [CALLED],
    "verbatim text": [PLAIN],
    "chat and text together": [SCORED, PLAIN],
}


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS.keys())
def test_a_build_of_a_builds_text_is_the_same(
    tmp_path: Path, tiny: Path, sets: list[list[dict[str, Any]]]
) -> None:
    inputs = [write_rows(tmp_path / f"{n}.jsonl", rows) for n, rows in enumerate(sets)]

    first = build(tmp_path / "first", inputs, tiny)
    shards = sorted((first.path / "text").glob("*.parquet"))
    second = build(tmp_path / "second", shards, tiny)

    assert text_of(second) == text_of(first)
    assert second.tokens("train").to_pylist() == first.tokens("train").to_pylist()
    assert not [one for one in second.manifest.inputs[0].reading.not_read if one.means]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_text_that_another_tool_wrote_again_is_read_back(
    tmp_path: Path, tiny: Path, form: str
) -> None:
    polars = pytest.importorskip("polars")
    first = build(tmp_path / "first", [write_rows(tmp_path / "a.jsonl", SCORED)], tiny)
    (shard,) = (first.path / "text").glob("*.parquet")
    path, rows = tmp_path / f"again.{form}", parquet.read_table(shard).to_pylist()
    if form == "csv":
        texts = [{k: str(v) if k in sides else v for k, v in row.items()} for row in rows]
        polars.DataFrame(texts, infer_schema_length=None).write_csv(path)
    else:
        write_rows(path, rows)

    second = build(tmp_path / "second", [path], tiny)

    assert text_of(second) == text_of(first)
