"""One measurement of bench/gpu.py in a process of its own: its peak memory is its own too.

    python bench/gpu_sides.py SIDE '{"device": "cuda", …}'

Prints one JSON object of figures as its last line.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpu_cases import FAMILIES, SIZES, Case, config_of, segments_of, write_build, write_checkpoint

Spec = dict[str, Any]
Figures = dict[str, Any]
BETA, RATE = 0.1, 1e-6
TOKENS = {"0.1": 16384, "0.5": 16384, "1.5": 8192, "8": 8192}
"""Tokens of a pack by size of model, and of a micro-batch of TRL's, in whole pairs."""
MEMORY: dict[str, dict[str, Any]] = {"8": {"optimizer": {"name": "adamw_8bit"}}}
"""Settings of sizes that do not fit with float32 moments."""


class Enough(Exception):  # noqa: N818 — not an error
    """The measured steps are taken; the model need not be saved."""


def main() -> None:
    side, spec = sys.argv[1], json.loads(sys.argv[2])
    figures = SIDES[side](spec)
    print(json.dumps(figures))


def peak_gb(spec: Spec) -> float:
    import torch

    if spec["device"] == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


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


def run_ours(spec: Spec) -> Figures:
    """Run the reference pass and training, through the library that the commands call."""
    from dpo.reference_pass import compute_reference
    from dpo.training.loop import train

    figures: Figures = {}
    with tempfile.TemporaryDirectory(dir=spec["work"]) as folder:
        checkpoint, data = prepare(spec, Path(folder))
        clock, times = time.perf_counter(), [0.0, 0.0]

        def progress(done: int, _total: int) -> None:
            times[0 if done == 0 else 1] = time.perf_counter() - clock

        compute_reference(
            data,
            model=str(checkpoint),
            mixed_precision=spec["precision"],
            pack_tokens=tokens_of(spec),
            progress=progress,
        )
        config, steps = train_config(spec, checkpoint, data), []
        tokens = tokens_by_step(config)
        figures["reference_tokens_per_s"] = sum(tokens) / (times[1] - times[0])

        def report(step: int, total: int, metrics: dict[str, float]) -> None:
            steps.append(metrics)
            if step == total:
                raise Enough

        if not spec.get("only_reference"):
            messages: list[str] = []
            try:
                train(config, report=report, on_message=messages.append)
            except Enough:
                figures |= figures_of(steps) | {"tokens_a_step": tokens}
            figures["notices"] = messages
    return figures | {"peak_gb": peak_gb(spec)}


def figures_of(steps: list[dict[str, float]]) -> Figures:
    """Return the figures of the steps after the first two, in which kernels are compiled."""
    steady = steps[2:] or steps[1:] or steps
    return {
        "step_s": statistics.median(step["step_seconds"] for step in steady),
        "tokens_per_s": statistics.median(step["tokens_per_second"] for step in steady),
        "mfu": statistics.median(step["mfu"] for step in steady),
        "losses": [step["loss"] for step in steps],
    }


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

    pairs = Pairs([shard.read() for shard in prefdata.open(config.data).shards("train")])
    order = make_order(pairs, config)
    return [(pairs, order.step(step)) for step in range(1, config.steps + 1)]


