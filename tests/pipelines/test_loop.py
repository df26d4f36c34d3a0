"""The loop end to end on a tiny model: killed at each stage, changed, and labelled by a judge."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from dpo.display import Bars
from pipelines.commands import RecipeError
from pipelines.loop import record, settings
from pipelines.loop.record import LoopRecord, table
from pipelines.loop.run import Loop
from pipelines.loop.settings import LoopConfig, read
from prefdata.store.manifest import read_manifest
from tests.dpo.judging.judge import answers_in, says
from tests.dpo.server.loopback import Asked, Loopback, Reply, well
from tests.dpo.tiny import save_tiny
from tests.pipelines.invoked import Invoked

ROOT = Path(__file__).resolve().parents[2]
Changes = dict[str, Any]
STOP_SCORER: list[int] = []
"""Numbers of calls after which the scorer gets a Ctrl-C, one for each."""


def by_length(*, prompts: list[Any], completions: list[str]) -> list[float]:
    assert len(prompts) == len(completions)
    if STOP_SCORER:
        STOP_SCORER[0] -= 1
        if STOP_SCORER[0] < 0:
            STOP_SCORER.pop(0)
            raise KeyboardInterrupt
    return [len(text) / 40 for text in completions]


class Killed(Invoked):
    """The same; each command gets a Ctrl-C within its work, and then one when it is finished."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.times: Counter[str] = Counter()
        self.cuts: list[str] = []
        self.left = 10**6
        monkeypatch.setattr(Bars, "_log", self._advanced)

    def _advanced(self, _line: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def __call__(self, words: Sequence[str]) -> None:
        command = f"{words[0]} {words[-1] if words[0] == 'prefdata' else words[1]}"
        self.times[command] += 1
        self.left = 2 if self.times[command] == 1 else 10**6
        if words[0] == "dpo-judge" and self.times[command] == 1:
            STOP_SCORER.append(3)
        try:
            super().__call__(words)
        except KeyboardInterrupt:
            self.cuts.append(words[0])
            raise
        if self.times[command] == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Changes:
    folder = tmp_path_factory.mktemp("loop")
    for name, count in (("prompts", 12), ("held_out", 4)):
        rows = [{"prompt": f"Tell me {name} {n} of a dog", "meta": {"n": n}} for n in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": save_tiny(folder / "model"),
        "prompts": str(folder / "prompts.jsonl"),
        "held_out": str(folder / "held_out.jsonl"),
        "rounds": 2,
        "prompts_per_round": 8,
        "max_new_tokens": 12,
        "batch_size": 4,
        "sample": {"k": 2},
        "label": {"scorer": f"{__name__}:by_length", "only_ended": False},
        "build": {"severity": {"PD402": "off"}},
        "earlier_weights": [0.5],
        "train": {
            "checkpoint_every": 1, "steps": 2, "global_batch_size": 4,
            "optimizer": {"learning_rate": 1e-2},
        },
    }  # fmt: skip


def config_of(values: Changes, out: Path, **changes: Any) -> LoopConfig:
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(values | {"out": str(out)} | changes), encoding="utf-8")
    return read(file)


@pytest.fixture(scope="module")
def finished(values: Changes, tmp_path_factory: pytest.TempPathFactory) -> LoopRecord:
    return Loop(config_of(values, tmp_path_factory.mktemp("whole") / "out"), Invoked()).run()


def hashes(found: LoopRecord) -> list[tuple[int, str, dict[str, str]]]:
    return [
        (one.round, name, of.hashes)
        for one in found.rounds
        for name, of in sorted(one.stages.items())
    ]


def test_each_round_starts_from_the_model_of_the_round_before(finished: LoopRecord) -> None:
    first, one, two = finished.rounds

    assert list(first.stages) == ["evaluate"]
    assert list(one.stages) == ["sample", "label", "build", "reference", "train", "evaluate"]
    assert two.stages["reference"].hashes["weights"] == one.stages["train"].hashes["weights"]
    assert two.stages["train"].hashes["weights"] != one.stages["train"].hashes["weights"]
    out = finished.config.out
    manifest = read_manifest(out / "round-2" / "data")
    assert manifest.hash == two.stages["build"].hashes["manifest"]
    weights = {mix.name: mix.weight for mix in manifest.mixture}
    assert weights == {"round 2": 1.0, "round 1": 0.5}
    prompts = [
        [json.loads(line)["meta"]["n"] for line in lines.splitlines()]
        for lines in ((out / f"round-{n}" / "prompts.jsonl").read_text() for n in (1, 2))
    ]
    assert set(prompts[0]) | set(prompts[1]) == set(range(12))


def test_figures_are_of_fresh_samples_and_kl_is_from_the_first_model(finished: LoopRecord) -> None:
    figures = [one.figures for one in finished.rounds]

    assert [of and of.num_samples for of in figures] == [4, 4, 4]
    kl = [of.kl if of else 0.0 for of in figures]
    assert kl[0] == pytest.approx(0.0, abs=1e-3)
    assert abs(kl[1]) > 0.05
    console = Console(record=True, width=120)
    console.print(table(finished))
    assert f"{kl[2]:.2f} ± " in console.export_text()
    stages = [of for one in finished.rounds for of in one.stages.values()]
    assert all(of.seconds and of.seconds > 0 for of in stages)


def test_a_finished_loop_runs_no_command(finished: LoopRecord) -> None:
    again = Invoked()

    assert Loop(finished.config, again).run() == finished
    assert again.names == []


