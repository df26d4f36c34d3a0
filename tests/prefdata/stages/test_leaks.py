"""No near-duplicate of a training prompt is in the test split, by exact Jaccard over every pair."""

import random
from pathlib import Path

import pytest

from prefdata.building import build
from prefdata.config import BuildConfig
from tests.effort import times
from tests.prefdata.conftest import write_rows
from tests.prefdata.dedup.near.oracle import jaccard, shingles

THRESHOLD = 0.7
WORDS = [f"w{number}" for number in range(2000)]


def planted(seed: int) -> list[dict[str, object]]:
    """Return 200 prompts, each with up to three copies in which a few words are changed."""
    draw = random.Random(seed)
    prompts = []
    for _ in range(200):
        words = draw.choices(WORDS, k=draw.randint(8, 60))
        for _ in range(draw.randint(1, 4)):
            edited = list(words)
            for _ in range(draw.randint(0, 3)):
                edited[draw.randrange(len(edited))] = draw.choice(WORDS)
            prompts.append(" ".join(edited))
    draw.shuffle(prompts)
    return [
        {"prompt": prompt, "chosen": f" yes {n}", "rejected": f" no {n}"}
        for n, prompt in enumerate(prompts)
    ]


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(times(3, 20)))
def test_no_near_duplicate_prompt_is_in_both_splits(seed: int, tiny: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", planted(seed))
    config = {"inputs": [str(rows)], "tokenizer": str(tiny), "out": tmp_path / "out"}
    found = build(BuildConfig(**config, test_fraction=0.3, seed=seed))
    train, test = (
        [shingles(row["prompt"]) for row in found.text(split).to_pylist()]
        for split in ("train", "test")
    )

    assert len(test) > 50
    near = [(a, b) for a in test for b in test if a is not b and jaccard(a, b) >= THRESHOLD]
    assert near, "copies were planted"
    assert not [1 for a in train for b in test if jaccard(a, b) >= THRESHOLD]
