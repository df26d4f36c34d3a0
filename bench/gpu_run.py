"""The run that both sides of bench/gpu.py measure: its config, its steps, its peak memory."""

import resource
from pathlib import Path
from typing import Any

from gpu_cases import SIZES, Case, write_build, write_checkpoint

Spec = dict[str, Any]
Figures = dict[str, Any]
BETA, RATE = 0.1, 1e-6
TOKENS = {"0.1": 16384, "0.5": 16384, "1.5": 8192, "8": 8192}
"""Tokens of a pack by size of model, and of a micro-batch of TRL's, in whole pairs."""
MEMORY: dict[str, dict[str, Any]] = {"8": {"optimizer": {"name": "adamw_8bit"}}}
"""Settings of sizes that do not fit with float32 moments."""


def peak_gb(spec: Spec) -> float:
    import torch

    if spec["device"] == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def reset_peak(spec: Spec) -> None:
    """Begin to measure a GPU's peak memory anew; that of a CPU is of the whole process."""
    import torch

    if spec["device"] == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def case_of(spec: Spec) -> Case:
    prompts = spec["prompts"] * spec["steps"]
    return Case(spec["lengths"], spec["completions"], prompts)


def prepare(spec: Spec, folder: Path) -> tuple[Path, Path]:
    """Return a checkpoint, made once for a size, and a build of the case's pairs."""
    checkpoint = Path(spec["work"]) / f"model-{spec['size']}"
    if not (checkpoint / "tokenizer.json").is_file():
        settings = SIZES[spec["size"]]
        write_checkpoint(checkpoint, settings, device=spec["device"], toy=spec["toy"])
    return checkpoint, write_build(folder / "build", checkpoint, case_of(spec))


def train_config(spec: Spec, checkpoint: Path, data: Path) -> Any:
    from dpo.config import TrainConfig

    values: dict[str, Any] = {
        "model": str(checkpoint), "data": str(data), "out": str(data.parent / "run"),
        "global_batch_size": spec["prompts"], "steps": spec["steps"],
        "batch_unit": "pairs" if spec["completions"] == 2 else "groups",
        "loss": {"name": "dpo", "beta": BETA}, "eval_split": None,
        "mixed_precision": spec["precision"], "pack_tokens": tokens_of(spec),
        "optimizer": {"learning_rate": RATE},
    }  # fmt: skip
    for key, setting in (MEMORY.get(spec["size"], {}) if not spec["toy"] else {}).items():
        values[key] = values.get(key, {}) | setting
    return TrainConfig.model_validate(values)


def tokens_of(spec: Spec) -> int:
    return 512 if spec["toy"] else TOKENS[spec["size"]]


def tokens_by_step(config: Any) -> list[int]:
    """Return the tokens that our packs run, each prompt and completion once, by step."""
    return [
        sum(prompt.num_tokens for unit in units for prompt in pairs.share_prompts(unit).prompts)
        for pairs, units in steps_of(config)
    ]


def steps_of(config: Any) -> list[tuple[Any, list[list[int]]]]:
    """Return the split and the rows of each step, by unit."""
    import prefdata
    from dpo.data.pairs import Pairs
    from dpo.data.sampler import make_order

    pairs = Pairs(prefdata.open(config.data).shards("train"))
    order = make_order(pairs, config)
    return [(pairs, order.step(step)) for step in range(1, config.steps + 1)]


def columns_of(config: Any) -> tuple[dict[str, list[Any]], int]:
    """Return the ids of all pairs in the order of our steps, and the pairs of a step."""
    columns: dict[str, list[Any]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    steps = steps_of(config)
    for pairs, units in steps:
        for row in (row for unit in units for row in unit):
            one = pairs[row]
            for name, ids in zip(columns, (one.prompt, *one.completions), strict=True):
                columns[name].append(ids.tolist())
    return columns, len(columns["prompt_ids"]) // len(steps)


def micro_batch(pairs: int, most: int) -> int:
    """Return the largest divisor of a step's pairs that is at most `most`."""
    return max(size for size in range(1, pairs + 1) if pairs % size == 0 and size <= max(1, most))
