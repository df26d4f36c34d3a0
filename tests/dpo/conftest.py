"""A tiny model, a real build of tiny pairs, and its reference log-probs, made once."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dpo.config import TrainConfig
from dpo.config_file import parse_config
from dpo.reference_pass import compute_reference
from dpo.training.distributed import make_accelerator
from dpo.training.loop import TrainResult, run_training
from dpo.training.run_folder import claim_run
from dpo.training.setup import TrainContext, open_run
from prefdata.building import build
from prefdata.config import BuildConfig
from tests.dpo.tiny import tiny_tokenizer

COMPLETIONS = (2, 3, 4, 5)
"""Numbers of completions of the prompts, in turn."""


class Arena(NamedTuple):
    """Directories of a tiny checkpoint and of a build with its reference."""

    model: Path
    data: Path


def save_gpt2(folder: Path, *, seed: int, template: str | None = None) -> Path:
    """Save a GPT-2 of two layers with dropout everywhere, far from uniform."""
    tokenizer = tiny_tokenizer() if template is None else tiny_tokenizer(template=template)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=256,
        bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def save_llama(folder: Path, **changes: Any) -> Path:
    """Save a Llama of two layers, which has buffers."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=0, eos_token_id=1, initializer_range=0.2, **changes,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_pairs(path: Path, count: int) -> Path:
    """Write pairs of prompts and completions of various lengths; each third shares its prompt."""
    rows = []
    for n in range(count):
        prompt = f"Tell me a story about {n - (n % 3 == 0)} dogs" + " and a dog" * (n % 4)
        rows.append(
            {
                "prompt": [{"role": "user", "content": prompt}],
                "chosen": [{"role": "assistant", "content": f"Paris, {n}" + "!" * (n % 5)}],
                "rejected": [{"role": "assistant", "content": f"A dog {n}" + "?" * (n % 7)}],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def build_pairs(folder: Path, *, tokenizer: Path, count: int = 30, **options: Any) -> Path:
    rows = write_pairs(folder.with_suffix(".jsonl"), count)
    settings = {"test_fraction": 0.3, "shard_rows": 8} | options
    build(BuildConfig(inputs=[str(rows)], tokenizer=str(tokenizer), out=folder, **settings))
    return folder


def open_alone(config: TrainConfig) -> TrainContext:
    """Open a run in this process; accelerate's state is from this config, not an earlier test."""
    return open_run(config, make_accelerator(config))


def train_open(
    run: TrainContext, on_message: Callable[[str], None] = lambda _line: None
) -> TrainResult:
    """Train an open run, in which a test may have changed something."""
    run.config.out.mkdir(parents=True, exist_ok=True)
    claim = claim_run(run.config)
    return run_training(run, claim, report=lambda *_: None, on_message=on_message)


def without_plan(lines: list[str]) -> list[str]:
    """Return the messages of a run but for its plan."""
    return [line for line in lines if not line.startswith("plan: ")]


@pytest.fixture(scope="session", autouse=True)
def _built_for_what_is_here() -> Iterator[None]:
    """Let a CUDA build of torch without a driver be one for the CPU: it has its own tests."""
    with pytest.MonkeyPatch.context() as patch:
        if not torch.accelerator.is_available():
            patch.setattr(torch._C, "_accelerator_getAccelerator", lambda: None)
        yield


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    folder = tmp_path_factory.mktemp("arena")
    model = save_gpt2(folder / "model", seed=0)
    data = build_pairs(folder / "data", tokenizer=model)
    compute_reference(data, model=str(model))
    return Arena(model, data)


@pytest.fixture(scope="session")
def ranked(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build ranked completions, all pairs of each prompt, with their reference."""
    folder = tmp_path_factory.mktemp("ranked")
    rows = []
    for n in range(24):
        count = COMPLETIONS[n % len(COMPLETIONS)]
        answers = [f"dog {n} {'and a cat ' * (3 * rank % 7)}{rank}" for rank in range(count)]
        rows.append(
            {
                "prompt": f"Tell me of {n} dogs" + " and more" * (n % 3),
                "completions": [
                    {"text": text, "score": float(-rank)} for rank, text in enumerate(answers)
                ],
            }
        )
    file = folder / "ranked.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = folder / "build"
    build(
        BuildConfig.model_validate(
            {
                "inputs": [str(file)], "tokenizer": str(arena.model), "out": str(data),
                "pairing": {"strategy": "all"}, "test_fraction": 0.25,
                "severity": {"PD402": "off"},
            }
        )
    )  # fmt: skip
    compute_reference(data, model=str(arena.model))
    return data


@pytest.fixture
def config_of(arena: Arena, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Return a function that makes configs on the arena, with changes by keyword."""

    def make(**changes: Any) -> TrainConfig:
        value = {
            "model": str(arena.model),
            "data": str(arena.data),
            "out": str(tmp_path / "run"),
            "global_batch_size": 4,
            "steps": 3,
            "optimizer": {"learning_rate": 1e-3},
        }
        return parse_config(value | changes, place="test")

    return make
