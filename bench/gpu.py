"""Everything that only a GPU can show, in stages of less than ten minutes, as one table.

    python bench/gpu.py                            # all stages
    python bench/gpu.py --stage step --size 0.5    # one
    python bench/gpu.py --device cpu --toy         # tiny models on a CPU: shows that it runs

It needs one CUDA device and no network: models have random weights of real shapes, pairs have the
lengths of real ones (bench/gpu_cases.py). If TRL 1.16 is installed (`make bench`), it runs on the
same ids in the same order with the same precision, once as it is and, if liger_kernel is
installed, once with its layer kernels. TRL 1.16 refuses Liger's fused loss: its own head computes
log-probs in chunks.

    tests       the tests that are marked `gpu`
    parity      shared packs against plain passes, float32 and bf16
    step        tokens/s, MFU and peak memory of a step, and the difference of its losses from TRL's
    reference   tokens/s of the reference pass
    attention   one layer: FlexAttention, text by text, and FlashAttention with repeated prompts
    plan        peak memory against the plan that dpo-train prints

Tokens are those that our packs run, each prompt and completion once, for both sides. A
measurement that does not fit into the device's memory or the stage's time says so in its row.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from gpu_cases import FAMILIES, SIZES

SECONDS = 570
"""Maximum seconds of a stage, or of one size of it."""
ROOT = Path(__file__).parents[1]
Spec = dict[str, Any]


class Row(NamedTuple):
    """One line of the table."""

    stage: str
    case: str
    side: str
    figures: str


class Stage:
    """A stage that is running: its options and the time that it has."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.end = time.monotonic() + SECONDS

    def measure(self, side: str, **spec: Any) -> Spec | str:
        """Run one side in a process of its own; return its figures, or why there are none."""
        left = self.end - time.monotonic()
        if left < 10:
            return "not run: the stage has used its time"
        shared = {"device": self.options.device, "toy": self.options.toy, "work": str(self.work)}
        command = [sys.executable, str(Path(__file__).with_name("gpu_sides.py")), side]
        try:
            done = subprocess.run(
                [*command, json.dumps(shared | spec)],
                capture_output=True, text=True, check=False, timeout=left, cwd=ROOT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "not finished in the stage's time"
        if done.returncode == 0:
            found: Spec = json.loads(done.stdout.splitlines()[-1])
            return found
        return why_failed(done.stderr)


def why_failed(errors: str) -> str:
    """Return an out-of-memory error by its name, any other by its last line."""
    if "out of memory" in errors.lower():
        return "does not fit into memory"
    lines = [line for line in errors.splitlines() if line.strip()]
    return f"FAILED: {lines[-1] if lines else 'no message'}"[:200]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=list(STAGES), action="append", help="default: all")
    parser.add_argument("--size", choices=list(SIZES), action="append", help="billions: all")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--toy", action="store_true", help="tiny models and few steps")
    parser.add_argument("--work", type=Path, help="where checkpoints are written: 16 GB for 8 B")
    options = parser.parse_args()
    options.size = options.size or (["0.1"] if options.toy else list(SIZES))
    heading = describe(options)
    print(heading, flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        for name in options.stage or list(STAGES):
            started = time.monotonic()
            for row in STAGES[name](options, Path(work)):
                print(f"{row.stage:10} {row.case:22} {row.side:10} {row.figures}", flush=True)
                rows.append(row)
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    print("\n" + heading + "\n\n" + table(rows))


def describe(options: argparse.Namespace) -> str:
    import torch

    names = ("torch", "transformers", "accelerate", "trl", "liger_kernel")
    versions = ", ".join(f"{name} {found}" for name in names if (found := version_of(name)))
    if options.device == "cpu":
        return f"CPU ({torch.get_num_threads()} threads), {versions}"
    if not torch.cuda.is_available():
        sys.exit("no CUDA device; --device cpu --toy shows that the stages run")
    device = torch.cuda.get_device_properties(0)
    return (
        f"{device.name}, {device.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}, {versions}"
    )


def version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def table(rows: list[Row]) -> str:
    """Return the rows as a table of Markdown, for RESULTS.md."""
    lines = [" | ".join(("stage", "case", "side", "figures")), "|".join(["---"] * 4)]
    return "\n".join(f"| {line} |" for line in [*lines, *(" | ".join(row) for row in rows)])


def run_tests(options: argparse.Namespace, _work: Path) -> Iterator[Row]:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    places = ["tests/dpo/model/test_attention_cuda.py"] if options.toy else ["tests"]
    try:
        done = subprocess.run(
            [*command, *places],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield Row("tests", "marked gpu", "pytest", "not finished in the stage's time")
        return
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    lines = done.stdout.splitlines() or done.stderr.splitlines() or ["no output"]
    yield Row("tests", "marked gpu", "pytest", "; ".join([lines[-1].strip("= "), *failed]))


def run_parity(options: argparse.Namespace, work: Path) -> Iterator[Row]:
    """Yield gaps in nats per token; in bf16 those of plain passes from float32 are next to them."""
    stage = Stage(options, work)
    for family in FAMILIES:
        for precision in ("no", "bf16"):
            found = stage.measure("parity", family=family, precision=precision)
            if not isinstance(found, str):
                found = (
                    f"worst gap {found['worst_nats']:.1e} nats,"
                    f" mean from float32 {found['from_exact']:.1e}"
                    f" (plain passes {found['plain_from_exact']:.1e}),"
                    f" gradient off by {found['gradient']:.1e}"
                )
            yield Row("parity", family, "float32" if precision == "no" else precision, found)


def run_steps(options: argparse.Namespace, work: Path) -> Iterator[Row]:
    for size in options.size:
        stage = Stage(options, work)
        for lengths, completions in (("hh", 2), ("long", 2), ("hh", 4), ("long", 4)):
            spec = spec_of(options, size) | {"lengths": lengths, "completions": completions}
            case = f"{size} B, {lengths}, K={completions}"
            ours = stage.measure("ours", **spec)
            yield Row("step", case, "ours", step_figures(ours))
            for name, more in trl_sides():
                theirs = more if isinstance(more, str) else stage.measure("trl", **spec, **more)
                yield Row("step", case, name, step_figures(theirs, ours))


def spec_of(options: argparse.Namespace, size: str) -> Spec:
    """Return the specification of a size: pairs or prompts a step, and steps."""
    few = {"prompts": 2, "steps": 3} if options.toy else {"prompts": 32, "steps": 6}
    return {"size": size, "precision": "bf16", **few}


def trl_sides() -> list[tuple[str, Spec | str]]:
    """Return TRL's sides: what is added to a specification, or why it cannot run."""
    trl: Spec | str = {} if find_spec("trl") else "not installed"
    liger: Spec | str = {"liger": True} if find_spec("liger_kernel") else "not installed"
    return [("TRL", trl), ("TRL, Liger", trl if isinstance(trl, str) else liger)]


def step_figures(found: Spec | str, ours: Spec | str | None = None) -> str:
    """Return the figures of a side; for TRL's with its time over ours, and the gap of losses.

    They are those after the first two steps, in which kernels are compiled.
    """
    if isinstance(found, str):
        return found
    seconds = sum(found["seconds"][2:])
    said = f"{seconds / len(found['seconds'][2:]):.3f} s a step, peak {found['peak_gb']:.1f} GB"
    whole = found if ours is None else ours
    if isinstance(whole, str):
        return said
    said = f"{sum(whole['tokens_a_step'][2:]) / seconds:,.0f} tokens/s, {said}"
    if ours is None:
        notices = [line for line in found["notices"] if " GB" not in line]
        return "; ".join([f"{said}, MFU {found['mfu']:.1%}", *notices])
    times = seconds / sum(whole["seconds"][2:])
    gap = max(abs(a - b) for a, b in zip(whole["losses"], found["losses"], strict=True))
    said += f", {found['micro_batch']} pairs a pass"
    return f"{said}, {times:.2f} × our time, losses within {gap:.1e}"


def run_reference(options: argparse.Namespace, work: Path) -> Iterator[Row]:
    stage = Stage(options, work)
    for size in options.size:
        spec = spec_of(options, size) | {"completions": 2, "only_reference": True}
        for lengths in ("hh", "long"):
            sides: list[tuple[str, Spec | str]] = [("ours", {}), trl_sides()[0]]
            for name, more in sides:
                side = "ours" if name == "ours" else "trl"
                found = (
                    more if isinstance(more, str) else stage.measure(side, **spec, lengths=lengths)
                )
                if not isinstance(found, str):
                    rate, peak = found["reference_tokens_per_s"], found["peak_gb"]
                    found = f"{rate:,.0f} tokens/s, peak {peak:.1f} GB"
                yield Row("reference", f"{size} B, {lengths}", name, found)


def run_attention(options: argparse.Namespace, work: Path) -> Iterator[Row]:
    stage = Stage(options, work)
    for tokens in (300, 1000) if options.toy else (8192, 32768):
        for window in (None, 64 if options.toy else 1024):
            case = f"{tokens:,} tokens" + (f", window {window}" if window else "")
            for precision in ("no",) if options.device == "cpu" else ("bf16", "no"):
                spec = {"tokens": tokens, "window": window, "precision": precision}
                found = stage.measure("attention", **spec)
                if not isinstance(found, str):
                    found = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
                yield Row("attention", case, "float32" if precision == "no" else precision, found)


def run_plan(options: argparse.Namespace, work: Path) -> Iterator[Row]:
    """Yield the peak of a short run, and what it said about memory before it loaded the model."""
    stage = Stage(options, work)
    for size in options.size:
        spec = spec_of(options, size) | {"lengths": "hh", "completions": 2, "steps": 2}
        found = stage.measure("ours", **spec)
        if not isinstance(found, str):
            said = [line for line in found["notices"] if " GB" in line]
            plan = "; ".join(said) or "dpo-train prints no plan of its memory"
            found = f"peak {found['peak_gb']:.2f} GB; {plan}"
        yield Row("plan", f"{size} B, hh, K=2", "ours", found)


STAGES = {
    "tests": run_tests, "parity": run_parity, "step": run_steps, "reference": run_reference,
    "attention": run_attention, "plan": run_plan,
}  # fmt: skip

if __name__ == "__main__":
    main()
