"""Under bf16, a correct reference passes for every seed; a wrong one is refused by its numbers."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from dpo.config_file import parse_config
from dpo.data.pairs import Pairs
from dpo.data.reference_store import Reference, open_reference, read_manifest
from dpo.data.sampler import make_order
from dpo.errors import MismatchError
from dpo.model.load import load_model
from dpo.model.spot_check import Spread, check_first_margins, spot_check
from dpo.reference_pass import compute_reference
from dpo.training.distributed import make_accelerator
from dpo.training.setup import TrainContext, open_run
from dpo.training.step import train_step
from prefdata.store.commit import seal_file
from prefdata.store.shards import REFERENCE, write_shard
from prefdata.store.verify import SealsOnce
from tests.dpo.conftest import Arena, build_pairs, save_gpt2

Sides = list[np.ndarray]
Change = Callable[[Sides, Sides], tuple[Sides, Sides]]


class Ready(NamedTuple):
    """Model, build with its reference in bf16, and a run on both that passed its checks."""

    model: Path
    data: Path
    run: TrainContext


@pytest.fixture(scope="module")
def ready(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    folder = tmp_path_factory.mktemp("bf16")
    data = build_pairs(folder / "data", tokenizer=arena.model, count=48, test_fraction=0.0)
    compute_reference(data, model=str(arena.model), mixed_precision="bf16")
    value = {
        "model": str(arena.model), "data": str(data), "out": str(folder / "run"), "steps": 1,
        "global_batch_size": 8, "mixed_precision": "bf16", "eval_split": None,
    }  # fmt: skip
    config = parse_config(value, place="test")
    return Ready(arena.model, data, open_run(config, make_accelerator(config)))


def sealed(folder: Path, weights: str) -> Reference:
    """Set the seals of a reference's files, and the fingerprint of the run's weights."""
    manifest = read_manifest(folder / "manifest.json")
    shards = [s.model_copy(update=seal_file(folder / s.path)._asdict()) for s in manifest.shards]
    agreed = manifest.model_copy(update={"weights_sha256": weights}).with_shards(shards)
    (folder / "manifest.json").write_bytes(agreed.to_bytes())
    return Reference(folder, agreed, SealsOnce())


def spoiled(folder: Path, change: Change) -> None:
    """Change the token log-probs of every row, and the sums with them."""
    manifest = read_manifest(folder / "manifest.json")
    for seal in manifest.shards:
        table = pa.ipc.open_file((folder / seal.path).read_bytes()).read_all()
        lists = [[np.array(row) for row in table[name].to_pylist()] for name in REFERENCE.names[3:]]
        sides = [[row.astype(np.float32) for row in side] for side in change(*lists)]
        sums = [np.array([row.sum() for row in side], np.float32) for side in sides]
        sums = [np.nan_to_num(side) for side in sums]  # those that are not finite are T211
        columns = [table["pair_id"].combine_chunks(), *sums, *(map(list, side) for side in sides)]
        arrays = [pa.array(c, REFERENCE.field(n).type) if n else c for n, c in enumerate(columns)]
        write_shard(folder / seal.path, pa.table(arrays, schema=REFERENCE))


def other_weights(change: Callable[[torch.nn.Module], None]) -> Callable[[Ready, Path], None]:
    """Return a maker of a reference of the model with changed weights."""

    def make(ready: Ready, folder: Path) -> None:
        model, path = load_model(str(ready.model)), folder.with_name(f"{folder.name}-model")
        with torch.no_grad():
            change(model)
        model.save_pretrained(path)
        AutoTokenizer.from_pretrained(ready.model).save_pretrained(path)
        compute_reference(ready.data, model=str(path), name=folder, mixed_precision="bf16")

    return make


def other_numbers(change: Change) -> Callable[[Ready, Path], None]:
    def make(ready: Ready, folder: Path) -> None:
        shutil.copytree(ready.data / "reference/default", folder)
        spoiled(folder, change)

    return make


def moved(share: float, seed: int) -> Callable[[torch.nn.Module], None]:
    """Multiply every weight by 1 + `share` of a normal draw."""

    def change(model: torch.nn.Module) -> None:
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            weight.mul_(1 + share * torch.randn(weight.shape, generator=generator))

    return change


def each(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda chosen, rejected: ([*map(change, chosen)], [*map(change, rejected)])


def resized(rows: Sides, like: Sides) -> Sides:
    return [np.resize(row, len(of)) for row, of in zip(rows, like, strict=True)]


WRONG: dict[str, Callable[[Ready, Path], None]] = {
    **{f"weights moved by 1 %, seed {n}": other_weights(moved(0.01, n)) for n in range(3)},
    "weights moved by 3 %": other_weights(moved(0.03, 0)),
    "another checkpoint": lambda ready, folder: (
        compute_reference(
            ready.data,
            model=str(save_gpt2(folder.with_name("other"), seed=3)),
            name=folder,
            mixed_precision="bf16",
        )
        and None
    ),
    "a layer left out": other_weights(lambda m: m.transformer.h[1].mlp.c_proj.weight.zero_()),
    "a sharper head": other_weights(lambda m: m.transformer.ln_f.weight.mul_(1.05)),
    "sides swapped": other_numbers(lambda c, r: (resized(r, c), resized(c, r))),
    "rows of another order": other_numbers(
        lambda c, r: (resized([*c[1:], c[0]], c), resized([*r[1:], r[0]], r))
    ),
    "tokens of another order": other_numbers(each(lambda row: row[::-1])),
    "all a little lower": other_numbers(each(lambda row: row - 0.05)),
    "scaled": other_numbers(each(lambda row: row * 0.95)),
    "shifted by one token": other_numbers(each(lambda row: np.roll(row, 1))),
    "one side only": other_numbers(lambda c, r: ([row + 0.1 for row in c], r)),
    "margins a nat too high": other_numbers(lambda c, r: ([row + 1 / len(row) for row in c], r)),
    "not a number": other_numbers(each(lambda row: row * np.nan)),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_a_wrong_reference_is_refused_by_its_numbers(
    make: Callable[[Ready, Path], None], ready: Ready, tmp_path: Path
) -> None:
    """Make fingerprints agree, so that only the numbers can differ."""
    make(ready, tmp_path / "wrong")
    weights = read_manifest(ready.data / "reference/default/manifest.json").weights_sha256
    reference = sealed(tmp_path / "wrong", weights)

    with pytest.raises(MismatchError) as caught:
        spot_check(ready.run.policy, ready.run.train.pairs, reference, "train")

    assert caught.value.code == "T209"
    assert "another --name" in caught.value.remedy
    assert "rounding" in caught.value.problem


def test_the_first_step_of_forty_seeds_is_accepted(ready: Ready) -> None:
    refused = []
    for seed in range(40):
        config = ready.run.config.model_copy(update={"seed": seed})
        run = replace(ready.run, config=config, order=make_order(ready.run.train.pairs, config))
        run.optimizer.param_groups[0]["lr"] = 0.0
        try:
            train_step(frozen(run), 1)
        except MismatchError as error:
            refused.append(str(error))

    assert refused == []


def frozen(run: TrainContext) -> TrainContext:
    """Return the run with a learning rate near 0, so that all seeds start from equal weights."""
    optimizer = run.config.optimizer.model_copy(update={"learning_rate": 1e-30})
    return replace(run, config=run.config.model_copy(update={"optimizer": optimizer}))


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # from switching oneDNN off
@pytest.mark.parametrize("threads", [1, 2])
def test_another_machine_s_rounding_is_accepted(threads: int, ready: Ready, tmp_path: Path) -> None:
    """Run products without oneDNN, which sums in another order, as another processor does."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=False):
            compute_reference(
                ready.data, model=str(ready.model), name=tmp_path / "other", pack_tokens=300,
                mixed_precision="bf16",
            )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    build = ready.run.build

    found = spot_check(
        ready.run.policy, ready.run.train.pairs, open_reference(build, tmp_path / "other"), "train"
    )

    assert np.isfinite(found.means).all()


