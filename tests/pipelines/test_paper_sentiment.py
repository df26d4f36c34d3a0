"""The sentiment experiment end to end on a tiny model, its statistics, and its figure."""

import json
import shutil
from typing import Any
from xml.etree import ElementTree

import pytest

from pipelines.paper.sentiment.data import keep_ended, prompt_rows, sft_rows
from pipelines.paper.sentiment.evaluate import Point
from pipelines.paper.sentiment.figure import draw
from pipelines.paper.sentiment.result import best_of_points, dominated, places_of, schema
from pipelines.paper.sentiment.run import Experiment
from pipelines.paper.sentiment.settings import HERE, Settings, read, runs
from tests.dpo.tiny import save_tiny
from tests.pipelines.invoked import Invoked


def by_length(*, prompts: list[Any], completions: list[str]) -> list[float]:
    assert len(prompts) == len(completions)
    return [len(text) / 40 for text in completions]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("experiment")
    changes = {
        "model": save_tiny(folder / "model", template=None), "out": folder / "out",
        "scorer": f"{__name__}:by_length", "max_new_tokens": 24, "num_prompts": 16, "k": 4,
        "sft": ["epochs=null", "steps=30", "global_batch_size=8", "optimizer.learning_rate=1e-2"],
        "train": [
            "epochs=null", "steps=2", "global_batch_size=4",
            "optimizer={name: adamw, learning_rate: 1e-2}",
        ],
        "points": [1, 2], "seeds": [0, 1], "dpo": [0.1], "unlikelihood": [0.5],
        "best_of": [1, 2, 4], "rloo": [], "held_out": 6, "eval_k": 2,
    }  # fmt: skip
    return Settings.model_validate(read(HERE / "settings.yaml").model_dump() | changes)


def test_the_experiment_runs_by_commands_and_resumes_where_it_stopped(settings: Settings) -> None:
    first = Invoked(fail_at=10)
    with pytest.raises(KeyboardInterrupt):
        Experiment(settings, first).run()

    rest = Invoked()
    result = Experiment(settings, rest).run()

    # the second run was trained, but not all of it evaluated
    assert first.names[:6] == [
        "prefdata", "dpo-train", "dpo-sample", "prefdata", "dpo-ref", "dpo-sample"
    ]  # fmt: skip
    assert first.names[6:] == ["dpo-train", "dpo-export", "dpo-train", "dpo-export"]
    assert rest.names == ["dpo-ref", *["dpo-train", "dpo-export"] * 5]
    again = Invoked()
    assert Experiment(settings, again).run().points == result.points
    assert again.names == ["dpo-ref"]

    found = {(place.method, place.setting, place.step, place.seeds) for place in result.places}
    trained = [("dpo", "0.1"), ("unlikelihood", "0.5"), ("preferred-ft", "")]
    best = {("best-of-n", str(n), 0, 1) for n in (1, 2, 4)}
    assert found == best | {(*one, step, 2) for one in trained for step in (1, 2)}
    assert all(point.kl > -0.5 and point.num_samples >= 12 for point in result.points)
    assert set(result.dominated) == {"best-of-n", "unlikelihood", "preferred-ft"}
    assert json.loads((settings.out / "result.json").read_text())["points"]
    assert {path.suffix for path in (settings.out / "runs").iterdir()} == {".json"}
    ElementTree.fromstring((settings.out / "frontier.svg").read_text("utf-8"))
    shutil.rmtree(settings.out)


def test_the_schema_of_the_result_is_current() -> None:
    remedy = "run `python -m pipelines.paper.sentiment.result schemas/frontier.schema.json`"
    path = HERE.parents[2] / "schemas" / "frontier.schema.json"

    assert path.read_text(encoding="utf-8") == schema(), remedy


