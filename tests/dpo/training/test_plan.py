"""The plan of a run against what the run then holds, and what a device decides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2PreTrainedModel, PreTrainedModel

from dpo.config import TrainConfig
from dpo.data.packing import PromptWithCompletions, pack
from dpo.errors import TrainingError, UsageError
from dpo.model.heads import body_of
from dpo.model.kept import TOKENS, count_kept
from dpo.model.load import check_model, load_model
from dpo.model.lora import add_lora, save_adapter
from dpo.model.policy import Policy
from dpo.model.weights import model_folder
from dpo.precision import Precision, autocast
from dpo.training.distributed import make_accelerator
from dpo.training.memory_check import check_memory
from dpo.training.plan import Place, Plan, Run, make_plan, place_of
from dpo.training.setup import TrainContext, open_run, source_of
from dpo.training.step import packs_of, run_packs
from tests.dpo.conftest import Arena, open_alone, save_llama
from tests.dpo.model.zoo import config_of as family

ConfigOf = Callable[..., TrainConfig]
CPU = torch.device("cpu")
PLENTY = Place(CPU, total=10**12, free=10**12)


def plan_of(config: TrainConfig, place: Place = PLENTY, **more: Any) -> Plan:
    run, source = open_alone(config), source_of(config)
    return make_plan(
        check_model(source), Run(config, source, run.train.pairs, run.order, place, **more)
    )


def inner_of(run: TrainContext) -> torch.optim.Optimizer:
    """Return the optimizer that accelerate has wrapped."""
    inner: torch.optim.Optimizer = run.optimizer.optimizer  # type: ignore[attr-defined]
    return inner


def held(tensors: list[Tensor]) -> int:
    return sum(
        {tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weights": "bfloat16"},
        {"optimizer": {"name": "rmsprop"}},
        {"lora": {"r": 4}},
        {"lora": {"r": 4, "dora": True}, "weights": "bfloat16"},
    ],
    ids=str,
)
def test_a_run_holds_what_the_plan_says(
    config_of: ConfigOf, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = save_llama(tmp_path / "llama", tie_word_embeddings=True)
    free = {"loss": {"name": "simpo"}, "reference": None, "eval_split": None}
    config = config_of(model=str(model), **free, **changes)
    planned = plan_of(config).memory

    run = open_alone(config)
    weights = list(run.policy.parameters())
    run_packs(run, packs_of(run, 1), 1)
    gradients = [weight.grad.nbytes for weight in weights if weight.grad is not None]
    run.optimizer.step()
    slots = [slot for state in run.optimizer.state.values() for slot in state.values()]
    moments = [slot for slot in slots if isinstance(slot, Tensor) and slot.ndim]

    assert planned.weights == held(weights)
    assert planned.gradients == sum(gradients)
    assert planned.moments == held(moments)


def test_a_continued_adapter_is_planned_with_its_own_rank(
    config_of: ConfigOf, tmp_path: Path, arena: Arena
) -> None:
    model = load_model(str(arena.model))
    add_lora(model, config_of(lora={"r": 2}).lora, seed=0)  # type: ignore[arg-type]
    trained = sum(w.numel() for w in model.parameters() if w.requires_grad)
    save_adapter(model, tmp_path / "start", None)

    config = config_of(
        lora={"start": str(tmp_path / "start")}, loss={"name": "simpo"}, reference=None
    )

    assert plan_of(config).memory.gradients == 4 * trained


def test_weights_in_four_bits_are_planned_as_such(config_of: ConfigOf, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = save_llama(tmp_path / "llama", tie_word_embeddings=True)
    config = config_of(
        model=str(model), lora={"r": 2}, quantize="nf4", loss={"name": "simpo"}, reference=None
    )
    planned = plan_of(config).memory.weights

    run, total = open_alone(config), 0
    for module in run.policy.modules():
        for weight in module._parameters.values():
            if weight is not None:
                state = getattr(weight, "quant_state", None)
                total += weight.nbytes
                if state is not None:
                    total += state.absmax.nbytes + state.state2.absmax.nbytes
    tied = run.policy.model.get_input_embeddings().weight.nbytes  # type: ignore[union-attr]

    assert planned == pytest.approx(total - tied, rel=0.01)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # of torch 2.9
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize(
    "model_type", ["llama", "gpt2", "gemma3_text", "mixtral", "qwen3", "olmo2"]
)
def test_what_autograd_keeps_of_a_pack_is_counted_without_data(
    tmp_path: Path, model_type: str, precision: Precision
) -> None:
    """The second means: a real pass of the policy's body over one text of as many tokens."""
    config = family(model_type)
    config.max_position_embeddings = 2 * TOKENS
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    dtypes: dict[int, torch.dtype] = {}
    counted = count_kept(check_model(str(tmp_path)), device=CPU, precision=precision, dtypes=dtypes)

    model = load_model(str(tmp_path))
    kept = keep_of_a_pass(model, precision)

    assert counted.per_token * TOKENS + counted.copies == pytest.approx(kept, rel=0.2)


