"""TRL's DPOTrainer and ours on the same pairs in the same order, in alternating rounds.

    python bench/train_vs_trl.py --model .models/SmolLM2-135M-Instruct --data hh.jsonl.gz
    python bench/train_vs_trl.py ... --data samples.jsonl --completions 4
    python bench/train_vs_trl.py ... --data hh.jsonl.gz --long-prompts 4

`--completions K` selects prompts with K ranked completions and trains on all pairs of each, a few
prompts per step; `--long-prompts R` selects pairs whose prompt has at least R times the tokens of
a completion.

Each side runs in its own process: tokenize, reference log-probs, optimizer steps. Both use the
same rows, in the order of our steps, with the same optimizer and dtype, so that the losses can be
compared step by step. Our side also measures torch.mm before each pack and after a step, in the
precision of the run; this time is subtracted. It gives the share of the machine's own matmul
throughput that a steady step reaches, counting 6 FLOPs per body parameter and token and per head
parameter and completion token. A shared machine changes its speed within seconds, so the share of
a run is its FLOPs over the sum of seconds × rate of its steps. Prints every run, and ratios with
their spread.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from same_pairs import (
    BETA,
    LENGTH,
    RATE,
    build_config,
    choose_rows,
    pairs_of_unit,
    train_config,
    units_of_step,
)
from yardstick import Yardstick, step_flops

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="a preference file that prefdata reads")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--completions", type=int, default=2, help="ranked completions per prompt")
    parser.add_argument("--long-prompts", type=float, default=0.0, metavar="R")
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--pack-tokens", type=int, default=1024, help="tokens per pack of our side")
    parser.add_argument("--only", choices=["trl", "ours"], help="run one side, for its figures")
    parser.add_argument("--side", choices=["trl", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        figures = SIDES[options.side](options, Path(options.data))
        figures["peak_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        (options.work / "figures.json").write_text(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = choose_rows(Path(folder), options)
        print(f"{rows} pairs, {options.steps} steps, mixed_precision {options.precision}")
        names = ("torch", "transformers", "accelerate", "trl")
        print(", ".join(f"{name} {version(name)}" for name in names))
        rounds = [run_both(Path(folder), options, turn) for turn in range(options.rounds)]
        if options.only is None:
            compare(rounds)


def run_both(folder: Path, options: argparse.Namespace, turn: int) -> dict[str, Figures]:
    """Run each side once; the side that runs first alternates."""
    found = {}
    for side in ("ours", "trl") if turn % 2 == 0 else ("trl", "ours"):
        if options.only not in (None, side):
            continue
        work = folder / f"{side}-{turn}"
        work.mkdir()
        command = [sys.executable, __file__, "--side", side, "--work", str(work)]
        command += ["--model", options.model, "--data", str(folder), "--steps", str(options.steps)]
        command += ["--precision", options.precision, "--completions", str(options.completions)]
        command += ["--pack-tokens", str(options.pack_tokens)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
        found[side] = json.loads((work / "figures.json").read_text())
        shown = {k: v for k, v in found[side].items() if k != "losses"}
        print(f"round {turn + 1} {side:4} {json.dumps(shown)}", flush=True)
    return found


def run_ours(options: argparse.Namespace, folder: Path) -> Figures:
    """Run build, reference and steps, through the library that the commands call."""
    import torch

    import prefdata
    from dpo.reference_pass import compute_reference
    from dpo.training.loop import train

    figures: Figures = {}
    data = options.work / "data"
    with timed(figures, "tokenize_seconds"):
        prefdata.build(build_config(folder / "pairs.jsonl", options.model, data))
    with timed(figures, "reference_with_loading_seconds"):
        manifest = compute_reference(
            data,
            model=options.model,
            mixed_precision=options.precision,
            progress=PassClock(figures),
        )
    yardstick, steps = Yardstick(torch, options.precision), []

    def report(_step: int, _total: int, metrics: dict[str, float]) -> None:
        steps.append((metrics, *yardstick.lap()))

    config = train_config(options, data, options.work / "run")
    with yardstick:
        train(config, report=report)
    seconds = [metrics["step_seconds"] - measuring for metrics, measuring, _ in steps]
    rates = [rate for _, _, rate in steps]
    flops = step_flops(config)
    return figures | {
        "rows": sum(seal.rows for seal in manifest.shards),
        "step_seconds": [round(second, 2) for second in seconds],
        "steady_share_of_mm": round(
            sum(flops[1:]) / sum(s * r for s, r in zip(seconds[1:], rates[1:], strict=True)), 3
        ),
        "mm_gflops": [round(rate / 1e9) for rate in rates],
        "losses": [metrics["loss"] for metrics, _, _ in steps],
    }


def run_trl(options: argparse.Namespace, folder: Path) -> Figures:
    """Run the same through DPOTrainer; only the timers are ours."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    figures: Figures = {}
    lines = (folder / "ordered.jsonl").read_text().splitlines()

    class Timed(DPOTrainer):
        def _prepare_dataset(self, *args: Any, **named: Any) -> Any:
            with timed(figures, "tokenize_seconds"):
                return super()._prepare_dataset(*args, **named)

        def _precompute_ref_logps(self, *args: Any, **named: Any) -> Any:
            with timed(figures, "reference_seconds"):
                return super()._precompute_ref_logps(*args, **named)

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.started)

    arguments = DPOConfig(
        output_dir=str(options.work), max_steps=options.steps,
        per_device_train_batch_size=units_of_step(options) * pairs_of_unit(options),
        learning_rate=RATE, lr_scheduler_type="constant", beta=BETA, max_length=LENGTH,
        precompute_ref_log_probs=True, gradient_checkpointing=False, use_cpu=True,
        bf16=options.precision == "bf16", report_to="none", save_strategy="no", logging_steps=1,
        train_sampling_strategy="sequential", disable_tqdm=True, weight_decay=0.0,
    )  # fmt: skip
    clock = Clock()
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list([json.loads(line) for line in lines]),
        processing_class=AutoTokenizer.from_pretrained(options.model),
        callbacks=[clock],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    seconds = [round(second, 2) for second in clock.seconds]
    return figures | {"rows": len(lines), "step_seconds": seconds, "losses": losses}