def run_trl(spec: Spec) -> Figures:
    """Run the same ids in the same order through TRL's DPOTrainer."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    clocks: dict[str, list[float]] = {"reference": [], "step": []}

    class Fed(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *args: Any, **named: Any) -> Any:
            started = time.perf_counter()
            found = super()._precompute_ref_logps(*args, **named)
            clocks["reference"].append(time.perf_counter() - started)
            return found

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if spec["device"] == "cuda":
                torch.cuda.synchronize()
            clocks["step"].append(time.perf_counter() - self.started)

    with tempfile.TemporaryDirectory(dir=spec["work"]) as folder:
        checkpoint, data = prepare(spec, Path(folder))
        config = train_config(spec, checkpoint, data)
        columns, a_step = columns_of(config)
        tokens = tokens_by_step(config)
        longest = max(
            len(p) + max(len(c), len(r)) for p, c, r in zip(*columns.values(), strict=True)
        )
        micro = micro_batch(a_step, tokens_of(spec) // (2 * longest))
        arguments = DPOConfig(
            output_dir=f"{folder}/trl", max_steps=spec["steps"],
            per_device_train_batch_size=micro, gradient_accumulation_steps=a_step // micro,
            learning_rate=RATE, lr_scheduler_type="constant", beta=BETA, max_length=None,
            precompute_ref_log_probs=True, gradient_checkpointing=False,
            use_cpu=spec["device"] == "cpu", bf16=spec["precision"] == "bf16",
            use_liger_kernel=bool(spec.get("liger")), report_to="none", save_strategy="no",
            logging_steps=1, train_sampling_strategy="sequential", disable_tqdm=True,
            weight_decay=0.0,
        )  # fmt: skip
        trainer = Fed(
            model=AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32),
            args=arguments,
            train_dataset=Dataset.from_dict(
                {"prompt": [""] * len(columns["prompt_ids"])} | columns
            ),
            processing_class=AutoTokenizer.from_pretrained(checkpoint),
            callbacks=[Clock()],
        )
        if not spec.get("only_reference"):
            trainer.train()
    found: Figures = {"reference_tokens_per_s": sum(tokens) / clocks["reference"][0]}
    if clocks["step"]:
        seconds = clocks["step"][2:] or clocks["step"][-1:]
        found |= {"step_s": statistics.median(seconds), "micro_batch": micro}
        found["losses"] = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return found | {"peak_gb": peak_gb(spec)}


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


def check_parity(spec: Spec) -> Figures:
    """Compare shared packs with plain passes in one precision, log-probs and gradients."""
    import torch
    from transformers import AutoModelForCausalLM

    from dpo.data.packing import pack
    from dpo.model.policy import Policy
    from dpo.model.self_check import plain_logps
    from dpo.precision import autocast

    torch.manual_seed(0)
    device = torch.device(spec["device"])
    config = config_of(FAMILIES[spec["family"]], toy=spec["toy"])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(device).eval()
    rows = random_rows(config.vocab_size, 512 if spec["toy"] else 4096)
    batch = pack(rows).to(device)
    policy = Policy(model, shared=False)
    exact = plain_logps(model, rows)
    with autocast(device, spec["precision"]), torch.no_grad():
        plain = plain_logps(model, rows)
        policy.share(shared=True)
        shared = policy(batch).logps_N
    gradients = [gradient_of(policy, batch, spec, shared=shared) for shared in (True, False)]
    gap = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    return {
        "worst_nats": float((shared - plain).abs().max()),
        "from_exact": float((shared - exact).abs().mean()),
        "plain_from_exact": float((plain - exact).abs().mean()),
        "gradient": float(gap),
    }


def random_rows(vocabulary: int, tokens: int) -> list[Any]:
    """Return prompts with two completions of real lengths, and random ids."""
    import numpy as np

    from dpo.data.packing import PromptWithCompletions

    draw = np.random.default_rng(0)

    def ids(length: int) -> Any:
        return draw.integers(2, vocabulary, length).astype(np.int32)

    return [
        PromptWithCompletions(ids(prompt), tuple(map(ids, lengths)), (None,) * len(lengths))
        for prompt, lengths in segments_of(tokens)
    ]


def gradient_of(policy: Any, batch: Any, spec: Spec, *, shared: bool) -> Any:
    """Return the gradient of weighted log-probs by all weights, (weights,)."""
    import torch

    from dpo.precision import autocast

    policy.share(shared=shared)
    policy.zero_grad(set_to_none=True)
    weights = torch.linspace(-1, 1, len(batch.targets_N), device=batch.targets_N.device)
    with autocast(batch.targets_N.device, spec["precision"]):
        total = (policy(batch).logps_N * weights).sum()
    total.backward()
    found = [weight.grad.flatten() for weight in policy.parameters() if weight.grad is not None]
    return torch.cat(found)


def time_attention(spec: Spec) -> Figures:
    """Time one layer's attention over a pack: forward and backward, by kind of kernel."""
    import torch

    from dpo.data.packing import Segment
    from dpo.model import attention_cuda
    from dpo.model.attention import BACKENDS
    from dpo.model.attention_cuda import AttentionOptions

    device, toy = torch.device(spec["device"]), spec["toy"]
    heads, groups, size = (4, 2, 16) if toy else (32, 8, 128)
    dtype = torch.bfloat16 if spec["precision"] == "bf16" else torch.float32
    segments = tuple(Segment(*one) for one in segments_of(spec["tokens"]))
    how = AttentionOptions(None, 0.0, spec["window"], None)
    trains = device.type == "cuda"  # FlexAttention has no gradient on a CPU
    shapes = [(1, count, spec["tokens"], size) for count in (heads, groups, groups)]
    states = [torch.randn(s, device=device, dtype=dtype, requires_grad=trains) for s in shapes]
    started = time.perf_counter()
    attention_cuda.block_mask(segments, spec["window"], device)
    figures: Figures = {"mask_ms": 1e3 * (time.perf_counter() - started)}
    kernels: dict[str, tuple[Callable[[], Any], list[Any]]] = {
        f"{name}_ms": (partial(attend, *states, segments, how), states)
        for name, attend in BACKENDS.items()
    }
    if trains:
        kernels["varlen_ms"] = varlen(states, segments, spec["window"])
    for name, (run, given) in kernels.items():
        figures[name] = milliseconds(run, given if trains else [], device)
    return figures | {"peak_gb": peak_gb(spec)}


def varlen(
    states: list[Any], segments: tuple[Any, ...], window: int | None
) -> tuple[Callable[[], Any], list[Any]]:
    """Return FlashAttention over texts that each have a copy of their prompt, and its inputs."""
    import torch
    from torch.nn.attention.varlen import varlen_attn

    places, lengths, start = [], [], 0
    for segment in segments:
        place = start + segment.prompt
        for length in segment.completions:
            places += [*range(start, start + segment.prompt), *range(place, place + length)]
            lengths.append(segment.prompt + length)
            place += length
        start = place
    ends = torch.tensor([0, *lengths], device=states[0].device).cumsum(0).to(torch.int32)
    with torch.no_grad():
        copies = [
            some[0].transpose(0, 1)[torch.tensor(places, device=some.device)] for some in states
        ]
    texts = [some.contiguous().requires_grad_() for some in copies]
    run = partial(
        varlen_attn, *texts, ends, ends, max(lengths), max(lengths),
        window_size=(-1 if window is None else window - 1, 0), enable_gqa=True,
    )  # fmt: skip
    return run, texts


def milliseconds(run: Callable[[], Any], states: list[Any], device: Any) -> float:
    """Return the median time of a pass after two others, with its backward if states have one."""
    import torch

    clocks = [0.0]
    for _ in range(8 if states else 4):  # a CPU only shows that it runs
        output = run()
        if states:
            torch.autograd.grad(output.sum(), states)
        if device.type == "cuda":
            torch.cuda.synchronize()
        clocks.append(time.perf_counter())
    return 1e3 * statistics.median(after - before for before, after in list(pairwise(clocks))[3:])


SIDES: dict[str, Callable[[Spec], Figures]] = {
    "ours": run_ours, "trl": run_trl, "parity": check_parity, "attention": time_attention,
}  # fmt: skip

if __name__ == "__main__":
    main()
