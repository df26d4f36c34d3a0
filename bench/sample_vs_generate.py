"""Tokens a second of dpo-sample's decoder against transformers' `generate`, in turn, in one run.

    python bench/sample_vs_generate.py --model .models/SmolLM2-135M-Instruct

Both draw at temperature 1 from the whole vocabulary, the same batch of prompts, K completions of
each, until the end token or --max-new-tokens. `generate` gets the batch as it is best for it:
sorted by length, padded on the left, with K as num_return_sequences. Seconds are those of the
process's threads (CPU) and of the clock; read the first if the machine has other work.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from dpo import SampleConfig, encode_prompts, load_model, load_tokenizer, sample
from dpo.model.tokenizer import stop_ids
from dpo.sampling.readers import Cached

HELD_OUT = Path("pipelines/quickstart/held_out.jsonl")


class Lap(NamedTuple):
    """One run: generated tokens and its seconds."""

    tokens: int
    cpu: float
    wall: float


def lap(run: Callable[[int], int], k: int) -> Lap:
    cpu, wall = time.process_time(), time.perf_counter()
    tokens = run(k)
    return Lap(tokens, time.process_time() - cpu, time.perf_counter() - wall)


class Peers:
    """Both decoders on the same prompts."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.model = load_model(args.model).to(getattr(torch, args.dtype))
        self.tokenizer = load_tokenizer(args.model)
        rows = map(json.loads, args.prompts.read_text(encoding="utf-8").splitlines())
        self.prompts = [row["prompt"] for row in rows][: args.num_prompts]
        self.stop = stop_ids(self.model, self.tokenizer)

    def ours(self, k: int) -> int:
        """Return the number of tokens that dpo samples."""
        config = SampleConfig(
            k=k, max_new_tokens=self.args.max_new_tokens, batch_size=k * len(self.prompts),
            text="chat",
        )  # fmt: skip
        drawn = sample(self.prompts, self.model, self.tokenizer, config, reader=Cached)
        return sum(len(one.ids) for completions in drawn for one in completions)

    def theirs(self, k: int) -> int:
        """Return the number of tokens that `generate` samples, without those after an end."""
        rows = sorted(encode_prompts(self.prompts, self.tokenizer), key=len)
        length = len(rows[-1])
        ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        model: Any = self.model
        found = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            num_return_sequences=k, max_new_tokens=self.args.max_new_tokens,
            eos_token_id=sorted(self.stop), pad_token_id=min(self.stop),
        )[:, length:]  # fmt: skip
        ends = torch.isin(found, torch.tensor(sorted(self.stop)))
        before = (ends.cumsum(1) - ends.long()) == 0
        return int(before.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=".models/SmolLM2-135M-Instruct")
    parser.add_argument("--prompts", type=Path, default=HELD_OUT)
    parser.add_argument("--num-prompts", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    torch.manual_seed(0)
    peers = Peers(args)
    print(f"{args.num_prompts} prompts, {args.dtype}, {torch.get_num_threads()} threads")
    for k in (1, 4):
        both = (peers.ours, peers.theirs)
        for run in both:  # once before they are measured
            run(k)
        rounds = [[lap(run, k) for run in both] for _ in range(args.rounds)]
        for unit in ("cpu", "wall"):
            rates = [[one.tokens / getattr(one, unit) for one in laps] for laps in rounds]
            ratios = [ours / theirs for ours, theirs in rates]
            ours, theirs = (median(side) for side in zip(*rates, strict=True))
            print(
                f"k={k} {unit}: {ours:.0f} against {theirs:.0f} tokens/s,"
                f" ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
