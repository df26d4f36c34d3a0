"""Load-balancing loss against transformers' own, for any split of a step into packs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from dpo.config import TrainConfig
from dpo.data.packing import pack
from dpo.errors import UsageError
from dpo.model.moe import balance_loss
from dpo.model.policy import Policy, PolicyOptions
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from dpo.training.metrics import by_name
from dpo.training.mfu import make_machine
from dpo.training.setup import TrainContext
from dpo.training.step import packs_of, run_packs
from tests.dpo.conftest import Arena, build_pairs, open_alone
from tests.dpo.model.test_policy import SHAPE, rows_of
from tests.dpo.tiny import tiny_tokenizer
from tests.dpo.training.test_distributed import lines, run_in_one_and_in_two, write_config
from tests.dpo.training.test_gradients import NARROW, WIDE, gradients, move

ConfigOf = Callable[..., TrainConfig]
CHOSEN, EXPERTS = 2, 5
MODELS: dict[str, Callable[[int], PreTrainedModel]] = {
    "mixtral": lambda size: MixtralForCausalLM(
        MixtralConfig(
            **SHAPE | {"vocab_size": size}, num_local_experts=EXPERTS, num_experts_per_tok=CHOSEN,
            initializer_range=0.3, bos_token_id=0, eos_token_id=1,
        )
    ),
    "qwen3_moe": lambda size: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            **SHAPE | {"vocab_size": size}, num_experts=EXPERTS, num_experts_per_tok=CHOSEN,
            moe_intermediate_size=32, head_dim=8, initializer_range=0.3, bos_token_id=0,
            eos_token_id=1,
        )
    ),
}  # fmt: skip


def make(name: str, size: int = SHAPE["vocab_size"]) -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[name](size).eval()


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    """Save a mixture of experts, and a build with its reference."""
    folder = tmp_path_factory.mktemp("experts")
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    make("mixtral", len(tokenizer)).save_pretrained(folder / "model")
    data = build_pairs(folder / "data", tokenizer=folder / "model")
    compute_reference(data, model=str(folder / "model"))
    return Arena(folder / "model", data)


def theirs(model: PreTrainedModel, texts: list[torch.Tensor]) -> torch.Tensor:
    """Return transformers' loss over all tokens of these texts, as if they were one."""
    each = [model(ids[None], output_router_logits=True).router_logits for ids in texts]
    layers = tuple(torch.cat(layer) for layer in zip(*each, strict=True))
    return load_balancing_loss_func(layers, EXPERTS, CHOSEN)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "unshared"])