@pytest.mark.parametrize("side", [0, 1])
def test_a_policy_that_is_not_the_loaded_one_is_refused_at_step_1(side: int, ready: Ready) -> None:
    """Check that the error says that the stored log-probs are correct: the spot check passed."""
    moved_logps = np.array(ready.run.train.ref_logps)
    moved_logps[:, side] += 3.0
    run = replace(ready.run, train=ready.run.train._replace(ref_logps=moved_logps))

    with pytest.raises(MismatchError) as caught:
        train_step(frozen(run), 1)
    run.optimizer.zero_grad(set_to_none=True)

    assert caught.value.code == "T210"
    assert "agree with the model" in caught.value.remedy
    assert "8 pairs" in caught.value.problem


@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("noise", ["normal", "heavy"])
def test_steps_with_the_noise_of_the_rows_are_accepted(noise: str, batch: int) -> None:
    """Draw noise as measured on a Xeon with AMX, 0.35 nats per pair: no small step may fail.

    2,000 runs; heavy tails are Student's of 3 degrees, which no rounding reaches.
    """
    draws = np.random.default_rng(0)

    def pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = draws.integers(20, 400, count)
        one = draws.normal(size=(count, 2)) if noise == "normal" else draws.standard_t(
            3, size=(count, 2)
        )  # fmt: skip
        return tokens, 0.02 * one * np.sqrt(tokens)[:, None]

    refused = 0
    for _ in range(2_000):
        spread = spread_of(*pairs(32))
        tokens, gaps = pairs(batch)
        chosen, rejected = gaps.mean(0)
        found = {"logratios/chosen": chosen, "logratios/rejected": rejected}
        try:
            check_first_margins(found, spread, tokens.tolist(), draws=lambda: False)
        except MismatchError:
            refused += 1

    assert refused <= (0 if noise == "normal" else 20)


def spread_of(tokens: np.ndarray, gaps: np.ndarray) -> Spread:
    three = np.column_stack([gaps, gaps[:, 0] - gaps[:, 1]])
    deviation = np.sqrt(((three - three.mean(0)) ** 2 / tokens[:, None]).sum(0) / (len(gaps) - 1))
    return Spread(three.mean(0), deviation, len(gaps))


def test_rows_of_the_check_are_those_of_the_split(ready: Ready) -> None:
    pairs: Pairs = ready.run.train.pairs
    assert ready.run.spread.pairs == 32
    assert len(pairs) > 32
