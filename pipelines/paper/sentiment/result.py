"""The frontier: points of all seeds, their intervals, and DPO against the others at equal KL.

python -m pipelines.paper.sentiment.result schemas/frontier.schema.json
"""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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


class Advantage(Part):
    """Reward of DPO minus that of another method's point, at the KL of that point.

    DPO's reward there is read from its frontier, seed by seed: the most reward at no more KL,
    joined by straight lines from the reference on.
    """

    method: str
    setting: str
    step: int
    kl: float
    value: float | None
    """Mean over seeds; null if a seed's point is farther from the reference than any of DPO's."""
    interval: NonNegativeFloat | None
    """Half of the 95 % interval: Student's t over seeds; null with one seed."""
    seeds: int


class Frontier(Part):
    """Outcome of the experiment."""

    places: list[Place]
    advantages: list[Advantage]
    """DPO against each point of another method, at equal KL."""
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


def advantages(points: Sequence[Point]) -> list[Advantage]:
    """Return what DPO gains over each point of other methods, and best-of-1 is the reference."""
    origin = next(p for p in points if (p.method, p.setting) == ("best-of-n", "1"))
    curves = {p.seed: _frontier(origin, points, p.seed) for p in points if p.method == "dpo"}
    groups: dict[tuple[str, str, int], list[Point]] = defaultdict(list)
    for point in points:
        if point.method != "dpo" and point != origin:
            groups[point.method, point.setting, point.step].append(point)
    return [_advantage(group, curves) for group in groups.values()] if curves else []


def _frontier(origin: Point, points: Sequence[Point], seed: int) -> tuple[list[float], list[float]]:
    """Return KL and reward of the points of one seed of DPO that no other has more reward than."""
    own = [p for p in points if p.method == "dpo" and p.seed == seed]
    kls, rewards = [0.0], [origin.reward]
    for point in sorted(own, key=lambda p: p.kl):
        if point.kl > kls[-1] and point.reward > rewards[-1]:
            kls.append(point.kl)
            rewards.append(point.reward)
    most = max([kls[-1], *(p.kl for p in own)])
    return [*kls, most], [*rewards, rewards[-1]]


def _advantage(group: list[Point], curves: dict[int, tuple[list[float], list[float]]]) -> Advantage:
    """Compare points with DPO of their seed, or with each of DPO's seeds if they have only one."""
    pairs = [(p, curves[p.seed]) for p in group if p.seed in curves]
    if len(group) == 1:
        pairs = [(group[0], curve) for curve in curves.values()]
    is_within = all(p.kl <= kls[-1] for p, (kls, _) in pairs)
    gains = [float(np.interp(p.kl, kls, rewards)) - p.reward for p, (kls, rewards) in pairs]
    spread = _half_width(gains, 0.0) if len(gains) > 1 else None
    first = group[0]
    return Advantage(
        method=first.method, setting=first.setting, step=first.step, seeds=len(gains),
        kl=statistics.mean(p.kl for p in group),
        value=statistics.mean(gains) if is_within else None, interval=spread if is_within else None,
    )  # fmt: skip


def schema() -> str:
    return json.dumps(Frontier.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
