"""Checks of sets: each code has a set that it finds, and one that is nearly so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import prefdata
from prefdata.check import CheckLimits, RowChecks, examine_rows
from prefdata.check.catalog import catalog
from prefdata.check.rows.profile import PROFILE, storable
from prefdata.check.sets.bias import find_label_imbalance
from prefdata.check.sets.found import SetFinding
from prefdata.check.sets.run import SET_CHECKS, find_in_set, settle_findings
from prefdata.check.sets.statistics import area_under_curve, share
from prefdata.check.sets.tally import add_tallies, tally_of
from prefdata.check.severity import resolve_severity
from prefdata.records.keys import KEY_COLUMNS

RecordsOf = Callable[..., pa.Table]
Row = dict[str, Any]

PLAIN = {"chars_chosen": 10, "chars_rejected": 10, "words_chosen": 2, "words_rejected": 2}


def frame_of(rows: list[Row]) -> pl.DataFrame:
    """Build rows of ids and profile; missing values are 0, "" or null, each with its own prompt."""
    kinds = pl.Schema(KEY_COLUMNS | dict(PROFILE) | {"split": pl.UInt8})
    said = [{"group_id_hi": n, "chosen_id": 2 * n, "rejected_id": 2 * n + 1} | PLAIN | row
            for n, row in enumerate(rows, 1000)]  # fmt: skip
    frame = pl.DataFrame(
        {name: [row.get(name) for row in said] for name in kinds}, schema=kinds, strict=False
    ).with_row_index("at")
    numbers = [name for name in kinds if frame[name].dtype.is_integer() and name != "split"]
    return frame.with_columns(pl.col(numbers).fill_null(0))


def settled(frame: pl.DataFrame, changes: dict[str, str], **limits: Any) -> list[SetFinding]:
    severity = resolve_severity(changes)
    return settle_findings(find_in_set(frame, severity, CheckLimits(**limits)), severity)


def found_in(rows: list[Row], **limits: Any) -> dict[str, SetFinding]:
    frame = frame_of(rows)
    if frame["split"].null_count() == len(frame):
        frame = frame.drop("split")
    return {one.code: one for one in settled(frame, {}, **limits)}


def over(*pairs: tuple[int, int], group: int = 7) -> list[Row]:
    """Return pairs of one prompt: (1, 2) prefers completion 1 to 2."""
    return [{"group_id_hi": group, "chosen_id": a, "rejected_id": b} for a, b in pairs]


def sided(longer: int, shorter: int, what: str = "chars") -> list[Row]:
    more, fewer = (
        {f"{what}_chosen": 9, f"{what}_rejected": 3},
        {f"{what}_chosen": 3, f"{what}_rejected": 9},
    )
    return [more] * longer + [fewer] * shorter


def models(*pairs: tuple[str | None, str | None], times: int = 1) -> list[Row]:
    return [{"model_chosen": a, "model_rejected": b} for a, b in pairs] * times


CIRCLE = over((1, 2), (2, 3), (3, 1))
HAS: dict[str, list[list[Row]]] = {
    "PD404": [CIRCLE, [*over((8, 1), (3, 9)), *CIRCLE], over((1, 2), (2, 3), (3, 4), (4, 1))],
    "PD405": [over(*((n, n + 50) for n in range(25)))],
    "PD406": [over((1, 2), (2, 3))],
    "PD407": [[{"group_id_hi": n, "rejected_id": 5} for n in range(11)]],
    "PD504": [[{"thread": 3, "split": 0}, {"thread": 3, "split": 1}]],
    "PD601": [sided(150, 50), sided(50, 150)],
    "PD602": [models(("gpt", "llama"), times=100)],
    "PD603": [[{"chosen_first": True}] * 300 + [{"chosen_first": False}] * 200],
    "PD604": [sided(90, 30, "items"), sided(20, 100, "emoji")],
    "PD606": [
        [{"licence": "mit"}, {"licence": "apache-2.0"}],
        [{"licence": "mit"}, {}],
        [{"origin": "a"}, {"origin": "b"}, {}],
    ],
}
HAS_NOT: dict[str, list[list[Row]]] = {
    "PD404": [
        over((1, 2), (2, 3), (1, 3)),
        over((1, 2), (2, 1), (2, 3), (3, 2)),
        [*over((1, 2), (2, 3)), *over((3, 1), group=8)],
    ],
    "PD405": [over(*((n, n + 50) for n in range(24)))],
    "PD406": [over((1, 2), (1, 3)), [*over((1, 2)), *over((2, 3), group=8)]],
    "PD407": [
        [{"group_id_hi": n, "rejected_id": 5} for n in range(10)],
        [{"group_id_hi": 1, "rejected_id": 5}] * 20,
    ],
    "PD504": [[{"split": 0}, {"split": 1}]],
    "PD601": [sided(110, 90), sided(20, 0), [{}] * 200],
    "PD602": [
        models(("gpt", "llama"), ("llama", "gpt"), times=100),
        models(*((f"a{n}", f"b{n}") for n in range(200))),
        models(("gpt", None), times=200),
    ],
    "PD603": [[{"chosen_first": True}] * 260 + [{"chosen_first": False}] * 240],
    "PD604": [sided(60, 50, "items"), sided(40, 0, "bold")],
    "PD606": [[{"licence": "mit"}] * 2, [{}] * 2, [{"origin": "a"}, {"origin": "b"}]],
}


@pytest.mark.parametrize(("code", "rows"), [(c, rows) for c, some in HAS.items() for rows in some])
def test_a_set_with_the_code_is_reported_with_examples(code: str, rows: list[Row]) -> None:
    found = found_in(rows)[code]

    assert found.severity == catalog()[code].severity
    assert 0 < found.num <= len(rows)
    assert found.message
    assert found.examples
    assert max(found.examples) < len(rows)


@pytest.mark.parametrize(
    ("code", "rows"), [(c, rows) for c, some in HAS_NOT.items() for rows in some]
)
def test_a_set_that_nearly_has_it_is_not_reported(code: str, rows: list[Row]) -> None:
    assert code not in found_in(rows)


def test_every_code_of_sets_has_both_tests() -> None:
    assert set(HAS) == set(HAS_NOT) == set(SET_CHECKS) | {"PD504"}


def test_a_cycle_is_found_without_the_pairs_that_lead_to_it() -> None:
    found = found_in([*over((8, 1), (3, 9)), *CIRCLE])["PD404"]

    assert (found.num, found.examples) == (3, (2, 3, 4))
    assert found.message == "prompts whose pairs form a cycle: 1"


def test_a_code_that_is_off_is_not_reported() -> None:
    frame = frame_of(CIRCLE).drop("split")
    found = settled(frame, {"PD404": "E", "PD406": "off"})

    assert [(one.code, one.severity) for one in found] == [("PD404", "E")]


def test_no_rows_give_no_findings() -> None:
    assert settled(frame_of([]), {}) == []


def test_labels_are_unbalanced_beyond_four_to_one() -> None:
    assert find_label_imbalance(tally_of(frame_of(CIRCLE)), 400, 100) == []
    (found,) = find_label_imbalance(tally_of(frame_of(CIRCLE)), 9000, 300)
    assert (found.code, found.num) == ("PD605", 9000)


def test_the_interval_of_a_share_is_wilsons() -> None:
    """Expected values: statsmodels' proportion_confint(81, 263, method="wilson")."""
    found = share(81, 263)

    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_the_area_under_the_curve_counts_every_pair() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 30, 200), rng.integers(0, 25, 150)
    wins = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2

    found = area_under_curve(positive, negative)

    assert found.value == pytest.approx(wins, abs=1e-12)
    assert found.low < found.value < found.high


