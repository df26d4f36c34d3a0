"""Checks before step 1 under bf16: the right reference is accepted, every wrong one refused.

    python bench/first_loss.py --model .models/SmolLM2-135M-Instruct --data hh.jsonl.gz

Builds the first pairs of a file that fit in `--max-length`, computes reference log-probs under the
model, the same with other CPU instructions (as on another machine, for rounding), under the model
with every weight changed by 1 %, and under the model after a few steps of DPO. Sets the
fingerprints of all to the model's. Then runs the spot check against each, and the check of the
first step for `--seeds` orders of the pairs, through the same functions as `dpo-train`. Prints the
refusals.
"""

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import AutoTokenizer

import prefdata
from dpo.config import ReferenceConfig, TrainConfig
from dpo.config_file import parse_config
from dpo.data.reference_store import open_reference, read_manifest
from dpo.data.sampler import make_order
from dpo.errors import MismatchError
from dpo.loss import PairLogps
from dpo.model.load import load_model
from dpo.model.spot_check import Spread, check_first_margins
from dpo.reference_pass import compute_reference
from dpo.training.metrics import by_name, means, pair_sums
from dpo.training.setup import TrainContext, open_run
from dpo.training.step import forward_logps, packs_of
from prefdata.config import BuildConfig

MOVED = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="a preference file that prefdata reads")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--pairs", type=int, default=256, help="lines of the file")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8, help="pairs per step")
    parser.add_argument(
        "--isa", default="AVX2", help="ONEDNN_MAX_CPU_ISA of the other machine; empty: skip it"
    )
    parser.add_argument("--steps", type=int, default=3, help="DPO steps for the other checkpoint")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    data = build(folder, options)
    compute_reference(data, model=options.model, mixed_precision="bf16")
    if options.isa:
        other = ["dpo-ref", str(data), "--model", options.model, "--name", "other"]
        isa = os.environ | {"ONEDNN_MAX_CPU_ISA": options.isa}
        subprocess.run([*other, "--mixed-precision", "bf16"], env=isa, check=True)
    config = config_of(folder, data, options, precision="bf16")
    run = open_run(config, Accelerator(cpu=True, mixed_precision="bf16"))
    print(f"{len(run.train.pairs):,} pairs; spot check's spread: {run.spread}", flush=True)
    show("the model's own", run, run.spread, options)
    if options.isa:
        judge("another machine's", "other", run, options)
    for label, make in WRONG.items():
        model = make(folder, data, options)
        name = f"wrong-{model.name}"
        compute_reference(data, model=str(model), name=name, mixed_precision="bf16")
        agree(data / "reference" / name, data / "reference/default")
        judge(label, name, run, options)


def judge(label: str, name: str, run: TrainContext, options: argparse.Namespace) -> None:
    """Open a run with a reference as `dpo-train` does, and check each seed's first step with it."""
    reference, spread = open_reference(run.build, name), run.spread
    other = {"reference": ReferenceConfig(name=name), "out": run.config.out.with_name(name)}
    config = run.config.model_copy(update=other)
    try:
        spread = open_run(config, Accelerator(cpu=True, mixed_precision="bf16")).spread
        print(f"{label}: TAKEN before step 1, {spread}", flush=True)
    except MismatchError as error:
        print(f"{label}: refused before step 1, for every seed: {error}", flush=True)
    show(f"{label}, only the first step", open_run_sums(run, reference), spread, options)


def show(label: str, run: TrainContext, spread: Spread | None, options: argparse.Namespace) -> None:
    """Check the first step of every seed, and print the refusals."""
    assert spread is not None, "these runs have a reference"
    refused, margins = 0, []
    for seed in range(options.seeds):
        config = run.config.model_copy(update={"seed": seed})
        of_seed = replace(run, config=config, order=make_order(run.train.pairs, config))
        rows = of_seed.order.rows(1)
        whole = first_step(of_seed, rows)
        losses = run.objective(whole)
        found = means(by_name(pair_sums(losses, whole, beta=run.objective.beta)))
        margins.append(float(whole.margins.mean()))
        tokens = run.train.pairs.lengths[rows][:, 1:].sum(1).tolist()
        try:
            check_first_margins(found, spread, tokens, draws=lambda: False)
        except MismatchError as error:
            refused += 1
            last = str(error)
        print(
            f"  seed {seed}: loss {float(losses.mean()):.5f} margin {margins[-1]:+.3f}", flush=True
        )
    off = sum(abs(0.1 / 2 * margin) > 5e-3 for margin in margins)
    print(f"{label}: {refused} of {options.seeds} first steps refused; a fixed bound of 0.005 would"
          f" have refused {off}", flush=True)  # fmt: skip
    if refused:
        print(f"  {last}")


