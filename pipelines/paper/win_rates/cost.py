"""GPU hours of an experiment: an estimate from its sizes, before anything is run.

    python -m pipelines.paper.win_rates.cost pipelines/paper/tldr/full.yaml

A pair has its prompt once and two completions, tokens = prompt + 2·completion. Training is
6·P·tokens FLOP and a reference pass 2·P·tokens (https://arxiv.org/abs/2001.08361), at 40 % of the
H100's 989 TFLOP/s in bf16. Sampling reads all weights, 2·P bytes, for each token of a batch, at
half of its 3.35 TB/s. Attention, evaluation and loading are left out.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines.commands import RecipeError, clean_exit
from pipelines.paper.win_rates.settings import Settings, Size, read

FLOPS = 0.4 * 989e12
BYTES_PER_SECOND = 0.5 * 3.35e12
HOUR = 3600


class Cost(NamedTuple):
    """One stage; tokens are those of all pairs, or those that are sampled."""

    stage: str
    tokens: float
    gpu_hours: float


def costs(settings: Settings, size: Size) -> Iterator[Cost]:
    """Yield the stages that need a GPU; a judge on a server is not among them."""
    tokens = size.pairs * (size.prompt_tokens + 2 * size.completion_tokens)
    one_pass = size.parameters * tokens / FLOPS / HOUR
    if settings.sft is not None:
        yield Cost(settings.start_name, tokens, 6 * one_pass)
    yield Cost("reference", tokens, 2 * one_pass)
    for name in settings.runs:
        yield Cost(name, tokens, 6 * one_pass)
    methods = 1 + len(settings.runs) + (settings.base is not None)
    yield _sampling("sampling", settings, size, methods * len(settings.temperatures))
    if settings.best_of is not None:
        above_zero = sum(temperature > 0 for temperature in settings.temperatures)
        name = f"best of {settings.best_of.n}"
        yield _sampling(name, settings, size, above_zero * settings.best_of.n)


def _sampling(name: str, settings: Settings, size: Size, times: int) -> Cost:
    """Return the cost of answering every prompt this many times."""
    answers = times * sum(one.rows for one in settings.evaluations.values())
    steps = math.ceil(answers / settings.batch_size) * settings.max_new_tokens
    seconds = steps * 2 * size.parameters / BYTES_PER_SECOND
    return Cost(name, answers * settings.max_new_tokens, seconds / HOUR)


def judge_requests(settings: Settings) -> int:
    """Return the questions to a judge on a server: each answer in both orders."""
    each = len(settings.temperatures) * (1 + len(settings.runs) + (settings.base is not None))
    if settings.best_of is not None:
        each += sum(temperature > 0 for temperature in settings.temperatures)
    return 2 * each * sum(one.rows for one in settings.evaluations.values())


def table(settings: Settings) -> Iterator[str]:
    """Yield the estimate as a table in Markdown."""
    if settings.size is None:
        raise RecipeError("size", "is not set", "see full.yaml of tldr")
    found = list(costs(settings, settings.size))
    yield "| stage | million tokens | H100 hours |"
    yield "|---|---|---|"
    for one in found:
        yield f"| {one.stage} | {one.tokens / 1e6:,.1f} | {one.gpu_hours:.2f} |"
    total = sum(one.gpu_hours for one in found)
    yield f"| all, and {judge_requests(settings):,} questions to the judge | | {total:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path, help="YAML file with a `size`, such as full.yaml")
    path: Path = parser.parse_args().settings
    with clean_exit():
        print("\n".join(table(read(path))))


if __name__ == "__main__":
    main()
