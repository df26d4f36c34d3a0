"""Training on a tiny model: steps, resuming, stopping, and the outputs of a run."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefdata
from dpo.config import TrainConfig
from dpo.data.packing import Pack
from dpo.errors import MismatchError, TrainingError, UsageError
from dpo.model.attention import BACKENDS
from dpo.optimizer_config import OptimizerConfig
from dpo.reference_pass import compute_reference
from dpo.training.evaluate import evaluate
from dpo.training.loop import train
from dpo.training.memory_check import check_memory
from dpo.training.optimizer import init_optimizer_state, make_optimizer
from dpo.training.setup import TrainContext
from dpo.training.step import train_step
from prefdata.building import build
from prefdata.config import BuildConfig
from tests.dpo.conftest import Arena, open_alone, save_gpt2, train_open, without_plan

ConfigOf = Callable[..., TrainConfig]
TWELVE: dict[str, Any] = {
    "steps": 12,  # of 4 pairs: more than two epochs of the train split
    "pack_tokens": 90,  # two pairs or so, so that gradients accumulate over packs
    "dropout": True,
    "checkpoint_every": 1,
    "keep_checkpoints": 99,
    "eval_every": 5,
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 3, "schedule": "cosine"},
}

SPEEDS = {"tokens_per_second", "step_seconds", "mfu"}


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def lines(out: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.fixture(scope="module")
def uninterrupted(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    config = {"model": str(arena.model), "data": arena.data, "out": out, "global_batch_size": 4}
    train(TrainConfig(**config, **TWELVE))
    return out


@pytest.mark.parametrize("step", range(12))
def test_a_run_that_died_after_any_step_ends_bit_by_bit_the_same(
    step: int, uninterrupted: Path, config_of: ConfigOf
) -> None:
    config = config_of(**TWELVE)
    if step > 0:  # before the first checkpoint there is nothing to resume from
        name = f"step-{step:08d}"
        shutil.copytree(uninterrupted / "checkpoints" / name, config.out / "checkpoints" / name)

    train(config)

    assert same(weights(config.out), weights(uninterrupted))
    resumed, whole = lines(config.out), lines(uninterrupted)[step:]
    for line in (*resumed, *whole):
        for name in SPEEDS:
            line.pop(name, None)
    assert [line for line in resumed if line["step"] > step] == [
        line for line in whole if line["step"] > step
    ]


def test_dropout_is_on_from_the_first_step_and_off_in_evaluation(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    outs = []
    for dropout in (False, True):
        config = config_of(dropout=dropout, steps=1, out=str(tmp_path / str(dropout)))
        train(config)
        outs.append(lines(config.out))
    (plain, plain_eval), (noisy, _) = outs

    assert plain["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert abs(noisy["loss"] - plain["loss"]) > 1e-3
    run = open_alone(config_of(dropout=True, steps=1))
    assert run.test is not None
    assert evaluate(run, run.test)["eval/loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert run.policy.training
    assert plain_eval["eval/loss"] != pytest.approx(math.log(2), abs=1e-4)


def test_packs_change_only_rounding(config_of: ConfigOf, tmp_path: Path) -> None:
    wide = train(config_of(pack_tokens=4096)).out
    narrow = train(config_of(pack_tokens=1, out=str(tmp_path / "narrow"))).out

    for left, right in zip(lines(wide), lines(narrow), strict=True):
        for name in left.keys() - SPEEDS:
            assert left[name] == pytest.approx(right[name], abs=2e-5)


def test_the_first_loss_is_ln_2_and_training_lowers_it(config_of: ConfigOf) -> None:
    config = config_of(steps=20, loss={"name": "dpo", "beta": 0.5})

    train(config)
    losses = [line["loss"] for line in lines(config.out) if "loss" in line]

    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < 0.3


def test_the_model_loads_as_any_checkpoint(config_of: ConfigOf, arena: Arena) -> None:
    config = config_of()

    train(config)
    model = AutoModelForCausalLM.from_pretrained(config.out / "model")
    tokenizer = AutoTokenizer.from_pretrained(config.out / "model")

    assert model.config.resid_pdrop == 0.1
    assert model.config._attn_implementation == "sdpa"
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(arena.model).chat_template
    assert not same(weights(config.out), load_file(arena.model / "model.safetensors"))


def test_the_card_says_what_the_model_is_and_no_folder_of_this_machine(config_of: ConfigOf) -> None:
    config = config_of(loss={"name": "cdpo", "label_smoothing": 0.1}, eval_every=2)

    train(config)
    card = (config.out / "model" / "README.md").read_text()

    header = yaml.safe_load(card.split("---\n")[1])
    assert header["library_name"] == "transformers"
    assert "base_model" not in header, "a directory is not a name on the Hub"
    assert str(config.out.parent) not in card
    assert str(Path(config.model).parent) not in card
    first = lines(config.out)[0]["loss"]
    assert f"| loss before step 1 | {first:.4f} |" in card
    assert "held-out pairs whose chosen side" in card
    assert 'cdpo.pdf. {"beta": 0.1, "label\\_smoothing": 0.1' in card.replace("\\{", "{")


def test_a_finished_run_is_left_as_it_is(config_of: ConfigOf) -> None:
    config = config_of()
    train(config)
    before = {path: path.stat().st_mtime_ns for path in config.out.rglob("*") if path.is_file()}

    train(config)

    assert before == {
        path: path.stat().st_mtime_ns for path in config.out.rglob("*") if path.is_file()
    }


def test_a_folder_of_another_run_is_refused(config_of: ConfigOf) -> None:
    train(config_of())

    with pytest.raises(UsageError, match="T141"):
        train(config_of(seed=1))


def test_a_checkpoint_of_another_run_is_refused(config_of: ConfigOf, uninterrupted: Path) -> None:
    config = config_of(**TWELVE | {"seed": 1})
    shutil.copytree(uninterrupted / "checkpoints", config.out / "checkpoints")

    with pytest.raises(UsageError, match="T140"):
        train(config)


@pytest.mark.parametrize("fault", ["truncated", "flipped", "missing", "swapped"])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over(
    name: str, fault: str, uninterrupted: Path, config_of: ConfigOf
) -> None:
    config = config_of(**TWELVE)
    for step in (10, 11):
        folder = f"checkpoints/step-{step:08d}"
        shutil.copytree(uninterrupted / folder, config.out / folder)
    path = config.out / "checkpoints/step-00000011" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    other = (config.out / "checkpoints/step-00000010" / name).read_bytes()
    content = {"truncated": bytes(data[:-1]), "flipped": bytes(data), "swapped": other}
    path.unlink() if fault == "missing" else path.write_bytes(content[fault])
    heard: list[str] = []

    train(config, on_message=heard.append)

    swapped_state = name == "state.json" and fault == "swapped"
    heard = without_plan(heard)
    assert swapped_state or heard == ["resumes after step 10"]
    assert same(weights(config.out), weights(uninterrupted))


def test_old_checkpoints_go_once_new_ones_are_whole(config_of: ConfigOf) -> None:
    config = config_of(**TWELVE | {"keep_checkpoints": 2})

    train(config)

    found = sorted(path.name for path in (config.out / "checkpoints").iterdir())
    assert found == ["step-00000010", "step-00000011"]


def with_nan(run: TrainContext, rows: list[int]) -> TrainContext:
    """Return a run with reference log-probs that are NaN for some pairs."""
    stored = np.array(run.train.ref_logps)
    stored[rows] = math.nan
    return replace(run, train=run.train._replace(ref_logps=stored))


def test_a_step_is_not_taken_when_its_numbers_are_not_finite(config_of: ConfigOf) -> None:
    config = config_of()
    run = open_alone(config)
    run = with_nan(run, [run.order.rows(1)[0]])
    before = {name: t.clone() for name, t in run.policy.state_dict().items()}

    with pytest.raises(TrainingError, match="T301"):
        train_step(run, 1)

    assert same(before, run.policy.state_dict())


def test_too_little_memory_is_reported_with_the_longest_pair(config_of: ConfigOf) -> None:
    run = open_alone(config_of(pack_tokens=1))
    sizes = np.asarray(run.train.pairs.sizes)
    check_memory(run)
    assert all(weight.grad is None for weight in run.policy.parameters())

    def starve(_: nn.Module, given: tuple[Pack]) -> None:
        assert len(given[0].input_ids_T) == sizes.max()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    run.policy.register_forward_pre_hook(starve)
    name = run.train.pairs.pair_id(int(sizes.argmax()))[:12]
    with pytest.raises(TrainingError, match=rf"pair {name} .*gradient_checkpointing.*T303"):
        check_memory(run)


def test_a_model_that_fails_in_training_only_is_refused_before_the_first_step(
    config_of: ConfigOf,
) -> None:
    """Reformer is one: it asserts the flag of training, which is off without dropout."""
    run = open_alone(config_of())

    def fail(*_: object) -> None:
        if torch.is_grad_enabled():
            raise AssertionError("make sure to use `model.train()`")

    run.policy.model.transformer.register_forward_pre_hook(fail)
    with pytest.raises(UsageError, match=r"training pass .*AssertionError: make sure.*T183"):
        check_memory(run)


@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
def test_moments_are_there_before_the_first_step_and_change_nothing(name: str) -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(3, 4) for _ in range(3)]
    found = []
    for begins in (False, True):
        layer = nn.Linear(4, 3, bias=False)
        weight = layer.weight
        nn.init.constant_(weight, 0.5)
        config = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.1)
        optimizer = make_optimizer(layer, config)
        if begins:
            before = weight.clone()
            init_optimizer_state(optimizer)
            assert torch.equal(weight, before)
            assert weight.grad is None
            assert all(not slot.any() for slot in optimizer.state[weight].values())
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
            init_optimizer_state(optimizer)  # a no-op if moments exist
        found.append((weight, optimizer.state[weight]))
    (one, kept), (other, begun) = found
    assert torch.equal(one, other)
    assert kept.keys() == begun.keys()
    assert all(torch.equal(slot, begun[key]) for key, slot in kept.items())


def test_the_largest_pack_runs_before_the_first_step(config_of: ConfigOf) -> None:
    run = open_alone(config_of(pack_tokens=90, eval_split=None))
    seen: list[list[int]] = []

    def see(_: nn.Module, given: tuple[Pack]) -> None:
        seen.append([s.prompt + sum(s.completions) for s in given[0].segments])

    run.policy.register_forward_pre_hook(see)
    train_open(run)

    assert max(seen[0]) == max(map(max, seen))
    assert 90 - np.asarray(run.train.pairs.sizes).min() < sum(seen[0])


def test_a_skipped_step_changes_nothing_and_is_counted_over_restarts(config_of: ConfigOf) -> None:
    """Steps 2 and 4 have a pair without a finite loss; a stop comes after step 3."""
    config = config_of(steps=6, checkpoint_every=1, keep_checkpoints=9, skip_nonfinite=2)
    spoiled = {step: open_alone(config).order.rows(step)[0] for step in (2, 4)}

    def train_spoiled(config: TrainConfig) -> list[str]:
        heard: list[str] = []
        train_open(with_nan(open_alone(config), list(spoiled.values())), heard.append)
        return heard

    heard = train_spoiled(config)

    assert [line.split(" is skipped")[0] for line in heard] == ["step 2", "step 4"]
    assert "T301" in heard[0]
    first, second = (
        load_file(config.out / f"checkpoints/step-0000000{step}/weights.safetensors")
        for step in (1, 2)
    )
    assert same(first, second)
    assert [line["step"] for line in lines(config.out) if "skipped" in line] == [2, 4]
    whole = weights(config.out)

    for path in sorted((config.out / "checkpoints").iterdir())[3:]:
        shutil.rmtree(path)
    (config.out / "run.json").unlink()
    train_spoiled(config)
    assert same(weights(config.out), whole)
    fewer = {"skip_nonfinite": 1, "out": config.out.with_name("fewer")}
    with pytest.raises(TrainingError, match="T301"):
        train_spoiled(config.model_copy(update=fewer))


def test_weights_scale_a_pairs_loss(config_of: ConfigOf) -> None:
    run = open_alone(config_of())
    run.train.pairs.weights = np.full(len(run.train.pairs), 0.5, np.float32)

    metrics = train_step(run, 1)

    assert metrics["loss"] == pytest.approx(math.log(2) / 2, abs=1e-4)


def test_rmsprop_is_the_papers(config_of: ConfigOf) -> None:
    config = config_of(optimizer={"name": "rmsprop", "learning_rate": 1e-4, "warmup_steps": 2})

    train(config)

    rates = [line["learning_rate"] for line in lines(config.out) if "loss" in line]
    assert rates == pytest.approx([5e-5, 1e-4, 1e-4])


def test_bf16_stays_near_float32(config_of: ConfigOf, arena: Arena, tmp_path: Path) -> None:
    from dpo.reference_pass import compute_reference

    data = shutil.copytree(arena.data, tmp_path / "data")
    compute_reference(data, model=str(arena.model), name="bf16", mixed_precision="bf16")
    config = config_of(
        data=str(data), mixed_precision="bf16", reference={"name": "bf16"}, out=str(tmp_path / "b")
    )

    half, whole = train(config).out, train(config_of()).out

    for left, right in zip(lines(half), lines(whole), strict=True):
        assert left.get("loss", 0) == pytest.approx(right.get("loss", 0), abs=0.02)


def test_a_policy_may_start_elsewhere_than_its_reference(
    config_of: ConfigOf, arena: Arena, tmp_path: Path
) -> None:
    other = save_gpt2(tmp_path / "other", seed=1)

    with pytest.raises(MismatchError, match="T205"):
        train(config_of(model=str(other)))
    config = config_of(model=str(other), reference={"model": str(arena.model)})
    train(config)

    assert lines(config.out)[0]["loss"] != pytest.approx(math.log(2), abs=1e-3)


def test_a_loss_spike_is_reported_with_its_pairs_and_changes_nothing(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    """A later start compares losses with the log, which has low ones here."""

    def run_to(steps: int, out: Path) -> list[str]:
        said: list[str] = []
        train(config_of(steps=steps, checkpoint_every=2, out=str(out)), on_message=said.append)
        return without_plan(said)

    plain = run_to(4, tmp_path / "plain")
    run_to(3, tmp_path / "spiked")
    low = [{"step": 2, "loss": 0.01 + 0.001 * (n % 2)} for n in range(128)]
    log = tmp_path / "spiked/metrics.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in low))
    said = run_to(4, tmp_path / "spiked")

    run = open_alone(config_of())
    first = run.train.pairs.pair_id(run.order.rows(3)[0])[:12]
    assert plain == []
    (line,) = [line for line in said if line.startswith("step 3: its loss 0.")]
    assert f"(pairs {first}, " in line
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "spiked"))


def test_an_evaluation_reports_the_accuracy_of_each_file(
    arena: Arena, config_of: ConfigOf, tmp_path: Path
) -> None:
    """The second file has flipped labels, so the learned preference is wrong there."""
    rows = [json.loads(line) for line in arena.data.with_suffix(".jsonl").read_text().splitlines()]
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    for name, some in (("straight", rows[::2]), ("turned", turned[1::2])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    data = tmp_path / "data"
    build(
        BuildConfig(
            inputs=[str(tmp_path / "*.jsonl")], tokenizer=str(arena.model), out=data,
            test_fraction=0.5,
        )
    )  # fmt: skip
    compute_reference(data, model=str(arena.model))
    config = config_of(data=str(data), eval_every=1)
    train(config)
    found = [line for line in lines(config.out) if "eval/loss" in line][-1]

    files = pl.DataFrame(prefdata.open(data).text("test"))["source"].to_list()
    shares = {name: sum(name in file for file in files) for name in ("straight", "turned")}
    assert min(shares.values()) > 1
    parts = {name: found[f"eval/rewards/accuracies/{name}.jsonl"] for name in shares}
    mean = sum(parts[name] * count for name, count in shares.items()) / len(files)
    assert mean == pytest.approx(found["eval/rewards/accuracies"], abs=1e-6)
    assert parts["straight"] != parts["turned"]


def test_moments_of_a_byte_resume_bit_by_bit(config_of: ConfigOf, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    settings = TWELVE | {"optimizer": {"name": "adamw_8bit", "learning_rate": 1e-3}, "steps": 6}
    whole = train(config_of(**settings)).out
    again = tmp_path / "again"
    shutil.copytree(
        whole / "checkpoints/step-00000003", again / "checkpoints/step-00000003", dirs_exist_ok=True
    )
    shutil.copy(whole / "metrics.jsonl", again)

    train(config_of(**settings, out=str(again)))
    assert same(weights(whole), weights(again))
    kept = load_file(whole / "checkpoints/step-00000003/optimizer.safetensors")
    assert any(tensor.dtype == torch.uint8 for tensor in kept.values())


def test_moments_of_a_byte_need_their_library(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UsageError, match="T129"):
        train(config_of(optimizer={"name": "adamw_8bit"}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention": "fast"}, "is not a known backend; write one of auto, segments, flex"),
        ({"attention": "flex"}, "has no kernel for a CPU"),
    ],
)
def test_an_attention_that_cannot_train_here_is_refused(
    changes: dict[str, Any], said: str, config_of: ConfigOf
) -> None:
    with pytest.raises(UsageError, match=rf"{said}.* \[T138\]"):
        train(config_of(**changes))


def test_an_attention_backend_of_ones_own_runs_every_layer(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def mine(*given: Any) -> torch.Tensor:
        calls.append(len(given))
        return BACKENDS["segments"](*given)

    monkeypatch.setitem(BACKENDS, "mine", mine)  # type: ignore[arg-type]
    first = {"steps": 2, "attention": "segments"}
    plain = train(config_of(**first)).summary
    own = train(config_of(attention="mine", steps=2, out=config_of().out / "own")).summary

    assert calls
    assert own is not None
    assert plain is not None
    assert own.final["loss"] == plain.final["loss"]
