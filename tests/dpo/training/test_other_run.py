"""A directory of another run: the error names the settings that differ, with both values."""

import shutil
from collections.abc import Callable

import orjson
import pytest

from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.training.checkpoint import State
from dpo.training.loop import train
from prefdata.store.canonical import to_json

ConfigOf = Callable[..., TrainConfig]


def test_a_finished_run_names_what_differs(config_of: ConfigOf) -> None:
    train(config_of(seed=3))

    changed = config_of(seed=1, optimizer={"learning_rate": 5e-4}, loss={"name": "ipo"})
    with pytest.raises(UsageError, match="T141") as caught:
        train(changed)
    for part in (
        "seed 3 there, 1 here",
        "optimizer.learning_rate 0.001 there, 0.0005 here",
        "loss.name 'dpo' there, 'ipo' here",
    ):
        assert part in caught.value.problem


def test_a_checkpoint_names_what_differs(config_of: ConfigOf) -> None:
    train(config_of(checkpoint_every=1))
    (config_of().out / "run.json").unlink()

    with pytest.raises(UsageError, match="T140") as caught:
        train(config_of(seed=1, lora={"r": 2}))
    assert "seed 0 there, 1 here" in caught.value.problem
    assert "lora null there, set here" in caught.value.problem


def test_another_reference_is_named(config_of: ConfigOf) -> None:
    train(config_of(checkpoint_every=1, loss={"name": "simpo"}))
    (config_of().out / "run.json").unlink()

    with pytest.raises(UsageError, match=r"reference log-probs [0-9a-f]{12} there, null here"):
        train(config_of(loss={"name": "simpo"}, reference=None))


def test_a_checkpoint_of_an_earlier_version_still_works(config_of: ConfigOf) -> None:
    """Its state has no settings: it resumes, and an error about it cannot name them."""
    config = config_of(checkpoint_every=1)
    train(config)
    (config.out / "run.json").unlink()
    path = config.out / "checkpoints/step-00000002/state.json"
    state = State.model_validate(orjson.loads(path.read_bytes()))
    assert state.decides["seed"] == 0
    old = state.model_copy(update={"decides": {}})
    old = old.model_copy(update={"hash": old.own_hash()})
    path.write_bytes(old.to_bytes())
    assert b"decides" not in path.read_bytes()

    heard: list[str] = []
    train(config, on_message=heard.append)
    assert "resumes after step 2" in heard
    (config.out / "run.json").unlink()
    with pytest.raises(UsageError, match=r"other settings, data or weights.*T140"):
        train(config_of(seed=1))


def test_a_run_without_checkpoints_that_begins_anew_says_so(config_of: ConfigOf) -> None:
    train(config_of(steps=2))
    heard: list[str] = []

    train(config_of(steps=4), on_message=heard.append)

    (said,) = [line for line in heard if "begins again at step 1" in line]
    assert "2 steps" in said
    assert "checkpoint_every" in said


def test_a_lost_checkpoint_of_a_stopped_run_is_reported(config_of: ConfigOf) -> None:
    config = config_of(steps=2, checkpoint_every=1)
    train(config)
    (config.out / "run.json").unlink()
    shutil.rmtree(config.out / "checkpoints")
    heard: list[str] = []

    train(config, on_message=heard.append)

    assert any("begins again at step 1" in line for line in heard)


def test_a_run_json_is_canonical(config_of: ConfigOf) -> None:
    out = train(config_of()).out
    data = (out / "run.json").read_bytes()

    assert data == to_json(orjson.loads(data))
