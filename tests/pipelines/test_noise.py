"""The noise experiment end to end on a tiny model, what it plants, and its intervals."""

import json
from pathlib import Path

import pytest

from pipelines.noise.plant import folds, plant, read_pairs
from pipelines.noise.result import Trained, schema, summarize
from pipelines.noise.run import HERE, Experiment, Settings, read
from tests.dpo.tiny import save_tiny
from tests.pipelines.invoked import Invoked

ROOT = Path(__file__).resolve().parents[2]
INSTRUCTION = (
    "Write one short, plain sentence for a child who learns to count, with no word that is longer"
    " than it has to be, no number that is not asked for, and an end that rhymes, which says"
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("noise")
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    rows = [
        {
            "prompt": f"{INSTRUCTION} {numbers[n % 10]} and {numbers[n // 10]}.",
            "completions": [
                {"text": f"No {numbers[n // 10]} not {numbers[n % 10]} now.", "rank": 2},
                {"text": f"A dog {numbers[n % 10]} is a dog {numbers[n // 10]} too.", "rank": 1},
            ],
        }
        for n in range(40)
    ]
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {
        "model": save_tiny(folder / "model"), "pairs": str(file), "out": folder / "out",
        "held_out": 8, "copies": 2, "suspects": 0.5, "seeds": [0, 1],
        "train": {
            "steps": 6, "global_batch_size": 8,
            "optimizer": {"learning_rate": 1e-2, "warmup_steps": 0},
        },
    }  # fmt: skip
    shipped = read(HERE / "settings.yaml")
    assert (shipped.flipped, len(shipped.seeds)) == (0.2, 3)
    return Settings.model_validate(shipped.model_dump() | changes)


def test_noise_is_planted_at_its_rates_and_never_in_the_held_out_pairs(settings: Settings) -> None:
    rows = read_pairs(settings.pairs)

    planted = plant(rows, settings, 1)

    assert (len(planted.true), len(planted.held_out)) == (32, 8)
    assert all(row in rows for row in [*planted.true, *planted.held_out])
    copies = [row for row in planted.noisy if "copy" in row["meta"]]
    flipped = [row for row in planted.noisy if row not in copies and "flipped" in row["meta"]]
    assert (len(copies), len(flipped), len(planted.noisy)) == (12, 6, 44)
    truth = {row["prompt"]: row for row in rows}
    assert all(row["chosen"] == truth[row["prompt"]]["rejected"] for row in flipped)
    assert plant(rows, settings, 1) == planted
    assert plant(rows, settings, 2).held_out != planted.held_out
    one, other = ({row["prompt"] for row in half} for half in folds(planted.noisy))
    assert one.isdisjoint(other)
    assert len(one | other) == 32


def test_cleaning_removes_copies_and_swapped_labels_and_a_stopped_run_continues(
    settings: Settings,
) -> None:
    first = Invoked(fail_at=8)
    with pytest.raises(KeyboardInterrupt):
        Experiment(settings, first).run()

    rest = Invoked()
    result = Experiment(settings, rest).run()

    trained = ["prefdata", "dpo-ref", "dpo-train"]
    assert first.names == [*trained, *trained, "dpo-score", "prefdata"]
    assert rest.names[:4] == [*trained, "dpo-score"]
    again = Invoked()
    assert Experiment(settings, again).run() == result
    assert again.names == []
    runs = {(one.arm, one.seed): one for one in result.runs}
    assert len(runs) == 6
    for seed in settings.seeds:
        raw, cleaned, true = (runs[arm, seed] for arm in ("raw", "cleaned", "true"))
        assert (raw.pairs, raw.copies) == (44, 12)
        assert raw.flipped >= 6
        assert cleaned.copies == 0
        assert cleaned.flipped < 6
        assert (true.pairs, true.flipped, true.copies) == (32, 0, 0)
    assert result.accuracy["true"].value > 0.9
    assert json.loads((settings.out / "result.json").read_bytes())["runs"]


def test_differences_are_taken_seed_by_seed() -> None:
    def run(arm: str, seed: int, accuracy: float) -> Trained:
        return Trained.model_validate(
            {"arm": arm, "seed": seed, "accuracy": accuracy, "pairs": 1, "flipped": 0, "copies": 0}
        )

    bases = {"raw": 0.5, "cleaned": 0.6, "true": 0.7}
    runs = [run(arm, n, base + n / 10) for arm, base in bases.items() for n in (2, 0, 1)]

    result = summarize(runs, {})

    # scipy.stats.t.interval(0.95, 2, loc=0.6, scale=0.1 / 3**0.5) is 0.3516 to 0.8484
    assert result.accuracy["raw"].value == pytest.approx(0.6)
    assert result.accuracy["raw"].half_width == pytest.approx(0.2484, abs=1e-4)
    assert result.cleaned_minus_raw.value == pytest.approx(0.1)
    assert result.cleaned_minus_raw.half_width == pytest.approx(0.0, abs=1e-9)
    assert result.true_minus_cleaned.value == pytest.approx(0.1)


def test_the_schema_of_the_result_is_current() -> None:
    remedy = "run `python -m pipelines.noise.result schemas/noise.schema.json`"

    assert (ROOT / "schemas" / "noise.schema.json").read_text(encoding="utf-8") == schema(), remedy
