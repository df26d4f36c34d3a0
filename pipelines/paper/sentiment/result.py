"""The frontier: points of all seeds, their intervals, and which of them DPO dominates.

python -m pipelines.paper.sentiment.result schemas/frontier.schema.json
"""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeFloat

from dpo import best_of_kl, expected_best
from pipelines.paper.sentiment.evaluate import Point

T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""97.5 % point of Student's t for this number of seeds."""
NORMAL_975 = 1.96


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Place(Part):
    """Mean over the seeds of one method, setting and step, with 95 % intervals."""

    method: str
    setting: str
    step: int
    seeds: int
    reward: float
    reward_interval: NonNegativeFloat
    """Half of the width: Student's t over seeds; with one seed, over prompts."""
    kl: float
    kl_interval: NonNegativeFloat


class Frontier(Part):
    """Outcome of the experiment."""

    places: list[Place]
    dominated: dict[str, str]
    """For each other method, how many of its points have a point of DPO with at least their reward
    at no more KL."""
    left_out: dict[str, str]
    """Methods that were not run, and why."""
    points: list[Point]
    seconds: dict[str, float]
    """Wall time of each stage, in this and earlier starts."""
    settings: dict[str, Any]
    versions: dict[str, str]


def places_of(points: Iterable[Point]) -> list[Place]:
    """Return the means over seeds, in the order of the points."""
    groups: dict[tuple[str, str, int], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.method, point.setting, point.step].append(point)
    return [
        Place(
            method=method, setting=setting, step=step, seeds=len(group),
            reward=statistics.mean(point.reward for point in group),
            reward_interval=_half_width([p.reward for p in group], group[0].reward_se),
            kl=statistics.mean(point.kl for point in group),
            kl_interval=_half_width([p.kl for p in group], group[0].kl_se),
        )
        for (method, setting, step), group in groups.items()
    ]  # fmt: skip


def _half_width(values: Sequence[float], error: float) -> float:
    if len(values) == 1:
        return NORMAL_975 * error
    return T_975[len(values)] * statistics.stdev(values) / len(values) ** 0.5


def best_of_points(rows: list[dict[str, Any]], sizes: list[int]) -> list[Point]:
    """Return best-of-N from completions of the reference with their scores, for each N.

    The reward is exact for the completions given (`expected_best`), the KL its upper bound.
    """
    scores = [[one["score"] for one in row["completions"]] for row in rows]
    completions = [one for row in rows for one in row["completions"]]
    found = []
    for size in sizes:
        means = [expected_best(row, size) for row in scores]
        found.append(
            Point(
                method="best-of-n", setting=str(size), seed=0, step=0,
                reward=statistics.mean(means),
                reward_se=statistics.stdev(means) / len(means) ** 0.5,
                kl=best_of_kl(size), kl_se=0.0, num_samples=len(completions),
                mean_tokens=statistics.mean(one["num_tokens"] for one in completions),
                share_ended=statistics.mean(one["ended"] for one in completions),
            )
        )  # fmt: skip
    return found


def dominated(places: Sequence[Place]) -> dict[str, str]:
    """Return, for each other method, how many of its points lie below a point of DPO."""
    dpo = [place for place in places if place.method == "dpo"]
    counts: dict[str, list[bool]] = defaultdict(list)
    for place in places:
        if place.method != "dpo" and place.kl > 0:
            below = any(one.kl <= place.kl and one.reward >= place.reward for one in dpo)
            counts[place.method].append(below)
    return {method: f"{sum(below)} of {len(below)}" for method, below in counts.items()}


def schema() -> str:
    return json.dumps(Frontier.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
