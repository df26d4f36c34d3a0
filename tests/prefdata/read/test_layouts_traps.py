"""Traps in real files, one test each; those of HH are in test_sides."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from prefdata.errors import UsageError
from prefdata.read import Layout, Pairing, detect_layout, load_layout, shipped_layouts
from tests.prefdata.read.rows import FileRows

Read = Callable[..., FileRows]


def fixture(name: str, number: int = 0) -> dict[str, Any]:
    return dict(shipped_layouts()[name].fixture.rows[number])


def jsonl(*rows: dict[str, Any]) -> bytes:
    return b"\n".join(map(orjson.dumps, rows))


def sides(rows: FileRows) -> list[tuple[str, str]]:
    return [
        (r["chosen"][-1]["content"], r["rejected"][-1]["content"]) for r in rows.records.to_pylist()
    ]


def codes(rows: FileRows) -> list[str]:
    return rows.rejected["code"].to_pylist()


def test_rank_one_is_best_in_nectar_and_rank_zero_in_nemo(read: Read) -> None:
    assert sides(read(jsonl(fixture("nectar")))) == [("It is blue.", "It is green.")]
    assert sides(read(jsonl(fixture("nemo-rl")))) == [("It is blue.", "It is green.")]


def test_the_direction_of_a_rank_has_to_be_declared() -> None:
    nectar = load_layout("nectar").model_dump()
    nectar["candidates"] |= {"rank": {"path": "rank"}}

    with pytest.raises(ValidationError, match=r"candidates\.rank\.best"):
        Layout.model_validate(nectar)


@pytest.mark.parametrize(
    ("preference", "pairs"),
    [
        (-3, [("It is blue.", "It is green.")]),
        (1, [("It is green.", "It is blue.")]),
        (0, []),
    ],
)
def test_the_sign_of_helpsteer3_names_the_response(
    read: Read, preference: int, pairs: list
) -> None:
    rows = read(jsonl(fixture("helpsteer3-preference") | {"overall_preference": preference}))

    assert sides(rows) == pairs
    assert codes(rows) == ([] if pairs else ["PD303"])
    assert rows.records["margin"].to_pylist() == [abs(preference)] * len(pairs)


@pytest.mark.parametrize("name", ["helpsteer2-preference", "helpsteer3-preference"])
def test_a_strength_of_minus_a_hundred_is_not_a_preference(read: Read, name: str) -> None:
    column = "preference_strength" if "2" in name else "overall_preference"

    assert codes(read(jsonl(fixture(name) | {column: -100}))) == ["R210"]


@pytest.mark.parametrize("winner", ["tie", "both_bad", "tie (bothbad)"])
def test_an_arena_vote_for_neither_is_a_tie(read: Read, winner: str) -> None:
    rows = read(jsonl(fixture("lmarena") | {"winner": winner}))

    assert (codes(rows), rows.records.num_rows) == (["PD303"], 0)


@pytest.mark.parametrize(
    ("name", "changes", "pairs"),
    [
        ("lmarena", {"winner": "tie"}, 1),
        ("helpsteer3-preference", {"overall_preference": 0}, 1),
        ("distilabel-orca", {"status": "tie"}, 1),
        ("distilabel-ratings", {"ratings": [3, 3, 3]}, 1),
        ("distilabel-ratings", {"ratings": [1, 5, 3]}, 1),
    ],
)
def test_a_tie_that_is_asked_for_is_a_pair_of_equal_ranks_and_margin_0(
    read: Read, name: str, changes: dict[str, Any], pairs: int
) -> None:
    rows = read(jsonl(fixture(name) | changes), pairing=Pairing(ties="keep"))

    assert (codes(rows), rows.records.num_rows) == ([], pairs)
    record = rows.records.to_pylist()[0]
    is_tie = record["chosen_rank"] == record["rejected_rank"]
    assert is_tie == (changes != {"ratings": [1, 5, 3]})
    if is_tie:
        assert record["margin"] == 0.0


def test_labels_of_shp_name_a_by_one(read: Read) -> None:
    rows = read(jsonl(*(fixture("shp") | {"labels": label} for label in (1, 0, 1.0))))

    blue, green = ("It is blue.", "It is green."), ("It is green.", "It is blue.")
    assert sides(rows) == [blue, green, blue]


def ultrafeedback(overall: float, ratings: list[str]) -> dict[str, Any]:
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    row = fixture("ultrafeedback")
    completion = row["completions"][0] | {
        "overall_score": overall,
        "annotations": {a: {"Rating": r} for a, r in zip(aspects, ratings, strict=True)},
    }
    return row | {"completions": [completion, row["completions"][1]]}


def test_an_overall_score_of_ten_with_bad_aspects_is_doubted(read: Read) -> None:
    doubted = ultrafeedback(10, ["1", "2", "1", "N/A"])
    fine = ultrafeedback(10, ["5", "5", "5", "5"])

    by_overall = read(jsonl(doubted, fine), layout=load_layout("ultrafeedback:overall"))

    assert codes(by_overall) == ["PD306"]
    assert sides(by_overall) == [("It is green.", "It is blue.")]
    assert sides(read(jsonl(doubted))) == [("It is blue.", "It is green.")]  # by the aspects


def test_a_rating_of_na_is_missing_and_other_text_is_a_fault(read: Read) -> None:
    missing = ultrafeedback(1, ["N/A", "3", "N/A", "2"])
    none = ultrafeedback(1, ["N/A"] * 4)
    bad = ultrafeedback(1, ["high", "3", "3", "3"])

    rows = read(jsonl(missing, none, bad))

    assert rows.records["score_rejected"].to_pylist() == [2.5]
    assert codes(rows) == ["R211", "R210"]


def test_the_dimension_decides_what_is_better(read: Read) -> None:
    row = jsonl(fixture("pku-saferlhf"))
    better, safer = (
        read(row, layout=load_layout(f"pku-saferlhf:{name}")) for name in ("better", "safer")
    )

    assert sides(better) == [side[::-1] for side in sides(safer)]


@pytest.mark.parametrize(
    ("votes", "code"), [((1, 1, 0), "R210"), ((0, 0, 0), "R210"), ((0, 0, 1), "PD303")]
)
def test_of_one_hot_winners_exactly_one_counts(read: Read, votes: tuple, code: str) -> None:
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    row = fixture("lmsys-55k") | dict(zip(names, votes, strict=True))

    assert codes(read(jsonl(row))) == [code]


def test_one_hot_winners_of_a_csv_file_are_text(read: Read) -> None:
    content = (
        "model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
        's,l,"[""Sky?""]","[""Green.""]","[""Blue.""]",0,1,0\n'
    )

    assert sides(read(content.encode(), name="train.csv")) == [("Blue.", "Green.")]


def test_answers_out_of_step_with_the_turns_are_refused(read: Read) -> None:
    row = fixture("lmsys-55k") | {"response_a": '["Green."]'}

    assert codes(read(jsonl(row))) == ["R210"]


def test_lists_out_of_step_are_refused(read: Read) -> None:
    row = fixture("distilabel-ratings")

    assert codes(read(jsonl(row | {"ratings": [1, 5]}))) == ["R210"]
    assert codes(read(jsonl(row | {"ratings": [1, 5, None]}))) == ["R211"]


def test_a_status_of_tie_prefers_nothing(read: Read) -> None:
    assert codes(read(jsonl(fixture("distilabel-orca", 1)))) == ["PD303"]


def test_a_prompt_that_is_not_the_first_turn_is_refused(read: Read) -> None:
    row = fixture("ultrafeedback-binarized") | {"prompt": "What color is the sea?"}

    assert codes(read(jsonl(row))) == ["PD207"]


def test_models_that_answer_differently_from_the_second_turn_share_the_first(read: Read) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    more = [{"role": "user", "content": "Sky?"}]
    answers = [[{"role": "assistant", "content": said}] for said in ("Green.", "Blue.")]
    row = fixture("lmarena") | {
        f"conversation_{name}": turns + more + answer
        for name, answer in zip("ab", answers, strict=True)
    }

    (record,) = read(jsonl(row)).records.to_pylist()

    assert [turn["content"] for turn in record["prompt"]] == ["Hi", "Hello", "Sky?"]
    assert record["chosen"][0]["content"] == "Blue."


def test_anthropic_blocks_become_calls_results_and_reasoning(read: Read) -> None:
    call = {"type": "tool_use", "id": "c1", "name": "light", "input": {"room": "x"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "c1",
        "content": [{"type": "text", "text": "on"}],
    }
    thought = {"type": "thinking", "thinking": "hm", "signature": "…"}
    row = {
        "messages": [
            {"role": "user", "content": "dark"},
            {"role": "assistant", "content": [thought, {"type": "text", "text": "ok"}, call]},
            {"role": "user", "content": [result, {"type": "text", "text": "and?"}]},
            {"role": "assistant", "content": "done"},
        ],
        "rejected_response": "no",
        "tools": [{"name": "light"}],
    }

    (record,) = read(jsonl(row)).records.to_pylist()

    user, called, answered, asked = record["prompt"]
    assert (called["content"], called["reasoning"]) == ("ok", "hm")
    assert orjson.loads(called["tool_calls"]) == [
        {"id": "c1", "type": "function", "function": {"name": "light", "arguments": {"room": "x"}}}
    ]
    assert (answered["role"], answered["content"], answered["tool_call_id"]) == ("tool", "on", "c1")
    assert (user["role"], asked["role"], asked["content"]) == ("user", "user", "and?")


def test_rejected_turns_are_compared_with_all_after_the_last_user_turn(read: Read) -> None:
    row = fixture("ms-swift")
    row |= {"rejected_response": [{"role": "assistant", "content": "It is green."}]}

    (record,) = read(jsonl(row)).records.to_pylist()

    assert [turn["role"] for turn in record["prompt"]] == ["user"]
    assert [turn["role"] for turn in record["chosen"]] == ["assistant", "tool", "assistant"]


def test_a_part_that_is_an_image_is_refused(read: Read) -> None:
    image = [{"type": "image", "path": "cat.png"}]
    row = {
        "prompt": [{"role": "user", "content": image}],
        "chosen": [{"role": "assistant", "content": "A cat."}],
        "rejected": [{"role": "assistant", "content": "A dog."}],
    }

    assert codes(read(jsonl(row))) == ["R210"]


def test_both_ends_of_a_list_of_best_and_worst_may_be_more(read: Read) -> None:
    row = fixture("alpaca-best-worst") | {"output": ["best", "good", "bad"]}

    rows = read(jsonl(row), pairing=Pairing(strategy="adjacent"))

    assert sides(rows) == [("best", "good"), ("good", "bad")]


def test_ambiguity_names_each_layout_its_share_and_the_way_out() -> None:
    row = fixture("alpaca") | {"prompt": "q"}

    with pytest.raises(UsageError, match=r"alpaca \(100% of the rows\) or .*--layout NAME.*PD102"):
        detect_layout([row])