def test_a_loop_killed_within_and_after_each_stage_ends_the_same(
    values: Changes, finished: LoopRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, killed = config_of(values, tmp_path / "out"), Killed(monkeypatch)
    STOP_SCORER.append(1)  # in the evaluation of the first model
    starts = 0
    found = None
    while found is None:
        starts += 1
        assert starts < 40
        with suppress(KeyboardInterrupt):
            found = Loop(config, killed).run()

    assert hashes(found) == hashes(finished)
    assert [one.figures for one in found.rounds] == [one.figures for one in finished.rounds]
    assert STOP_SCORER == []
    assert {"dpo-sample", "dpo-judge", "dpo-ref", "dpo-train"} <= set(killed.cuts)
    assert killed.times["dpo-sample " + str(tmp_path / "out/round-1/prompts.jsonl")] == 2
    assert killed.times["dpo-train " + str(tmp_path / "out/round-2/train.yaml")] == 3


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "seed"),
        ({"sample": {"k": 3}}, "sample.k"),
        ({"train": {"checkpoint_every": 1, "global_batch_size": 4, "steps": 2}}, "train.optimizer"),
        ({"build": {"severity": {"PD402": "W"}}}, "build.severity.PD402"),
        ({"earlier_weights": []}, "earlier_weights"),
        ({"rounds": 1}, "rounds"),
    ],
)
def test_a_key_that_decided_a_finished_stage_may_not_change(
    values: Changes, finished: LoopRecord, changes: Changes, key: str, tmp_path: Path
) -> None:
    file = tmp_path / "loop.yaml"
    file.write_text(yaml.safe_dump(values | {"out": str(finished.config.out)} | changes))

    with pytest.raises(RecipeError, match=rf"loop\.json: {key} (has changed|is 1)"):
        Loop(read(file), Invoked()).run()


def test_a_stage_whose_files_are_gone_is_made_again(values: Changes, tmp_path: Path) -> None:
    config = config_of(values, tmp_path / "out", rounds=1)
    before = Loop(config, Invoked()).run()
    (config.out / "round-1" / "verdicts.jsonl").unlink()
    (config.out / "round-1" / "run" / "run.json").unlink()
    again = Invoked()

    assert hashes(Loop(config, again).run()) == hashes(before)
    assert again.names == ["dpo-judge", "dpo-train"]

    samples = config.out / "round-1" / "samples.jsonl"
    whole = samples.read_bytes()
    samples.write_bytes(whole[:-1] + b" \n")
    with pytest.raises(RecipeError, match="is not what later stages were made of: its samples"):
        Loop(config, Invoked()).run()
    samples.write_bytes(whole[:-9])
    with pytest.raises(RecipeError, match=r"samples\.jsonl: is not JSON .*; restore it"):
        Loop(config, Invoked()).run()


def longer_wins(asked: Asked) -> Reply:
    if asked.body is None:
        return well(asked)
    first, second = (len(one) for one in answers_in(asked.body["messages"][-1]["content"]))
    return says(f"Verdict: {'tie' if first == second else 'AB'[second > first]}")


def test_a_server_can_judge_and_the_first_model_can_be_the_reference(
    values: Changes, tmp_path: Path
) -> None:
    with Loopback(longer_wins) as server:
        label = {"server": {"url": server.url, "concurrency": 4}, "only_ended": False}
        config = config_of(
            values, tmp_path / "out", label=label, reference="first", earlier_weights=[]
        )
        found = Loop(config, Invoked()).run()

    first, one, two = found.rounds
    assert first.figures is not None
    assert first.figures.score is None
    references = {of.stages["reference"].hashes["weights"] for of in (one, two)}
    assert len(references) == 1
    rows = (tmp_path / "out" / "round-2" / "verdicts.jsonl").read_text().splitlines()
    assert all(json.loads(row)["judge"]["model"] == "tiny" for row in rows)
    moved = {**label, "server": {"url": "http://localhost:1", "retries": 0}}
    again = Invoked()
    Loop(
        config_of(values, tmp_path / "out", label=moved, reference="first", earlier_weights=[]),
        again,
    ).run()
    assert again.names == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"round": 1}, "round: no such key; did you mean 'rounds'?"),
        ({"train": {"lr": 1.0}}, "train: lr: no such key"),
        ({"train": {"data": "x"}}, "train: data is set by the loop itself"),
        ({"build": {"sede": 1}}, "build: sede: no such key; did you mean 'seed'?"),
        ({"label": {}}, "label: give one of scorer and server"),
        ({"prompts_per_round": 13}, "prompts_per_round: is 13, and .* has 12 prompts"),
        ({"train": {"lora": {}, "save": {"merged": False}}}, "leaves no model for the next round"),
    ],
)
def test_a_wrong_key_is_named(values: Changes, changes: Changes, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        Loop(config_of(values, tmp_path / "out", **changes), Invoked()).run()


def test_the_shipped_loop_is_sound_and_its_schemas_are_current() -> None:
    config = read(ROOT / "pipelines" / "loop" / "loop.yaml")

    assert (config.rounds, config.scorer) == (3, "pipelines.quickstart.scorer:compound")
    for module, name in ((settings, "loop-config"), (record, "loop")):
        remedy = f"run `python -m {module.__name__} schemas/{name}.schema.json`"
        path = ROOT / "schemas" / f"{name}.schema.json"
        assert path.read_text(encoding="utf-8") == module.schema(), remedy
