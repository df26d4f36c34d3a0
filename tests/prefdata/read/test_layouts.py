"""Every shipped layout reads its own fixture; a user's layout is a file of the same form."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from prefdata.errors import UsageError
from prefdata.read import Pairing, detect_layout, load_layout, shipped_layouts
from prefdata.read.detect import likely
from tests.prefdata.read.rows import FileRows

Read = Callable[..., FileRows]

SIDES = ("prompt", "chosen", "rejected")


def shown(record: dict) -> dict:
    """Return a record as in fixtures: messages without nulls, other fields if they are set."""
    sides = {
        side: [{k: v for k, v in turn.items() if v is not None} for turn in record[side]]
        for side in SIDES
    }
    names = ("score_chosen", "score_rejected", "margin", "model_chosen", "model_rejected")
    names += ("chosen_rank", "rejected_rank")
    return sides | {name: record[name] for name in names if record[name] is not None}


def jsonl(rows: list[dict]) -> bytes:
    return b"\n".join(orjson.dumps(row) for row in rows)


def readable(name: str) -> str:
    """Return the layout's name, with its first dimension if no dimension is in force."""
    layout = shipped_layouts()[name]
    free = layout.dimensions and not layout.dimension
    return f"{name}:{next(iter(layout.dimensions))}" if free else name


ALL = shipped_layouts()
REFUSED = [name for name, layout in ALL.items() if layout.refuse]


@pytest.mark.parametrize("name", [name for name in ALL if name not in REFUSED])
def test_a_layout_reads_its_fixture(read: Read, name: str) -> None:
    layout = load_layout(readable(name))

    rows = read(jsonl(layout.fixture.rows), layout=layout)

    assert [shown(record) for record in rows.records.to_pylist()] == layout.fixture.pairs
    assert rows.records["form"].to_pylist() == [layout.form] * len(layout.fixture.pairs)
    assert rows.counts.extra_keys == {}


def detected(rows: list[dict]) -> str:
    """Return the name of the detected layout, also if it requires a dimension or column."""
    fits = likely(rows)
    assert len(fits) == 1, [fit.layout.name for fit in fits]
    return fits[0].layout.name


@pytest.mark.parametrize("name", [n for n, layout in ALL.items() if layout.detect])
def test_a_layout_is_detected_by_its_fixture_and_by_each_row_of_it(name: str) -> None:
    rows = ALL[name].fixture.rows

    assert detected(rows) == name
    assert [detected([row]) for row in rows] == [name] * len(rows)


@pytest.mark.parametrize("name", [n for n, layout in ALL.items() if layout.detect])
def test_one_odd_row_does_not_change_the_detected_layout(name: str) -> None:
    assert detected(ALL[name].fixture.rows[:1] * 9 + [{"note": "odd"}]) == name


@pytest.mark.parametrize("name", [n for n, layout in ALL.items() if not layout.detect])
def test_an_undetectable_layout_is_detected_as_the_layout_that_its_reason_names(name: str) -> None:
    assert detected(ALL[name].fixture.rows) in ALL[name].detect_why


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_that_cannot_be_read_is_an_error_that_says_why(name: str) -> None:
    with pytest.raises(UsageError, match=r"\[PD102\]$") as caught:
        detect_layout(ALL[name].fixture.rows)
    assert ALL[name].refuse in str(caught.value)


def test_a_layout_of_several_dimensions_asks_for_one() -> None:
    rows = ALL["pku-saferlhf"].fixture.rows

    with pytest.raises(UsageError, match=r"--layout pku-saferlhf:better or pku-saferlhf:safer"):
        detect_layout(rows)
    with pytest.raises(UsageError, match=r"no dimension 'kinder'.*\[C153\]$"):
        load_layout("pku-saferlhf:kinder")


@pytest.mark.parametrize("name", ALL)
def test_a_file_of_a_layout_has_its_name(name: str) -> None:
    assert ALL[name].name == name


UNKNOWN = {
    "other names": {"question": "q", "good": "a", "bad": "b"},
    "a tag that is text": {"prompt": "q", "completion": "a", "label": "good"},
    "sides of two types": {"prompt": "q", "chosen": "a", "rejected": [{"role": "assistant"}]},
}