def test_a_profile_counts_what_the_texts_have(records_of: RecordsOf) -> None:
    meta = '{"license":"mit","dataset":"x","conversation_id":"c1","chosen_first":true}'
    records = records_of(
        {
            "prompt": "What is this thing?",
            "chosen": "# Head\n\n- **one** 😀\n- two\n1. three\n```\nx\n```",
            "rejected": "Sorry, I can't help with that.",
            "score_chosen": 7.5,
            "model_chosen": "m",
            "meta": meta,
        },
        {"prompt": [], "chosen": "a", "rejected": "b", "meta": '{"user":5,"source":""}'},
    )

    profile = examine_rows(records, RowChecks.of({"PD201": "W"})).profile
    first, second = profile.to_dicts()

    assert profile.schema == PROFILE
    formats = ("headings", "bold", "items", "code", "emoji")
    assert [first[f"{name}_chosen"] for name in formats] == [1, 1, 3, 1, 1]
    assert (first["chars_prompt"], first["words_prompt"], first["turns_chosen"]) == (19, 4, 1)
    assert (first["chosen_refuses"], first["rejected_refuses"]) == (False, True)
    assert (first["language"], first["licence"], first["origin"]) == ("en", "mit", "x")
    assert (first["chosen_first"], first["score_chosen"], first["model_chosen"]) == (True, 7.5, "m")
    assert (second["turns_prompt"], second["language"], second["origin"]) == (0, "", None)
    assert first["thread"] != 0 != second["thread"]
    assert pl.DataFrame(storable(profile)).cast(PROFILE).equals(profile)


