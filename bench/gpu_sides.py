"""One measurement of bench/gpu.py in a process of its own: its peak memory is its own too.

    python bench/gpu_sides.py SIDE '{"device": "cuda", …}'

Prints one JSON object of figures as its last line.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gpu_trl
from gpu_cases import FAMILIES, config_of, segments_of
from gpu_run import (
    Figures,
    Spec,
    peak_gb,
    prepare,
    reset_peak,
    tokens_by_step,
    tokens_of,
    train_config,
)


class Enough(Exception):  # noqa: N818 — not an error
    """The measured steps are taken; the model need not be saved."""


def main() -> None:
    side, spec = sys.argv[1], json.loads(sys.argv[2])
    figures = SIDES[side](spec)
    print(json.dumps(figures))


class PassClock:
    """Rows of the reference pass with their time; the first pack compiles kernels."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    @contextmanager
    def bar(self, _title: str, _total: int) -> Iterator[Callable[[int], None]]:
        yield lambda rows: self.seen.append((time.perf_counter(), rows))

    def note(self, text: str) -> None:
        """Show nothing."""

    def rows_per_second(self) -> float:
        rows = sum(rows for _, rows in self.seen[1:])
        return rows / (self.seen[-1][0] - self.seen[0][0])


def run_ours(spec: Spec) -> Figures:
    """Run the reference pass and training, through the library that the commands call."""
    from dpo.reference_pass import compute_reference
    from dpo.training.loop import train

    clock, messages = PassClock(), list[str]()
    steps: list[dict[str, float]] = []

    def report(step: int, total: int, metrics: dict[str, float]) -> None:
        steps.append(metrics)
        if step == total:
            raise Enough

    with tempfile.TemporaryDirectory(dir=spec["work"]) as folder:
        checkpoint, data = prepare(spec, Path(folder))
        compute_reference(
            data,
            model=str(checkpoint),
            mixed_precision=spec["precision"],
            pack_tokens=tokens_of(spec),
            progress=clock,
        )
        config = train_config(spec, checkpoint, data)
        tokens, rows = tokens_by_step(config), config.steps * spec["prompts"]
        figures: Figures = {"tokens_a_step": tokens, "notices": messages}
        pairs = rows * spec["completions"] * (spec["completions"] - 1) // 2
        figures["reference_tokens_per_s"] = clock.rows_per_second() * sum(tokens) / pairs
        if not spec.get("only_reference"):
            reset_peak(spec)
            with suppress(Enough):
                train(config, report=report, on_message=messages.append)
            figures |= figures_of(steps)
    return figures | {"peak_gb": peak_gb(spec)}


def figures_of(steps: list[dict[str, float]]) -> Figures:
    """Return seconds and losses of all steps, and the MFU of the last."""
    return {
        "seconds": [step["step_seconds"] for step in steps],
        "losses": [step["loss"] for step in steps],
        "mfu": steps[-1]["mfu"],
    }


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
    from_config: Any = AutoModelForCausalLM.from_config
    config = config_of(FAMILIES[spec["family"]], toy=spec["toy"])
    model = from_config(config, dtype=torch.float32).to(device).eval()
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
    from dpo.model.attention import AUTO, BACKENDS, FLEX, backend_of
    from dpo.model.attention_cuda import AttentionOptions

    device, toy = torch.device(spec["device"]), spec["toy"]
    heads, groups, size = (4, 2, 16) if toy else (32, 8, 128)
    dtype = torch.bfloat16 if spec["precision"] == "bf16" else torch.float32
    segments = tuple(Segment(*one) for one in segments_of(spec["tokens"]))
    how = AttentionOptions(None, 0.0, spec["window"], None)
    trains = device.type == "cuda"  # FlexAttention has no gradient on a CPU
    shapes = [(1, count, spec["tokens"], size) for count in (heads, groups, groups)]
    query, key, value = states = [
        torch.randn(s, device=device, dtype=dtype, requires_grad=trains) for s in shapes
    ]
    started = time.perf_counter()
    attention_cuda.block_mask(segments, spec["window"], device)
    figures: Figures = {"mask_ms": 1e3 * (time.perf_counter() - started)}
    kernels: dict[str, tuple[Callable[[], Any], list[Any]]] = {
        f"{name}_ms": (partial(attend, query, key, value, segments, how), states)
        for name, attend in BACKENDS.items()
    }
    if backend_of(AUTO, device, dtype) != FLEX and trains:
        del kernels["flex_ms"]  # this GPU has no kernel for float32
    if trains and dtype == torch.bfloat16:
        kernels["varlen_ms"] = varlen(states, segments, spec["window"])
    for name, (run, given) in kernels.items():
        figures[name] = milliseconds(run, given if trains else [], device)
    return figures | {"peak_gb": peak_gb(spec)}


def varlen(
    states: list[Any], segments: tuple[Any, ...], window: int | None
) -> tuple[Callable[[], Any], list[Any]]:
    """Return FlashAttention over texts that each have a copy of their prompt, and its inputs."""
    import torch
    from torch.nn.attention import varlen as flash

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
    kernel: Any = flash.varlen_attn
    run = partial(
        kernel, *texts, ends, ends, max(lengths), max(lengths),
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
    "ours": run_ours, "trl": gpu_trl.run, "parity": check_parity, "attention": time_attention,
}  # fmt: skip

if __name__ == "__main__":
    main()
