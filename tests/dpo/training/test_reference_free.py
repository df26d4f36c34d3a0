"""Losses without a reference train without stored log-probs, and the metrics say so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dpo.config import TrainConfig
from dpo.errors import MismatchError, UsageError
from dpo.loss import REFERENCE_FREE
from dpo.training.loop import train
from tests.dpo.conftest import Arena

ConfigOf = Callable[..., TrainConfig]


@pytest.fixture
def bare(arena: Arena, tmp_path: Path) -> Path:
    """Copy the build without its reference log-probs."""
    data = shutil.copytree(arena.data, tmp_path / "bare")
    shutil.rmtree(data / "reference")
    return data


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", sorted(REFERENCE_FREE))
def test_a_loss_without_a_reference_needs_no_log_probs(
    name: str, bare: Path, config_of: ConfigOf
) -> None:
    config = config_of(data=str(bare), loss={"name": name}, steps=2)
    heard: list[str] = []

    train(config, on_message=heard.append)

    assert any("without reference log-probs" in line and "rewards/" in line for line in heard)
    assert not (bare / "reference").exists()
    for line in lines(config.out):
        names = [key.removeprefix("eval/") for key in line]
        assert not [key for key in names if key.startswith(("rewards/", "logratios/", "kl_"))]
        assert "logps/chosen" in names
    assert (config.out / "report.html").exists()
    assert (config.out / "model" / "README.md").exists()


def test_the_steps_are_the_same_with_and_without_a_reference(
    bare: Path, config_of: ConfigOf, tmp_path: Path
) -> None:
    loss = [{"name": "simpo"}, {"name": "sft_norm", "weight": 0.5}]
    alone = train(config_of(data=str(bare), loss=loss)).out
    stored = train(config_of(loss=loss, out=str(tmp_path / "stored"))).out
    unused = train(config_of(loss=loss, reference=None, out=str(tmp_path / "unused"))).out

    def weights(out: Path) -> bytes:
        return (out / "model" / "model.safetensors").read_bytes()

    assert weights(alone) == weights(stored) == weights(unused)
    assert "rewards/margins" in lines(stored)[0]
    assert "rewards/margins" not in lines(unused)[0]


@pytest.mark.parametrize("changes", [{"wpo": True}, {"ld_alpha": 0.5}, {"sampo": True}])
def test_weights_of_tokens_need_no_reference(
    changes: dict[str, object], bare: Path, config_of: ConfigOf
) -> None:
    out = train(config_of(data=str(bare), loss={"name": "simpo"}, steps=1, **changes)).out

    assert torch.isfinite(torch.tensor(lines(out)[0]["loss"]))


def test_a_list_with_one_loss_of_the_reference_needs_it(bare: Path, config_of: ConfigOf) -> None:
    mixed = [{"name": "simpo"}, {"name": "dpo"}]
    with pytest.raises(MismatchError, match=r"no finished reference log-probs.*T203"):
        train(config_of(data=str(bare), loss=mixed))
    with pytest.raises(UsageError, match=r"dpo needs reference log-probs.*T122"):
        config_of(loss=mixed, reference=None)


def test_a_reference_that_is_named_must_be_there(bare: Path, config_of: ConfigOf) -> None:
    with pytest.raises(MismatchError, match="T203"):
        train(config_of(data=str(bare), loss={"name": "orpo"}, reference={"name": "mine"}))


def test_a_loss_of_ones_own_says_that_it_needs_none(
    bare: Path, config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "free_losses.py").write_text(
        "def gap(logps, *, beta=0.1):\n    return beta * (logps.rejected - logps.chosen)\n\n\n"
        "gap.reference_free = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    out = train(config_of(data=str(bare), loss={"name": "free_losses:gap"}, steps=1)).out

    assert "rewards/chosen" not in lines(out)[0]
