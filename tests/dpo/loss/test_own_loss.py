"""A loss of one's own by `module:function`: its settings are those of its signature."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from dpo.config import LossConfig, TrainConfig
from dpo.config_file import parse_config
from dpo.errors import UsageError
from dpo.loss import PairLogps, find_loss, settings
from dpo.training.loop import train
from dpo.training.objective import Objective
from tests.dpo.loss.test_loss import pairs

HERE = "tests.dpo.loss.test_own_loss"
VALUE = {"model": "m", "data": "d", "out": "o"}


def scaled_hinge(logps: PairLogps, *, beta: float = 0.1, width: float = 1.0) -> Tensor:
    """Hinge loss of a width."""
    return torch.relu(width - beta * logps.margins)


def same_as_dpo(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """DPO, written once more."""
    return -torch.nn.functional.logsigmoid(beta * logps.margins)


def centered(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """Margins less their mean over the step."""
    return -beta * (logps.margins - logps.margins.mean().detach())


centered.couples_pairs = True  # type: ignore[attr-defined]


def one_number(logps: PairLogps) -> Tensor:
    """Not one loss for each pair."""
    return logps.margins.mean()


def wrong(logps: PairLogps) -> Tensor:
    """Raise where torch would."""
    return logps.margins @ torch.zeros(7, dtype=logps.margins.dtype)


def a_list(logps: PairLogps) -> Any:
    """Not a tensor."""
    return logps.margins.tolist()


def without_default(logps: PairLogps, *, width: float) -> Tensor:
    """A setting without a default."""
    return logps.margins * width


def test_settings_are_those_of_the_signature() -> None:
    config = parse_config(
        VALUE | {"loss": {"name": f"{HERE}:scaled_hinge", "beta": 0.5, "width": 2.0}}, place="test"
    )
    (loss,) = config.loss
    logps = pairs([[-4.0, -6.0, -5.0, -5.0, 1, 1, 0.0]])

    assert settings(loss.name) == {"beta": 0.1, "width": 1.0}
    assert loss.settings == {"beta": 0.5, "width": 2.0}
    assert Objective(config.loss)(logps).item() == pytest.approx(2.0 - 0.5 * 2.0)


def test_a_broken_package_is_an_error_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving_losses_.py").write_text("raise SystemExit(3)\n")
    info = tmp_path / "leaving_losses-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaving-losses\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dpo.losses]\nleaving = leaving_losses_:f\n")
    monkeypatch.syspath_prepend(tmp_path)

    for name in ("leaving", "leaving_losses_:f"):
        with pytest.raises(UsageError, match=r"cannot be imported \(SystemExit: 3\).*T122"):
            parse_config(VALUE | {"loss": {"name": name}}, place="test")


def test_a_config_that_was_written_is_read_back() -> None:
    loss = {"name": f"{HERE}:scaled_hinge", "width": 2.0, "weight": 0.5}
    config = parse_config(VALUE | {"loss": loss}, place="test")

    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("dpoo", {}, "did you mean 'dpo'"),
        ("no.such.module:loss", {}, "cannot be imported"),
        (f"{HERE}:nothing", {}, "is not a function"),
        (f"{HERE}:VALUE", {}, "is not a function"),
        (f"{HERE}:without_default", {}, "width is not a keyword-only number with a default"),
        (f"{HERE}:same_as_dpo", {"gamma": 1.0}, "gamma is not used by"),
        (f"{HERE}:same_as_dpo", {"own": {"width": 2.0}}, "width is not used by"),
        ("dpo", {"own": {"width": 2.0}}, "width is not used by dpo"),
        ("dpo", {"width": 2.0}, "width: no such key"),
        (f"{HERE}:scaled_hinge", {"widht": 2.0}, "widht: no such key"),
    ],
)
def test_what_is_wrong_is_one_line(name: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_config(VALUE | {"loss": {"name": name} | more}, place="test")

    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one_number", r"returned \(\) for 2 pairs"),
        ("a_list", "returned list for 2 pairs"),
        ("wrong", "raised RuntimeError"),
    ],
)
def test_a_result_that_is_not_a_loss_a_pair_is_refused(name: str, said: str) -> None:
    objective = Objective((LossConfig(name=f"{HERE}:{name}"),))
    with pytest.raises(UsageError, match=rf"{said}.*T139"):
        objective(pairs([[-1.0, -2.0, -1.0, -1.0, 1, 1, 0.0]] * 2))


def test_coupled_pairs_are_seen_together() -> None:
    assert Objective((LossConfig(name=f"{HERE}:centered"),)).is_coupled
    assert not Objective((LossConfig(name=f"{HERE}:same_as_dpo"),)).is_coupled


def test_it_trains_as_the_shipped_loss_does(
    config_of: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    shipped = train(config_of(out=tmp_path / "a")).summary
    own = train(config_of(out=tmp_path / "b", loss={"name": f"{HERE}:same_as_dpo"})).summary

    assert find_loss("dpo") is not find_loss(f"{HERE}:same_as_dpo")
    assert shipped is not None
    assert own is not None
    assert own.final["loss"] == shipped.final["loss"]
    assert "DPO, written once more" in (tmp_path / "b" / "model" / "README.md").read_text()


def test_the_example_of_the_docs_is_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "losses.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "my_losses.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load(text.split(code)[1].split("```yaml\n")[1].split("```")[0])
    (loss,) = parse_config(VALUE | config, place="docs").loss

    assert loss.settings == {"beta": 0.5, "width": 2.0}
    assert Objective((loss,))(pairs([[-4.0, -6.0, -5.0, -5.0, 1, 1, 0.0]])).item() == 1.0