def test_the_shipped_settings_are_those_of_the_papers_figure() -> None:
    settings = read(HERE / "settings.yaml")

    assert settings.dpo == [0.05, 0.1, 1.0, 5.0]
    assert settings.unlikelihood == [0.05, 0.1, 0.5, 1.0]
    assert settings.best_of[0] == 1
    assert settings.best_of[-1] == 64
    assert (settings.k, len(settings.seeds)) == (4, 3)
    assert len(list(runs(settings))) == 9 * 3
    assert max(settings.points) == 48
    assert "steps=48" in settings.train


def test_texts_are_split_at_their_beginning() -> None:
    rows = sft_rows()

    assert len(rows) == 684
    assert all(row["chosen"].startswith(" ") and len(row["prompt"].split()) <= 8 for row in rows)
    prompts = [row["prompt"] for row in prompt_rows("prompts", 24)]
    assert len(set(prompts)) == 24
    assert {row["prompt"] for row in prompt_rows("held_out", 120)}.isdisjoint(prompts)


def test_only_ended_completions_of_different_scores_are_ranked() -> None:
    def row(*items: tuple[float, bool]) -> dict[str, Any]:
        return {"completions": [{"score": score, "ended": ended} for score, ended in items]}

    found = keep_ended(
        [row((0.1, True), (0.2, True), (0.9, False)), row((0.1, True), (0.2, False))]
    )

    assert found == [row((0.1, True), (0.2, True))]


def point(method: str, reward: float, kl: float, seed: int = 0) -> Point:
    return Point(
        method=method, setting="1", seed=seed, step=8, reward=reward, reward_se=0.01, kl=kl,
        kl_se=0.1, num_samples=4, mean_tokens=9.0, share_ended=1.0,
    )  # fmt: skip


def test_intervals_are_students_over_seeds_and_normal_over_prompts() -> None:
    one, three = places_of(
        [point("sft", 0.5, 1.0), *(point("dpo", 0.5 + n / 10, 2.0 + n, n) for n in range(3))]
    )

    assert (one.reward, one.reward_interval) == (0.5, pytest.approx(0.0196))
    assert three.reward == pytest.approx(0.6)
    # scipy.stats.t.interval(0.95, 2, loc=0.6, scale=0.1 / 3**0.5) is 0.3516 to 0.8484
    assert three.reward_interval == pytest.approx(0.2484, abs=1e-4)
    assert three.kl_interval == pytest.approx(2.484, abs=1e-3)


def test_a_point_is_dominated_by_one_of_dpo_with_more_reward_at_less_kl() -> None:
    places = places_of(
        [
            point("dpo", 0.8, 3.0),
            *(point(f"other{n}", reward, kl) for n, (reward, kl) in enumerate(
                [(0.7, 4.0), (0.9, 4.0), (0.7, 2.0), (0.8, 3.0)]
            )),
        ]
    )  # fmt: skip

    assert list(dominated(places).values()) == ["1 of 1", "0 of 1", "0 of 1", "1 of 1"]


def test_best_of_n_grows_from_the_mean_to_the_maximum() -> None:
    rows = [
        {"completions": [{"score": s, "num_tokens": 3, "ended": True} for s in scores]}
        for scores in ([0.0, 1.0, 0.5, 0.5], [0.2, 0.2, 0.2, 0.6])
    ]

    found = best_of_points(rows, [1, 2, 4])

    assert [one.reward for one in found] == pytest.approx([0.4, (0.75 + 0.4) / 2, 0.8])
    assert [one.kl for one in found] == pytest.approx([0.0, 0.1931, 0.6363], abs=1e-4)


def test_the_figure_has_every_point_within_its_frame() -> None:
    places = places_of([point("dpo", 0.8, 3.0), point("<b>", 1.0, 9.0), point("dpo", 0.7, 4.0, 1)])

    tree = ElementTree.fromstring(draw(places, "a < b"))

    dots = [one for one in tree.iter() if one.tag.endswith("circle") and len(one)]
    assert len(dots) == len(places)
    for dot in dots:
        assert 0 <= float(dot.get("cx", -1)) <= 720
        assert 0 <= float(dot.get("cy", -1)) <= 440