@pytest.mark.parametrize("name", MODELS)
def test_the_parts_of_packs_add_up_to_transformers_loss(name: str, shared: bool) -> None:
    """Check their gradients too, and that the tokens of a shared prompt count once."""
    rows = rows_of((20, 7), (3, 14), (30, 12), (5, 20))
    model = make(name)
    wanted = theirs(model, [pack([row]).input_ids_T for row in rows])
    wanted.backward()
    expected = {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    policy = Policy(model, shared=shared, options=PolicyOptions(loads=True))
    with torch.no_grad():
        total = sum(policy(pack(some)).loads_2E for some in (rows[:3], rows[3:]))
    found = [
        balance_loss(policy(pack(some)).loads_2E, total, chosen=CHOSEN)
        for some in (rows[:3], rows[3:])
    ]
    sum(found).backward()

    assert float(sum(found).detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert 1.0 < float(wanted.detach()) < EXPERTS
    for key, weight in model.named_parameters():
        if key in expected:
            torch.testing.assert_close(weight.grad, expected[key], atol=1e-5, rtol=1e-3)

    several = rows_of((20, 7, 9), (3, 1, 14, 4))
    tokens = sum(row.num_tokens for row in several)
    loads = policy(pack(several)).loads_2E.detach()
    assert float(loads[0].sum()) == CHOSEN * SHAPE["num_hidden_layers"] * tokens
    assert float(loads[1].sum()) == pytest.approx(SHAPE["num_hidden_layers"] * tokens, rel=1e-5)
    policy.share(shared=not shared)
    again = policy(pack(several)).loads_2E.detach()
    torch.testing.assert_close(again, loads, atol=1e-3, rtol=1e-4)


def open_experts(config_of: ConfigOf, experts: Arena, **changes: Any) -> TrainContext:
    data = {"model": str(experts.model), "data": str(experts.data)}
    return move(open_alone(config_of(**data | changes)))


@pytest.mark.parametrize("loss", ["dpo", "kto_pair"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_has_the_same_loss_for_any_packs(
    loss: str, checkpointing: bool, config_of: ConfigOf, experts: Arena
) -> None:
    """Compare with the gradient of preference loss plus coefficient times transformers' loss."""
    options = {"loss": {"name": loss}, "gradient_checkpointing": checkpointing}
    plain = open_experts(config_of, experts, **options)
    run_packs(plain, packs_of(plain, 1), 1)
    wanted = gradients(plain)
    batch = plain.train.batch(plain.order.rows(1), plain.accelerator.device)
    policy = Policy(plain.policy.model, options=PolicyOptions(loads=True))
    loads = policy(batch.pack).loads_2E
    balance = balance_loss(loads, loads, chosen=CHOSEN)
    (0.5 * balance).backward()
    for name, gradient in gradients(plain).items():
        wanted[name] += gradient

    for tokens in (NARROW, WIDE):
        run = open_experts(
            config_of, experts, router_aux_loss_coef=0.5, pack_tokens=tokens, **options
        )
        found = by_name(run_packs(run, packs_of(run, 1), 1))["aux_loss"]
        assert found == pytest.approx(float(balance.detach()), rel=1e-5)
        for name, gradient in gradients(run).items():
            torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-3)


def test_a_run_logs_it_and_lowers_it(config_of: ConfigOf, experts: Arena, tmp_path: Path) -> None:
    ends = {}
    for coefficient in (None, 1.0):
        config = config_of(
            model=str(experts.model), data=str(experts.data), steps=8, eval_split=None,
            router_aux_loss_coef=coefficient, out=str(tmp_path / f"run-{coefficient}"),
        )  # fmt: skip
        ends[coefficient] = lines(train(config).out / "metrics.jsonl")
    assert "aux_loss" not in ends[None][0]
    first, last = ends[1.0][0]["aux_loss"], ends[1.0][-1]["aux_loss"]
    assert last < first - 0.01
    assert ends[1.0][0]["loss"] == pytest.approx(ends[None][0]["loss"], abs=1e-6)


def test_it_is_the_same_in_two_processes(
    config_of: ConfigOf, experts: Arena, tmp_path: Path
) -> None:
    """Use packs that do not divide evenly: one rank runs an empty one, which does not count."""
    config = config_of(
        model=str(experts.model), data=str(experts.data), steps=4, eval_split=None,
        router_aux_loss_coef=0.5, pack_tokens=90, global_batch_size=5,
    )  # fmt: skip
    one, two = run_in_one_and_in_two(write_config(tmp_path / "train.yaml", config), tmp_path)

    for left, right in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        for name in ("loss", "aux_loss"):
            assert abs(left[name] - right[name]) <= 1e-5
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4)


def test_a_model_without_experts_is_refused(config_of: ConfigOf) -> None:
    with pytest.raises(UsageError, match="T112"):
        open_alone(config_of(router_aux_loss_coef=0.01))


def test_flops_of_experts_are_those_that_a_token_sees() -> None:
    model = make("mixtral")
    experts = sum(w.numel() for name, w in model.named_parameters() if "experts" in name)
    head = model.lm_head.weight.numel()
    others = sum(w.numel() for w in model.parameters()) - experts - 2 * head

    machine = make_machine(Policy(model), precision="no")

    assert machine.per_token == 6 * (others + experts * CHOSEN // EXPERTS)