@pytest.mark.parametrize("row", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_layout_is_an_error_that_says_how_to_force_one(row: dict) -> None:
    with pytest.raises(
        UsageError, match=r"layout.*columns|columns.*layout.*--layout NAME.*\[PD102\]$"
    ):
        detect_layout([row] * 3)


def test_a_column_with_text_next_to_two_answers_is_likely_the_prompt() -> None:
    row = {"question": "q", "chosen": "a", "rejected": "b"}

    with pytest.raises(UsageError, match=r"`question` .*--prompt-column question.*\[PD102\]$"):
        detect_layout([row] * 3)


def test_columns_of_two_layouts_are_ambiguous() -> None:
    both = {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
        "prompt": "q",
        "completions": [{"text": "a"}],
        "instruction": "q",
    }
    ranked = {"prompt": "q", "completions": [], "chosen": "a", "rejected": "b"}
    alpaca = ranked | {"instruction": "q"}

    with pytest.raises(UsageError, match=r"alpaca \(100% of the rows\) or trl-std.*\[PD102\]$"):
        detect_layout([alpaca])
    assert detect_layout([both]).name == "sharegpt-ranking"


OWN = """
name: arena
about: two answers and a vote, in columns of their own
columns: {q: text, answer_a: text, answer_b: text, vote: any}
prompt: q
system: persona
candidates:
  items: [answer_a, answer_b]
  label: {column: vote, map: {a: 0, b: 1, "0": tie}}
fixture:
  rows: [{q: q, answer_a: x, answer_b: y, vote: b}]
  pairs: []
"""


def test_a_layout_of_ones_own_is_a_file(read: Read, tmp_path: Path) -> None:
    (tmp_path / "arena.yaml").write_text(OWN)
    row = {"q": "q", "answer_a": "x", "answer_b": "y", "persona": "be kind"}
    votes = ["a", "b", 0, "c", None]

    rows = read(
        b"\n".join(orjson.dumps(row | {"vote": vote}) for vote in votes),
        layout=load_layout(str(tmp_path / "arena.yaml")),
    )

    assert pairs_of(rows) == [("x", "y"), ("y", "x")]
    assert [turn["role"] for turn in rows.records["prompt"][0].as_py()] == ["system", "user"]
    assert rows.rejected["code"].to_pylist() == ["PD303", "R210", "R211"]


def test_the_example_of_the_docs_reads_its_fixture(read: Read, tmp_path: Path) -> None:
    docs = Path(__file__).resolve().parents[3] / "docs" / "layouts.md"
    (tmp_path / "docs.yaml").write_text(docs.read_text().split("```yaml\n")[1].split("```")[0])
    layout = load_layout(str(tmp_path / "docs.yaml"))

    rows = read(jsonl(layout.fixture.rows), layout=layout)

    (record,) = rows.records.to_pylist()
    assert {side: shown(record)[side] for side in SIDES} == layout.fixture.pairs[0]


def test_every_shipped_layout_is_in_the_docs() -> None:
    docs = (Path(__file__).resolve().parents[3] / "docs" / "layouts.md").read_text()

    assert [name for name in shipped_layouts() if f"| `{name}` |" not in docs] == []


BROKEN = {
    "an unknown key": (OWN.replace("system:", "sistem:"), "sistem"),
    "no order": (OWN.replace('label: {column: vote, map: {a: 0, b: 1, "0": tie}}', ""), "order"),
    "sides and candidates": (OWN.replace("prompt: q\n", "prompt: q\nchosen: a\n"), "either"),
    "not YAML": ("a: [", "not YAML"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_layout_is_one_coded_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)

    with pytest.raises(UsageError, match=r"\[C15[12]\]$") as caught:
        load_layout(str(path))
    assert said in str(caught.value)


def test_an_absent_layout_is_named() -> None:
    with pytest.raises(UsageError, match=r"^nektar: no such layout; did you mean 'nectar'.*C150"):
        load_layout("nektar")


def ranked(prompt: str, **values: list) -> bytes:
    names, columns = list(values), zip(*values.values(), strict=True)
    completions = [
        {"text": f"t{n}"} | dict(zip(names, value, strict=True)) for n, value in enumerate(columns)
    ]
    return orjson.dumps({"prompt": prompt, "completions": completions})


def pairs_of(rows: FileRows) -> list[tuple[str, str]]:
    return [
        (r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows.records.to_pylist()
    ]


STRATEGIES = {
    "best_vs_worst": [("t1", "t3")],
    "adjacent": [("t1", "t0"), ("t2", "t3")],
    "all": [("t1", "t0"), ("t1", "t2"), ("t1", "t3"), ("t0", "t3"), ("t2", "t3")],
}


@pytest.mark.parametrize(("strategy", "pairs"), STRATEGIES.items(), ids=STRATEGIES.keys())
def test_ranks_become_pairs_and_ties_never_do(read: Read, strategy: str, pairs: list) -> None:
    rows = read(ranked("q", rank=[2, 1, 2, 3]), pairing=Pairing(strategy=strategy))

    assert pairs_of(rows) == pairs
    ties = rows.rejected.to_pylist()
    assert [tie["code"] for tie in ties] == ["PD303"] * (0 if strategy == "best_vs_worst" else 1)
    ordinals = rows.records["ordinal"].to_pylist() + [tie["ordinal"] for tie in ties]
    assert sorted(ordinals) == list(range(len(ordinals)))
    assert rows.counts.rejected == 0


def test_a_random_opponent_depends_only_on_seed_and_prompt(read: Read) -> None:
    lines = [ranked(f"q{n}", score=[0.5, 0.9, 0.1, 0.3]) for n in range(64)]

    def opponents(lines: list[bytes], seed: int) -> dict[str, str]:
        rows = read(b"\n".join(lines), pairing=Pairing(strategy="best_vs_random", seed=seed))
        prompts = [prompt[0]["content"] for prompt in rows.records["prompt"].to_pylist()]
        assert {chosen for chosen, _ in pairs_of(rows)} == {"t1"}
        return dict(zip(prompts, [rejected for _, rejected in pairs_of(rows)], strict=True))

    drawn = opponents(lines, 7)
    assert opponents(lines[::-1], 7) == drawn
    assert opponents(lines, 8) != drawn
    assert set(drawn.values()) == {"t0", "t2", "t3"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (ranked("q", rank=[1, 1, 1]), "PD303"),
        (ranked("q", score=[0.5]), "PD303"),
        (ranked("q", score=[0.5, None]), "R211"),
        (ranked("q", rank=[None, None]), "R211"),
        (ranked("q", score=["high", 1]), "R210"),
        (ranked("q", score=[True, 1]), "R210"),
        (ranked("q", rank=list(range(300))), "R212"),
        (b'{"prompt": "q", "completions": [{"rank": 1}, {"rank": 2}]}', "R211"),
        (b'{"prompt": "q", "completions": ["a", "b"]}', "R211"),
    ],
)
def test_a_row_that_prefers_nothing_is_refused(read: Read, line: bytes, code: str) -> None:
    rows = read(line, layout=load_layout("ranked"))

    assert rows.rejected["code"].to_pylist() == [code]
    assert (rows.counts.pairs, rows.counts.rejected) == (0, 1)


def test_scores_order_where_no_rank_is_given_and_ranks_are_counted_from_one(read: Read) -> None:
    rows = read(ranked("q", rank=[None, None, None], score=[0.1, 0.9, 0.5], model=["x", "y", "z"]))

    (record,) = rows.records.to_pylist()
    assert (record["chosen_rank"], record["rejected_rank"]) == (1, 3)
    assert (record["score_chosen"], record["score_rejected"]) == (0.9, 0.1)
    assert (record["model_chosen"], record["model_rejected"]) == ("y", "x")


def test_tool_calls_and_reasoning_are_kept(read: Read) -> None:
    call = {"type": "function", "function": {"name": "light", "arguments": {"room": "x"}}}
    tools = [{"type": "function", "function": {"name": "light"}}]
    row = {
        "prompt": [{"role": "user", "content": "dark"}],
        "chosen": [
            {"role": "assistant", "content": None, "tool_calls": [call], "thinking": "hm"},
            {"role": "tool", "name": "light", "content": "on"},
            {"role": "assistant", "content": [{"type": "text", "text": "done"}]},
        ],
        "rejected": [{"role": "assistant", "content": "no", "reasoning_content": "no"}],
        "tools": orjson.dumps(tools).decode(),
    }

    (record,) = read(orjson.dumps(row)).records.to_pylist()

    assert orjson.loads(record["tools"]) == tools
    first, second, last = record["chosen"]
    assert (orjson.loads(first["tool_calls"]), first["reasoning"]) == ([call], "hm")
    assert (second["name"], last["content"]) == ("light", "done")
    assert record["rejected"][0]["reasoning"] == "no"


def test_sharegpt_function_calls_become_tool_calls(read: Read) -> None:
    row = ALL["sharegpt-ranking"].fixture.rows[0] | {"tools": '[{"name": "light"}]'}
    row["conversations"] = [
        {"from": "human", "value": "dark"},
        {"from": "function_call", "value": '{"name": "light", "arguments": {"room": "x"}}'},
        {"from": "observation", "value": "on"},
    ]

    (record,) = read(orjson.dumps(row)).records.to_pylist()

    assert [turn["role"] for turn in record["prompt"]] == ["user", "assistant", "tool"]
    assert record["prompt"][2]["name"] == "light"
    assert orjson.loads(record["prompt"][1]["tool_calls"])[0]["function"]["name"] == "light"


def test_alpaca_history_and_system_come_before_the_question(read: Read) -> None:
    row = {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"}
    row |= {"system": "s", "history": [["q0", "a0"]]}

    (record,) = read(orjson.dumps(row)).records.to_pylist()

    turns = [(turn["role"], turn["content"]) for turn in record["prompt"]]
    assert turns == [("system", "s"), ("user", "q0"), ("assistant", "a0"), ("user", "q")]
