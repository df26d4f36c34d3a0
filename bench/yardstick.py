"""Matmul throughput of the machine during a training step, and the FLOPs of a step."""

import statistics
import time
from importlib import import_module
from typing import Any


class Yardstick:
    """Context manager that measures torch.mm before each pack of a step."""

    def __init__(self, torch: Any, precision: str) -> None:
        self.torch, self.seconds = torch, 0.0
        self.rates: list[float] = []
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def __enter__(self) -> None:
        self.home: Any = import_module("dpo.training.step")
        self.run_pack = vars(self.home)["_backward"]

        def measured(*arguments: Any) -> Any:
            self.measure()
            return self.run_pack(*arguments)

        vars(self.home)["_backward"] = measured

    def __exit__(self, *_: object) -> None:
        vars(self.home)["_backward"] = self.run_pack

    def measure(self) -> None:
        """Measure the FLOP/s of torch.mm in the precision of the run, on 2048 × 2048 matrices."""
        started = time.perf_counter()
        left, right, out = (self.torch.randn(2048, 2048).to(self.dtype) for _ in range(3))
        self.torch.mm(left, right, out=out)
        begun = time.perf_counter()
        for _ in range(6):
            self.torch.mm(left, right, out=out)
        ended = time.perf_counter()
        self.rates.append(6 * 2 * 2048**3 / (ended - begun))
        self.seconds += ended - started

    def lap(self) -> tuple[float, float]:
        """Return the seconds that measuring took in the step, and the mean rate around it."""
        spent = self.seconds
        self.measure()
        rate = statistics.fmean(self.rates)
        self.seconds, self.rates = 0.0, []
        return spent, rate


def step_flops(config: Any) -> list[float]:
    """Return FLOPs by step: 6 per body parameter and token, per head parameter and answer token."""
    import prefdata
    from dpo.data.pairs import Pairs
    from dpo.data.sampler import make_order
    from dpo.model.load import load_model

    model: Any = load_model(config.model)
    head = model.get_output_embeddings().weight.numel()
    body = sum(parameter.numel() for parameter in model.parameters())
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    body -= head if tied else 2 * head
    pairs = Pairs(prefdata.open(config.data).shards("train"))
    order, found = make_order(pairs, config), []
    for step in range(1, config.steps + 1):
        prompts = [
            prompt for unit in order.step(step) for prompt in pairs.share_prompts(unit).prompts
        ]
        tokens = sum(prompt.num_tokens for prompt in prompts)
        answers = sum(len(completion) for one in prompts for completion in one.completions)
        found.append(6.0 * (body * tokens + head * answers))
    return found
