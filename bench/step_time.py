"""Seconds per step as the number of pairs grows, against a plain padded loop of the same loss.

    python bench/step_time.py --model .models/SmolLM2-135M-Instruct --data hh.jsonl.gz

The plain loop is the simple one: each row is a prompt and one completion, padded to the longest of
`MICRO` pairs, with transformers' own logits and log_softmax, gradient accumulation over these
micro-batches, and AdamW. Both take one step on the same pairs from the same weights, slightly
changed from the reference, each in its own process, after a warm-up pass. Prints seconds per pair,
peak memory and the two losses.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from same_pairs import BATCH, BETA, RATE, build_config, choose_rows

MICRO = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="a preference file that prefdata reads")
    parser.add_argument("--pairs", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--side", choices=["ours", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        print(json.dumps(measure(options.side, Path(options.data), options.model, *options.pairs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(folder), options)
        print(
            f"{'pairs':>6}{'ours':>9}{'plain':>9}  seconds a pair{'ours':>8}{'plain':>8}  peak GB"
        )
        for count in options.pairs:
            ours, plain = (run_side(side, data, options.model, count) for side in SIDES)
            seconds = [found["seconds"] / count for found in (ours, plain)]
            print(f"{count:>6}{seconds[0]:>9.3f}{seconds[1]:>9.3f}{'':16}", end="")
            print(f"{ours['gb']:>8.1f}{plain['gb']:>8.1f}", end="")
            print(f"   {seconds[1] / seconds[0]:.2f} times as fast", end="")
            print(f", losses {ours['loss']:.6f} and {plain['loss']:.6f}", flush=True)


def prepare(folder: Path, options: argparse.Namespace) -> Path:
    """Build as many pairs as the largest step has, and compute their reference log-probs."""
    import prefdata
    from dpo.reference_pass import compute_reference

    steps = -(-max(options.pairs) // BATCH)
    choose_rows(
        folder,
        argparse.Namespace(
            model=options.model, data=options.data, steps=steps, completions=2,
            long_prompts=0.0, precision="no", pack_tokens=1024,
        ),
    )  # fmt: skip
    prefdata.build(build_config(folder / "pairs.jsonl", options.model, folder / "data"))
    compute_reference(folder / "data", model=options.model)
    return folder / "data"


def run_side(side: str, data: Path, model: str, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--model", model]
    command += ["--data", str(data), "--pairs", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(side: str, data: Path, model: str, count: int) -> dict[str, float]:
    """Run one step of `count` pairs on one side."""
    import torch

    from dpo.config import TrainConfig
    from dpo.model.cpu_memory import tune_cpu_allocator
    from dpo.training.distributed import make_accelerator
    from dpo.training.setup import open_run

    values = {
        "model": model, "data": data, "out": data.parent / "run", "global_batch_size": count,
        "steps": 1, "loss": {"name": "dpo", "beta": BETA}, "eval_split": None,
        "optimizer": {"learning_rate": RATE},
    }  # fmt: skip
    config = TrainConfig.model_validate(values)
    tune_cpu_allocator()
    run = replace(open_run(config, make_accelerator(config)), starts_as_reference=False)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in run.policy.parameters():
            weight.add_(torch.randn_like(weight), alpha=1e-3)
    seconds, loss = SIDES[side](run)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": seconds, "loss": loss, "gb": gigabytes}


def step_ours(run: Any) -> tuple[float, float]:
    from dpo.training.memory_check import check_memory
    from dpo.training.step import train_step

    check_memory(run)
    started = time.perf_counter()
    loss = train_step(run, 1)["loss"]
    return time.perf_counter() - started, loss


def step_plain(run: Any) -> tuple[float, float]:
    """Run forward, loss and backward by micro-batches, as in introductions to DPO."""
    import torch

    model, rows = run.policy.model, run.order.rows(1)
    run.policy.share(shared=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    padded_loss(run, model, rows[:MICRO]).sum().backward()
    optimizer.zero_grad()
    started, total = time.perf_counter(), 0.0
    for place in range(0, len(rows), MICRO):
        losses = padded_loss(run, model, rows[place : place + MICRO])
        (losses.sum() / len(rows)).backward()
        total += float(losses.sum().detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - started, total / len(rows)


def padded_loss(run: Any, model: Any, rows: list[int]) -> Any:
    """Return the DPO loss of each pair, (rows,)."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    pairs = [run.train.pairs[row] for row in rows]
    texts = [(pair.prompt, pair.completions[side]) for side in (0, 1) for pair in pairs]
    longest = max(len(prompt) + len(completion) for prompt, completion in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    is_text, counts = torch.zeros_like(ids), torch.zeros(len(texts), longest)
    for place, (prompt, completion) in enumerate(texts):
        text = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
        ids[place, : len(text)], is_text[place, : len(text)] = text, 1
        counts[place, len(prompt) : len(text)] = 1
    logits = model(input_ids=ids, attention_mask=is_text, use_cache=False).logits[:, :-1]
    logps = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    sums = (logps * counts[:, 1:]).sum(-1)
    chosen, rejected = (sums - torch.from_numpy(run.train.ref_logps[rows].T.flatten())).chunk(2)
    return -F.logsigmoid(BETA * (chosen - rejected))


SIDES = {"ours": step_ours, "plain": step_plain}

if __name__ == "__main__":
    main()
