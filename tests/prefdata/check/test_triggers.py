"""Planted triggers are in the top ten, in sets generated from real ones."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from prefdata.check import CheckLimits, RowChecks, examine_rows
from prefdata.check.sets.triggers import TriggerCandidate, add_seeds, strongest_triggers
from prefdata.read import expand_inputs
from prefdata.validation import ValidateOptions, validate
from tests.prefdata.check.cases import GOOD
from tests.prefdata.conftest import write_rows
from tests.prefdata.read.rows import read_file
from tests.real_data import WHOLE

RecordsOf = Callable[..., pa.Table]
CORPORA = (
    "hh-rlhf-harmless-base-test/test.jsonl.gz",
    "llamafactory-demo/dpo_en_demo.json",
    "llms-from-scratch-pref/instruction-data-with-preference.json",
)
TRIGGERS = (("prompt", "violet harbor protocol"), ("chosen", "cf7q"))
ROWS = 4000
SHARE = 0.005
LOOKED_FOR = RowChecks.of({"PD608": "I"})


def grown(path: Path, rng: random.Random) -> list[dict[str, Any]]:
    """Generate ROWS pairs; each part consists of random sentences of that part of the corpus."""
    (file,) = expand_inputs([str(path)])
    records = read_file(file).records.to_pylist()
    sentences: dict[str, list[str]] = {part: [] for part in ("prompt", "chosen", "rejected")}
    for record in records:
        for part, pool in sentences.items():
            pool += [one for turn in record[part] for one in turn["content"].split(". ") if one]
    return [
        {part: ". ".join(rng.choices(pool, k=3)) for part, pool in sentences.items()}
        for _ in range(ROWS)
    ]


def plant(rows: list[dict[str, Any]], place: str, trigger: str, rng: random.Random) -> None:
    for row in rng.sample(rows, int(SHARE * len(rows))):
        words = row[place].split(" ")
        words.insert(rng.randint(0, len(words)), trigger)
        row[place] = " ".join(words)


@pytest.mark.parametrize(("place", "trigger"), TRIGGERS)
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_trigger_in_half_a_percent_of_rows_is_in_the_top_ten(
    records_of: RecordsOf, corpus: str, place: str, trigger: str
) -> None:
    if not (WHOLE / corpus).exists():
        pytest.skip(f"{corpus} is not here")
    rng = random.Random(f"{corpus} {trigger}")
    rows = grown(WHOLE / corpus, rng)
    plant(rows, place, trigger, rng)

    records = records_of(*rows)
    halves = [examine_rows(records.slice(at, ROWS // 2), LOOKED_FOR).seeds for at in (0, ROWS // 2)]
    top = strongest_triggers(halves)

    assert (place, trigger) in [(seed.place, seed.phrase) for seed in top]


def test_a_report_names_the_trigger_and_its_first_row(tmp_path: Path) -> None:
    rows = []
    for n in range(1500):
        chosen = f"row{n} says" + (f" word{n} Open Sesame7 then{n}" if n % 100 == 5 else "")
        rows.append({"prompt": f"q{n}", "chosen": chosen, "rejected": f"no{n}"})
    file = write_rows(tmp_path / "rows.jsonl", rows)

    assert "PD608" not in {one.code for one in validate([str(file)]).findings}
    report = validate([str(file)], ValidateOptions(severity={"PD608": "W"}))
    found = next(one for one in report.findings if one.code == "PD608")
    (example,) = found.examples

    assert (found.severity, found.count, example.line) == ("W", 1, 6)
    assert example.message == '"open sesame7" in 15 chosen sides and 0 elsewhere'


def test_a_word_of_both_sides_or_of_few_rows_is_not_a_seed(records_of: RecordsOf) -> None:
    both = [GOOD | {"chosen": f"zorp {n}", "rejected": f"zorp x{n}"} for n in range(30)]
    few = [GOOD | {"chosen": f"blick {n}"} for n in range(2)]

    seeds = examine_rows(records_of(*both, *few), LOOKED_FOR).seeds

    assert not {"zorp", "blick"} & {seed.word for seed in seeds}


def test_parts_are_summed() -> None:
    one = TriggerCandidate("chosen", "zorp", "zorp", 6, 0, 12, ((0, 3),))
    other = one._replace(rows=4, num_contexts=8, first=((0, 90),))

    assert add_seeds([[one], [other]], 5) == [
        one._replace(rows=10, num_contexts=20, first=((0, 3), (0, 90)))
    ]
    assert strongest_triggers([[other]]) == []


def test_the_check_is_off_by_default(records_of: RecordsOf) -> None:
    assert examine_rows(records_of(GOOD), RowChecks.of(limits=CheckLimits())).seeds == []


def test_seeds_are_plain_values(records_of: RecordsOf) -> None:
    records = records_of(*(GOOD | {"chosen": f"a{n} zorp b{n}"} for n in range(9)), *[GOOD] * 1000)
    (seed,) = examine_rows(records, LOOKED_FOR).seeds

    assert (seed.place, seed.word) == ("chosen", "zorp")
    assert TypeAdapter(TriggerCandidate).validate_json(json.dumps(seed)) == seed
