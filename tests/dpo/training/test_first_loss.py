"""The first loss is known; if it differs, the error says whether the model draws at random."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dpo.config import TrainConfig
from dpo.errors import MismatchError
from dpo.training.loop import train

ConfigOf = Callable[..., TrainConfig]


def once_it_trains(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    """Return a hook that changes a model's outputs."""

    def hook(model: nn.Module) -> None:
        head = model.transformer.ln_f
        head.register_forward_hook(lambda _module, _inputs, output: change(output))

    return hook


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda states: states + torch.randn_like(states),
            "draws at random, though dropout is off",
        ),
        (lambda states: states.flip(-1), "training runs another one"),
    ],
    ids=["draws", "is another"],
)
def test_the_error_says_which_of_the_two_it_was(
    change: Callable[[Tensor], Tensor],
    said: str,
    config_of: ConfigOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dpo.model.policy.train_without_dropout", once_it_trains(change))

    with pytest.raises(MismatchError, match=said) as caught:
        train(config_of())

    assert caught.value.code == "T210"
    assert ("draws" in str(caught.value)) == ("draws" in said)


def test_a_model_with_rates_of_dropout_starts_at_the_log_of_two(config_of: ConfigOf) -> None:
    """GPT-2 has dropout everywhere by default."""
    finished = train(config_of(eval_split=None))

    assert finished.summary is not None
    assert finished.summary.first_loss == pytest.approx(math.log(2), abs=1e-5)
