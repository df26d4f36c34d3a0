"""The sentiment experiment end to end on a tiny model, its statistics, and its figure."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pipelines.commands import RecipeError
from pipelines.paper.sentiment.data import keep_ended, prompt_rows, sft_rows
from pipelines.paper.sentiment.evaluate import Point
from pipelines.paper.sentiment.figure import draw
from pipelines.paper.sentiment.peers import peers
from pipelines.paper.sentiment.ppo import load_tokenizer
from pipelines.paper.sentiment.result import advantages, best_of_points, places_of, schema
from pipelines.paper.sentiment.run import Experiment
from pipelines.paper.sentiment.settings import HERE, Settings, keep, read, runs
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
        "points": [1, 2], "seeds": [0, 1], "other_seeds": [0, 1], "dpo": [0.1],
        "unlikelihood": [0.5], "best_of": [1, 2, 4], "rloo": [], "ppo": [], "ppo_batches": 2,
        "held_out": 6, "eval_k": 2,
    }  # fmt: skip
    return Settings.model_validate(read(HERE / "settings.yaml").model_dump() | changes)


def test_the_experiment_runs_by_commands_and_resumes_where_it_stopped(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings.model_copy(update={"ppo": [0.05]})
    no_ppo = tmp_path / "ppo"
    first = Invoked(fail_at=10)
    with pytest.raises(KeyboardInterrupt):
        Experiment(settings, first, ppo_library=no_ppo).run()

    rest = Invoked()
    result = Experiment(settings, rest, ppo_library=no_ppo).run()

    # the second run was trained, but not all of it evaluated
    assert first.names[:6] == [
        "prefdata", "dpo-train", "dpo-sample", "prefdata", "dpo-ref", "dpo-sample"
    ]  # fmt: skip
    assert first.names[6:] == ["dpo-train", "dpo-export", "dpo-train", "dpo-export"]
    assert rest.names == ["dpo-ref", *["dpo-train", "dpo-export"] * 5]
    again = Invoked()
    assert Experiment(settings, again, ppo_library=no_ppo).run().points == result.points
    assert again.names == ["dpo-ref"]

    why = "TRL 1.12 is not installed; `make ppo` installs it"
    assert result.left_out == {"ppo (TRL 1.12)": why}
    assert f"ppo (TRL 1.12) is left out: {why}\n" in capsys.readouterr().out
    found = {(place.method, place.setting, place.step, place.seeds) for place in result.places}
    trained = [("dpo", "0.1"), ("unlikelihood", "0.5"), ("preferred-ft", "")]
    best = {("best-of-n", str(n), 0, 1) for n in (1, 2, 4)}
    assert found == best | {(*one, step, 2) for one in trained for step in (1, 2)}
    assert all(point.kl > -0.5 and point.num_samples >= 12 for point in result.points)
    compared = {(one.method, one.setting) for one in result.advantages}
    assert compared == {("best-of-n", "2"), ("best-of-n", "4"), *trained[1:]}
    assert json.loads((settings.out / "result.json").read_text())["points"]
    assert {path.suffix for path in (settings.out / "runs").iterdir()} == {".json"}
    ElementTree.fromstring((settings.out / "frontier.svg").read_text("utf-8"))
    shutil.rmtree(settings.out)


class AlsoPython(Invoked):
    """The commands in this process, but for those of `python`, which get one of their own."""

    def __call__(self, words: Sequence[str]) -> None:
        if words[0] != "python":
            return super().__call__(words)
        self.names.append(words[2])
        subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
        return None


def only(settings: Settings, out: Path, **methods: Any) -> Settings:
    """Return the settings with no method but these."""
    none = {"dpo": [], "unlikelihood": [], "sft_on_chosen": False, "out": out}
    return Settings.model_validate(settings.model_dump() | none | methods)


@pytest.fixture
def with_ppo(settings: Settings, tmp_path: Path) -> Settings:
    found = only(settings, tmp_path / "out", ppo=[0.05], other_seeds=[0])
    if peers(found)[0].missing:
        pytest.skip("TRL 1.12 is not in .venv/ppo: `make ppo`")
    return found


def test_ppo_of_trl_is_a_point_and_is_not_run_twice(with_ppo: Settings) -> None:
    first, again = AlsoPython(), AlsoPython()

    result = Experiment(with_ppo, first).run()

    assert first.names[-1] == "pipelines.paper.sentiment.ppo"
    (found,) = (one for one in result.points if one.method == "ppo (TRL 1.12)")
    assert (found.setting, found.seed, found.step) == ("0.05", 0, 2)
    assert found.num_samples == 12
    assert result.left_out == {}
    assert [path.name for path in (with_ppo.out / "runs").iterdir()] == [
        "ppo-0.05-seed0.points.json"
    ]
    assert Experiment(with_ppo, again).run().points == result.points
    assert again.names == ["dpo-ref"]


def test_padding_is_not_the_end_of_a_completion(settings: Settings) -> None:
    """TRL's PPO masks padding by its id: an end that also pads would get no gradient."""
    tokenizer = load_tokenizer(settings.model)

    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in tokenizer(["a b c", "a"], padding=True)["input_ids"][1]


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
    assert len(list(runs(settings))) == 4 * 3 + 5
    assert len(set(runs(settings))) == 4 * 3 + 5
    assert max(settings.points) == 48
    assert "steps=48" in settings.train
    assert settings.ppo_batches * 4 == 48  # optimizer steps, with TRL's four passes over a batch


def test_settings_of_what_is_there_may_not_change_but_for_the_runs(tmp_path: Path) -> None:
    before = read(HERE / "settings.yaml").model_copy(update={"out": tmp_path})
    keep(before)

    assert read(tmp_path / "settings.json") == before
    keep(before.model_copy(update={"seeds": [0], "dpo": [0.1], "rloo": [], "ppo": []}))
    with pytest.raises(RecipeError, match=r"json: held_out was 120, and is 60; set it back"):
        keep(before.model_copy(update={"held_out": 60}))


def test_a_setting_of_a_method_that_was_not_there_yet_may_be_anything(tmp_path: Path) -> None:
    settings = read(HERE / "settings.yaml").model_copy(update={"out": tmp_path})
    older = settings.model_dump(mode="json", exclude={"ppo", "ppo_learning_rate", "ppo_batches"})
    (tmp_path / "settings.json").write_text(json.dumps(older))

    keep(settings)

    with pytest.raises(RecipeError, match="ppo_learning_rate was"):
        keep(settings.model_copy(update={"ppo_learning_rate": 1.0}))


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


def test_dpo_is_compared_with_others_at_their_kl_seed_by_seed() -> None:
    dpo = [(0.7, 2.0), (0.6, 3.0), (0.9, 4.0)]  # its frontier: 0.5, 0.7 and 0.9 at 0, 2 and 4 nats
    found = advantages(
        [
            point("best-of-n", 0.5, 0.0),
            *(point("dpo", reward, kl, seed) for seed in (0, 1) for reward, kl in dpo),
            *(point("sft", 0.6, 1.0 + seed, seed) for seed in (0, 1)),
            point("far", 0.9, 4.1),
            point("single", 0.65, 3.0),
        ]
    )

    sft, far, single = found
    assert (sft.method, sft.kl, sft.seeds) == ("sft", 1.5, 2)
    assert sft.value == pytest.approx((0.0 + 0.1) / 2)
    # scipy.stats.t.interval(0.95, 1, loc=0.05, scale=0.05) is -0.5853 to 0.6853
    assert sft.interval == pytest.approx(0.6353, abs=1e-4)
    assert (far.value, far.interval) == (None, None)
    assert single.value == pytest.approx(0.15)


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
