"""The paper's baselines (§6 of https://arxiv.org/abs/2305.18290) as runs of dpo-train.

Preferred-FT and unlikelihood, against a plain loop on the loss that transformers computes.
"""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import prefdata
from dpo.config import TrainConfig
from dpo.training.loop import train
from tests.dpo.conftest import Arena

STEPS, RATE = 3, 1e-3
PairIds = tuple[list[int], list[int], list[int]]


def pairs_of(arena: Arena) -> list[PairIds]:
    """Return prompt, chosen and rejected ids of each training pair."""
    rows = prefdata.open(arena.data).tokens("train").to_pylist()
    return [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in rows]


def nll(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """Return −log π(completion | prompt): transformers' mean over labels, times their number."""
    ids = torch.tensor([prompt + completion])
    labels = torch.tensor([[-100] * len(prompt) + completion])
    return model(input_ids=ids, labels=labels).loss * len(completion)


@pytest.mark.parametrize(
    ("loss", "alpha"),
    [
        ({"name": "sft"}, 0.0),
        ({"name": "unlikelihood", "alpha": 0.5}, 0.5),
    ],
)
def test_a_baseline_trains_as_a_plain_loop_on_transformers_own_loss(
    loss: dict[str, object], alpha: float, arena: Arena, config_of: Callable[..., TrainConfig]
) -> None:
    pairs = pairs_of(arena)
    sgd = {"name": "torch.optim:SGD", "learning_rate": RATE, "max_grad_norm": None}
    config = config_of(
        loss=loss, optimizer=sgd, global_batch_size=len(pairs), steps=STEPS, reference=None
    )
    model = AutoModelForCausalLM.from_pretrained(arena.model).eval()
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    finished = train(config)
    losses = []
    for _ in range(STEPS):
        terms = [
            nll(model, prompt, chosen) - alpha * nll(model, prompt, rejected)
            for prompt, chosen, rejected in pairs
        ]
        optimizer.zero_grad()
        total = torch.stack(terms).mean()
        total.backward()
        optimizer.step()
        losses.append(total.item())

    lines = map(json.loads, (finished.out / "metrics.jsonl").read_text().splitlines())
    logged = [line["loss"] for line in lines if "loss" in line]
    assert logged == pytest.approx(losses, rel=1e-5)
    assert losses[-1] < losses[0]
    trained = AutoModelForCausalLM.from_pretrained(finished.out / "model")
    for name, weight in trained.named_parameters():
        own, moved = dict(model.named_parameters())[name], start[name]
        assert np.allclose(weight.detach(), own.detach(), atol=1e-6), name
        assert not torch.equal(weight, moved), name
