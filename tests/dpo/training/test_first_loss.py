"""The first loss is known; if it differs, the error says whether the model draws at random."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dpo.config import TrainConfig
from dpo.errors import MismatchError
from dpo.training.loop import train
from dpo.training.step import train_step
from tests.dpo.conftest import open_alone

ConfigOf = Callable[..., TrainConfig]


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
    change: Callable[[Tensor], Tensor], said: str, config_of: ConfigOf
) -> None:
    run = open_alone(config_of())
    run.policy.model.transformer.ln_f.register_forward_hook(lambda *given: change(given[-1]))

    with pytest.raises(MismatchError, match=said) as caught:
        train_step(run, 1)

    assert caught.value.code == "T210"
    assert ("draws" in str(caught.value)) == ("draws" in said)


def test_a_model_with_rates_of_dropout_starts_at_the_log_of_two(config_of: ConfigOf) -> None:
    """GPT-2 has dropout everywhere by default."""
    finished = train(config_of(eval_split=None))

    assert finished.summary is not None
    assert finished.summary.first_loss == pytest.approx(math.log(2), abs=1e-5)