LOGPS: dict[tuple[int, ...], PairLogps] = {}
"""Log-probs of each first step that ran; they do not depend on the reference."""


def first_step(run: TrainContext, rows: list[int]) -> PairLogps:
    """Return the policy's log-probs of step 1, as in training, with the stored reference's."""
    key = tuple(rows)
    if key not in LOGPS:
        LOGPS[key] = forward_logps(run, run.train, packs_of(run, 1), rows)[0]
    ref = torch.from_numpy(run.train.ref_logps[rows]).double()
    return LOGPS[key]._replace(ref_chosen=ref[:, 0], ref_rejected=ref[:, 1])


def build(folder: Path, options: argparse.Namespace) -> Path:
    import gzip

    opened = gzip.open if options.data.endswith(".gz") else open
    with opened(options.data, "rt") as file:
        lines = [line for line, _ in zip(file, range(options.pairs), strict=False)]
    (folder / "pairs.jsonl").write_text("".join(lines))
    config = BuildConfig(
        inputs=[str(folder / "pairs.jsonl")], tokenizer=options.model, out=folder / "data",
        max_length=options.max_length, length_policy="reject", test_fraction=0.0,
    )  # fmt: skip
    return prefdata.build(config).path


def config_of(
    folder: Path, data: Path, options: argparse.Namespace, *, precision: str
) -> TrainConfig:
    value = {
        "model": options.model, "data": str(data), "out": str(folder / "run"), "eval_split": None,
        "global_batch_size": options.batch, "steps": options.steps, "mixed_precision": precision,
        "optimizer": {"learning_rate": 1e-5},
    }  # fmt: skip
    return parse_config(value, place="bench")


def moved(folder: Path, _data: Path, options: argparse.Namespace) -> Path:
    """Save the model with every weight multiplied by 1 + 0.01 × a normal draw."""
    model, generator = load_model(options.model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + MOVED * torch.randn(weight.shape, generator=generator))
    return save(folder / "moved", model, options)


def trained(folder: Path, data: Path, options: argparse.Namespace) -> Path:
    """Train the model for a few steps of DPO, in float32, which is faster on a CPU."""
    compute_reference(data, model=options.model, name="exact")
    config = config_of(folder, data, options, precision="no")
    config = config.model_copy(update={"reference": ReferenceConfig(name="exact")})
    path = folder / "exact.yaml"
    path.write_text(config.model_dump_json(exclude_unset=True))  # JSON is YAML
    subprocess.run(["dpo-train", str(path)], check=True)  # one precision per process
    return folder / "run/model"


def save(path: Path, model: torch.nn.Module, options: argparse.Namespace) -> Path:
    model.save_pretrained(path)  # type: ignore[operator]
    AutoTokenizer.from_pretrained(options.model).save_pretrained(path)
    return path


WRONG: dict[str, Callable[[Path, Path, argparse.Namespace], Path]] = {
    "weights moved by 1 %": moved,
    "another checkpoint": trained,
}


def agree(wrong: Path, right: Path) -> None:
    """Set the weights' fingerprint of a reference to another one's."""
    path = wrong / "manifest.json"
    weights = read_manifest(right / "manifest.json").weights_sha256
    changed = read_manifest(path).model_copy(update={"weights_sha256": weights, "hash": ""})
    path.write_bytes(changed.model_copy(update={"hash": changed.own_hash()}).to_bytes())


def open_run_sums(run: TrainContext, reference: object) -> TrainContext:
    """Return the run with the sums of another reference."""
    import numpy as np

    tables = reference.tables("train")  # type: ignore[attr-defined]
    names = ("ref_chosen_logps", "ref_rejected_logps")
    sums = [np.stack([table[name].to_numpy() for name in names], 1) for table in tables]
    return replace(run, train=run.train._replace(ref_logps=np.concatenate(sums)))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