def keep_of_a_pass(model: PreTrainedModel, precision: Precision) -> int:
    policy, kept = Policy(model), dict[int, Tensor]()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.arange(TOKENS).numpy().astype("int32") % 97 + 3
    batch = pack([PromptWithCompletions(ids[:1], (ids[1:],), (None,))])
    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with saved, autocast(CPU, precision):
        body_of(model)(
            input_ids=batch.input_ids_T[None],
            position_ids=batch.position_ids_T[None],
            attention_mask=torch.ones_like(batch.input_ids_T)[None],
            use_cache=False,
            segments=batch.segments,
            backend=policy.options.backend,
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_the_plan_is_stated_before_weights_are_read(config_of: ConfigOf, tmp_path: Path) -> None:
    model = save_llama(tmp_path / "llama")
    file = model_folder(str(model)) / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, file, {"format": "pt"})
    config = config_of(model=str(model), loss={"name": "simpo"}, reference=None)
    said: list[str] = []

    with pytest.raises(UsageError, match="T196"):
        open_run(config, make_accelerator(config), said.append)

    model_line, steps, memory = said
    assert "100.000% of them trained; products in float32, attention by segments" in (
        model_line.replace(" by oneDNN,", ",")
    )
    assert "3 steps of 4 pairs" in steps
    assert "packs of at most 1,024" in steps
    assert all(part in memory for part in ("weights", "gradients", "moments", "pack", "are free"))


def test_too_little_free_memory_is_said_with_what_lowers_the_largest_part(
    config_of: ConfigOf,
) -> None:
    lines = plan_of(config_of(), PLENTY._replace(free=1000)).lines

    assert "may not fit, as only 0.00 GB are free; gradient_checkpointing: true" in lines[-1]


def test_layers_run_again_if_the_longest_pair_would_not_fit_otherwise(config_of: ConfigOf) -> None:
    plain = plan_of(config_of(gradient_checkpointing=False)).memory
    total = int((plain.total - plain.pack / 10) / 0.9)

    small = plan_of(config_of(), PLENTY._replace(total=total))
    large = plan_of(config_of(), PLENTY)
    own = plan_of(config_of(gradient_checkpointing=False), PLENTY._replace(total=total))

    assert small.config.gradient_checkpointing is True
    assert small.memory.pack < plain.pack
    assert "gradient_checkpointing, as a pack of 1,024 tokens needs it" in small.lines[-1]
    assert large.config.gradient_checkpointing is False
    assert own.config.gradient_checkpointing is False


def test_a_model_that_cannot_run_layers_again_is_not_made_to(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GPT2PreTrainedModel, "supports_gradient_checkpointing", False)

    small = plan_of(config_of(), PLENTY._replace(total=1000))

    assert small.config.gradient_checkpointing is False


def test_a_gpu_gets_packs_as_large_as_its_memory_holds(config_of: ConfigOf) -> None:
    gpu = Place(torch.device("cuda"), total=80 * 10**9, free=80 * 10**9)
    options = {"mixed_precision": "bf16", "loss": {"name": "simpo"}, "reference": None}
    large = plan_of(config_of(**options), gpu)
    middle = plan_of(config_of(**options), gpu._replace(total=large.memory.total // 2))
    given = plan_of(config_of(pack_tokens=2048, **options), gpu)

    assert large.config.pack_tokens == 65_536
    assert 1024 < (middle.config.pack_tokens or 0) < 65_536
    assert middle.memory.total <= 0.9 * (large.memory.total // 2)
    assert f"pack_tokens {middle.config.pack_tokens:,}, by the device" in middle.lines[-1]
    assert given.config.pack_tokens == 2048


def test_processes_share_what_is_trained(config_of: ConfigOf) -> None:
    one, ddp = plan_of(config_of()).memory, plan_of(config_of(), ranks=4).memory

    assert ddp.weights == one.weights
    assert ddp.gradients == 2 * one.gradients  # and the buckets that are reduced


def test_the_memory_of_this_machine_is_read() -> None:
    place = place_of(CPU)

    assert 0 < place.used < place.total
    assert place.used < place.free <= place.total + place.used


def test_weights_that_do_not_fit_are_an_error_with_a_remedy(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starve(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(nn.Module, "to", starve)

    with pytest.raises(TrainingError, match=r"weights do not fit .*quantize: nf4.*T304"):
        load_model(str(arena.model), device=CPU)


def test_moments_that_do_not_fit_are_an_error_with_a_remedy(config_of: ConfigOf) -> None:
    run = open_alone(config_of())

    def starve(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    inner_of(run).register_step_pre_hook(starve)

    with pytest.raises(TrainingError, match=r"moments: they do not fit .*adamw_8bit.*T305"):
        check_memory(run)
