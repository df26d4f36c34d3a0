"""Tokens per step, peak matmul throughput, MFU, and the compute that packing saves."""

import time
from typing import Any, NamedTuple

import torch

from dpo.data.pairs import Pairs
from dpo.model.cpu_products import multiply
from dpo.model.moe import experts_per_token
from dpo.model.policy import Policy, device_of
from dpo.precision import PRODUCTS, Precision

SIZE = {"cpu": 1024, "cuda": 8192}


class StepTokens(NamedTuple):
    """Token counts of a step."""

    tokens: int
    """Tokens that the body runs: each prompt once, each distinct completion once."""
    answers: int
    """Tokens of completions among these, which the head runs."""
    plain: int
    """Tokens if every completion repeated its prompt."""
    padded: int
    """Tokens if every such row were padded to the longest one of the step."""

    def spared(self) -> dict[str, float]:
        """Return the share of `padded` that is padding, and of `plain` that is repeated prompts."""
        return {
            "padding_saved": 1 - self.plain / self.padded,
            "prompt_sharing": 1 - self.tokens / self.plain,
        }


def work_of(pairs: Pairs, units: list[list[int]]) -> StepTokens:
    """Return the token counts of a step of these pairs or groups."""
    prompts = [prompt for unit in units for prompt in pairs.share_prompts(unit).prompts]
    lengths = pairs.lengths[[row for unit in units for row in unit]]
    rows = lengths[:, :1] + lengths[:, 1:]
    tokens = sum(prompt.num_tokens for prompt in prompts)
    answers = tokens - sum(len(prompt.prompt) for prompt in prompts)
    return StepTokens(tokens, answers, int(rows.sum()), int(rows.size * rows.max()))


class MfuMeter(NamedTuple):
    """FLOPs per token of a model, and the peak FLOP/s that a process reaches in a product."""

    per_token: float
    per_answer: float
    peak: float

    def utilization(self, work: StepTokens, *, seconds: float, processes: int) -> float:
        """Return the model's FLOPs as a share of what the peak rate allows in that time.

        MFU as in appendix B of https://arxiv.org/abs/2204.02311, but without attention's own
        products. Layers that run twice (gradient checkpointing) count once.
        """
        flops = self.per_token * work.tokens + self.per_answer * work.answers
        return flops / (seconds * self.peak * processes)


def make_machine(policy: Policy, *, precision: Precision) -> MfuMeter:
    """Count the model's weights and measure the peak FLOP/s, which takes some milliseconds.

    A weight costs two FLOPs per token forward and two for the gradient of its input; a trained one
    costs two more for its own gradient.
    """
    model: Any = policy.model
    embedding = model.get_input_embeddings().weight
    head = getattr(model.get_output_embeddings(), "weight", embedding)
    ends, chosen = {id(head), id(embedding)}, experts_per_token(model)
    body = sum(_flops(weight, chosen) for weight in policy.parameters() if id(weight) not in ends)
    device = device_of(model)
    # fp16 on a CPU may be a thousand times slower than float32: measuring it would take minutes
    dtype = PRODUCTS["no" if device.type == "cpu" and precision == "fp16" else precision]
    return MfuMeter(body, _flops(head, chosen), _peak(device, dtype))


def _flops(weight: torch.Tensor, chosen: int) -> float:
    used = weight.numel()
    if chosen and weight.ndim == 3:  # all experts of a layer; a token uses `chosen` of them
        used = used // len(weight) * chosen
    return (6.0 if weight.requires_grad else 4.0) * used


def _peak(device: torch.device, dtype: torch.dtype) -> float:
    size = SIZE.get(device.type, 4096)
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    multiply(left, right)
    best = 0.0
    for _ in range(3):
        _wait(device)
        started = time.perf_counter()
        multiply(left, right)
        _wait(device)
        best = max(best, 2.0 * size**3 / (time.perf_counter() - started))
    return best


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