@pytest.mark.parametrize(
    ("more", "fewer", "changes", "level"),
    [
        (600, 150, {}, "I"),
        (990, 10, {}, "W"),
        (10, 990, {}, "W"),
        (990, 10, {"PD604": "I"}, "I"),
        (990, 10, {"PD604": "off"}, None),
        (990, 10, {"PD604": "E"}, "E"),
    ],
)
def test_a_format_that_nearly_decides_the_label_is_a_warning(
    more: int, fewer: int, changes: dict[str, str], level: str | None
) -> None:
    frame = frame_of(sided(more, fewer, "bold")).drop("split")
    severity = resolve_severity(changes)
    found = settle_findings(find_in_set(frame, severity, CheckLimits()), severity, changes)

    assert {one.code: one.severity for one in found}.get("PD604") == level


JUDGED: dict[str, Callable[[int, bool], Row]] = {
    "a label": lambda n, first: {
        "question_id": n,
        "model_a": "m",
        "model_b": "m",
        "winner": "model_a" if first else "model_b",
        "turn": 1,
        "conversation_a": [dialogue("user", f"q {n}"), dialogue("assistant", f"yes {n}")],
        "conversation_b": [dialogue("user", f"q {n}"), dialogue("assistant", f"no {n}")],
    },
    "one-hot columns": lambda n, first: {
        "model_a": "m",
        "model_b": "m",
        "prompt": f'["q {n}"]',
        "response_a": f'["yes {n}"]',
        "response_b": f'["no {n}"]',
        "winner_model_a": int(first),
        "winner_model_b": int(not first),
        "winner_tie": 0,
    },
    "a strength": lambda n, first: {
        "prompt": f"q {n}",
        "response_1": f"yes {n}",
        "response_2": f"no {n}",
        "preference_strength": -2 if first else 2,
    },
}


def dialogue(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.parametrize(("firsts", "found"), [(180, True), (20, True), (100, False)])
def test_a_position_that_wins_too_often_is_found_in_judged_rows(
    tmp_path: Path, name: str, firsts: int, found: bool
) -> None:
    rows = [JUDGED[name](n, n < firsts) for n in range(200)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = prefdata.validate([str(file)])
    said = [f.examples[0].message for f in report.findings if f.code == "PD603"]

    assert report.lines.kept == 200
    assert bool(said) == found
    if found:
        assert said[0].startswith(f"answer A is chosen in {firsts / 2:.1f}%")


def test_a_column_that_says_which_is_better_has_no_positions(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(200)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert "PD603" not in {f.code for f in prefdata.validate([str(file)]).findings}


def test_the_sums_of_parts_are_those_of_the_set() -> None:
    rows = [
        {
            "chars_prompt": n % 7,
            "chars_chosen": n % 5,
            "chars_rejected": n % 3,
            "bold_chosen": n % 4,
        }
        | {"model_chosen": f"m{n % 3}", "model_rejected": f"m{n % 2}", "chosen_first": n % 3 == 0}
        | {"licence": None if n % 4 else "mit", "origin": f"o{n % 2}"}
        for n in range(300)
    ]
    frame = frame_of(rows)

    parts = add_tallies(tally_of(frame[start : start + 2]) for start in range(0, 300, 2))

    whole = tally_of(frame)
    assert parts[:2] == whole[:2]
    assert parts.wins == whole.wins
    for name in ("values", "games", "names", "languages"):
        one, other = getattr(parts, name), getattr(whole, name)
        keys = [key for key in one.columns if key not in ("num", "at", "won")]
        assert one.sort(keys).equals(other.sort(keys)), name
    assert (parts.positions, parts.chosen_first) == (300, 100)
