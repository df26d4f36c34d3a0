"""Best-of-N against enumeration, and as an option of `dpo-sample`."""

import json
import math
from collections import Counter
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from dpo.cli import sample
from dpo.errors import UsageError
from dpo.model.load import load_model
from dpo.sampling.best_of import best_of_kl, expected_best, keep_best
from dpo.sampling.run import SampleJob, sample_file
from dpo.sampling.sample import Completion, SampleConfig, sample_completions
from tests.dpo.tiny import Heard, save_tiny, tiny_tokenizer

ROWS = [f"Tell me {'a ' * (n % 3)}story {n}." for n in range(20)]
SCORER = "tests.dpo.sampling.test_best_of:by_length"
CHANCES = np.array([0.1, 0.2, 0.4, 0.3])
"""Chances of four completions, from the lowest score to the highest."""


def by_length(*, prompts: list[Any], completions: list[str]) -> list[float]:
    assert len(prompts) == len(completions)
    return [float(len(text) // 8) for text in completions]


def chances_of_best(chances: np.ndarray, n: int) -> np.ndarray:
    """Return the distribution of the best of n independent draws, by the CDF."""
    cdf = np.concatenate(([0.0], chances.cumsum()))
    return np.diff(cdf**n)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in ROWS))
    return path


def cli(*args: object) -> Result:
    return CliRunner().invoke(sample, [str(arg) for arg in args])


def test_each_completion_is_the_best_of_its_own_draws(
    model: str, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    config = SampleConfig(k=6, max_new_tokens=8, seed=3)
    drawn = sample_completions(ROWS, load_model(model), tiny_tokenizer(), config)

    options = ["-k", 2, "--best-of", 3, "--scorer", SCORER, "--max-new-tokens", 8, "--seed", 3]
    done = cli(prompts, "--model", model, "-o", out, *options)

    assert done.exit_code == 0, done.stderr
    assert "tokens/s" not in done.stdout
    for line, all_six in zip(out.read_bytes().splitlines(), drawn, strict=True):
        texts = [completion.text for completion in all_six]
        bests = [max(three, key=lambda text: len(text) // 8) for three in (texts[:3], texts[3:])]
        found = json.loads(line)["completions"]
        assert Counter(one["text"] for one in found) == Counter(bests)
        assert [one["score"] for one in found] == sorted((len(t) // 8 for t in bests), reverse=True)


def test_best_of_needs_a_scorer(model: str, prompts: Path, tmp_path: Path) -> None:
    done = cli(prompts, "--model", model, "-o", tmp_path / "o", "--best-of", 2)

    assert done.exit_code == 2
    assert "--best-of needs --scorer" in done.stderr


def test_a_file_is_not_continued_with_another_number_of_draws(
    model: str, prompts: Path, tmp_path: Path
) -> None:
    config = SampleConfig(k=1, max_new_tokens=2, batch_size=1)
    job = SampleJob(prompts, model, tmp_path / "o", SCORER, best_of=2)
    with pytest.raises(KeyboardInterrupt):
        sample_file(job, config, Heard(stop=9))

    with pytest.raises(UsageError, match="another best_of, k"):
        sample_file(job._replace(best_of=4), config)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_draws_have_the_distribution_of_the_best_of_n(n: int) -> None:
    draws = np.random.default_rng(0).choice(4, size=6000 * n, p=CHANCES)
    completions = [Completion(str(one), [], 0.0, ended=True) for one in draws]

    best, scores = keep_best(completions, draws.astype(float).tolist(), n)

    shares = np.bincount([int(one.text) for one in best], minlength=4) / 6000
    assert [int(one.text) for one in best] == scores
    assert shares == pytest.approx(chances_of_best(CHANCES, n), abs=0.02)


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_the_bound_is_above_the_kl_of_few_completions_and_reached_by_many(n: int) -> None:
    def exact(chances: np.ndarray) -> float:
        best = chances_of_best(chances, n)
        return float((best * np.log(best / chances)).sum())

    assert best_of_kl(n) == pytest.approx(math.log(n) - (n - 1) / n)
    assert exact(CHANCES) <= best_of_kl(n) + 1e-12
    assert exact(np.full(100_000, 1e-5)) == pytest.approx(best_of_kl(n), abs=1e-3)


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=7), st.integers(1, 7))
def test_the_expected_best_is_the_mean_over_all_subsets(scores: list[float], n: int) -> None:
    if n > len(scores):
        with pytest.raises(ValueError, match="needs at least"):
            expected_best(scores, n)
        return

    subsets = combinations(scores, n)
    assert expected_best(scores, n) == pytest.approx(mean(map(max, subsets)), abs=1e-9)