@contextmanager
def timed(figures: Figures, name: str) -> Any:
    started = time.perf_counter()
    yield
    figures[name] = round(time.perf_counter() - started, 3)


class PassClock:
    """Time of the pass alone: `compute_reference` first advances by 0, after loading."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        del title
        done, started = 0, 0.0

        def advance(steps: int) -> None:
            nonlocal done, started
            started = started or time.perf_counter()
            done += steps
            if done == total:
                seconds = round(time.perf_counter() - started, 3)
                self._figures.setdefault("reference_seconds", seconds)

        yield advance

    def note(self, text: str) -> None:
        del text


def compare(rounds: list[dict[str, Figures]]) -> None:
    """Print ratios of the two sides: the median over the rounds, the least and the most."""
    ours, theirs = [turn["ours"] for turn in rounds], [turn["trl"] for turn in rounds]

    def ratio(name: str, figure: Callable[[Figures], float], *, inverse: bool = False) -> None:
        values = [figure(b) / figure(a) for a, b in zip(ours, theirs, strict=True)]
        values = sorted(1 / value for value in values) if inverse else sorted(values)
        middle = statistics.median(values)
        print(f"{name:44} {middle:6.2f}   ({values[0]:.2f} to {values[-1]:.2f})")

    print("\nmedian ratio over the rounds (least to most)")
    ratio("training, all steps: TRL's time / ours", lambda f: sum(f["step_seconds"]))
    ratio("training, after the first step", lambda f: sum(f["step_seconds"][1:]))
    ratio("reference pass", lambda f: f["reference_seconds"])
    ratio("tokenize against the whole build", lambda f: f["tokenize_seconds"])
    ratio("peak RSS: ours / TRL's", lambda f: f["peak_rss_gb"], inverse=True)
    shares = [figures["steady_share_of_mm"] for figures in ours]
    print(f"steady steps as a share of torch.mm: median {statistics.median(shares):.3f}", end="")
    print(f"   ({min(shares):.3f} to {max(shares):.3f})")
    gaps = [
        abs(a - b)
        for turn in rounds
        for a, b in zip(turn["ours"]["losses"], turn["trl"]["losses"], strict=True)
    ]
    print(f"largest difference of a step's loss: {max(gaps):.2e} over {len(gaps)} steps")
    print("ours", [round(loss, 5) for loss in ours[0]["losses"]])
    print("TRL ", [round(loss, 5) for loss in theirs[0]["losses"]])


SIDES = {"trl": run_trl, "ours": run_ours}

if __name__ == "__main__":
    main()
