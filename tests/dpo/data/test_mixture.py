"""A mixture in training: a pair with several rows counts that often, and is computed once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import dpo
import prefdata
from dpo.config import TrainConfig
from dpo.data.sampler import make_order, packs_in_order
from dpo.loss import LOSSES
from dpo.reference_pass import compute_reference
from dpo.training.step import backward_pass, packs_of
from tests.dpo.conftest import Arena, open_alone, write_pairs
from tests.dpo.training.test_gradients import gradients, move

ConfigOf = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def mixed(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build three sources with the weights 0.5, 1 and 2.5, and two splits to evaluate on."""
    folder = tmp_path_factory.mktemp("mixed")
    sources = []
    for name, first, weight in (("a", 0, 0.5), ("b", 10, 1.0), ("c", 20, 2.5)):
        lines = write_pairs(folder / "all.jsonl", 40).read_text().splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[first : first + 10]))
        sources.append({"path": str(folder / f"{name}.jsonl"), "name": name, "weight": weight})
    (folder / "held.jsonl").write_text("".join(lines[30:35]))
    (folder / "hard.jsonl").write_text("".join(lines[35:]))
    held = [{"path": str(folder / f"{name}.jsonl"), "split": split}
            for name, split in (("held", "test"), ("hard", "hard"))]  # fmt: skip
    prefdata.build(
        [*sources, *held], tokenizer=str(arena.model), out=folder / "build", shard_rows=12,
        severity={"PD402": "off"}, leaks="report",
    )  # fmt: skip
    compute_reference(folder / "build", model=str(arena.model))
    return folder / "build"


def test_a_row_of_a_pair_is_a_position_of_the_epoch(config_of: ConfigOf, mixed: Path) -> None:
    run = open_alone(config_of(data=str(mixed), steps=None, epochs=1, global_batch_size=10))
    drawn = [row for step in range(1, 5) for row in run.order.rows(step)]
    source = prefdata.open(mixed).text("train")["source"].to_pylist()

    assert run.total_steps == 4
    assert sorted(drawn) == list(range(40))
    assert Counter(source[row] for row in drawn) == {"a.jsonl": 5, "b.jsonl": 10, "c.jsonl": 25}


def test_copies_are_groups_of_their_own_and_share_the_prompt(
    config_of: ConfigOf, mixed: Path
) -> None:
    """So a group never has a pair twice, and a source keeps its weight in averages of groups."""
    config = config_of(data=str(mixed), batch_unit="groups", average_over="groups", steps=1)
    pairs = open_alone(config).train.pairs
    prompts, groups = list(pairs.each_prompt()), list(pairs.each_group())
    for rows in groups:
        ids = [pairs.pair_id(row) for row in rows]
        assert len(set(ids)) == len(ids)
        assert any(rows.start >= whole.start and rows.stop <= whole.stop for whole in prompts)
    assert len(groups) > len(prompts)
    order = make_order(pairs, config)
    assert list(order.units) == groups
    assert order.shares is not None
    assert np.asarray(order.shares).sum() == pytest.approx(len(order))


def test_each_pair_is_computed_once_and_its_rows_are_equal(mixed: Path) -> None:
    build = prefdata.open(mixed)
    reference = dpo.data.reference_store.open_reference(build, "default")
    by_pair: dict[bytes, set[tuple[float, float]]] = {}
    for table in reference.tables("train"):
        for row in table.to_pylist():
            sums = (row["ref_chosen_logps"], row["ref_rejected_logps"])
            by_pair.setdefault(row["pair_id"], set()).add(sums)

    assert len(by_pair) == build.splits["train"].rows - 15 == 25
    assert all(len(found) == 1 for found in by_pair.values())
    pairs = dpo.data.pairs.Pairs(build.shards("train"))
    packed = [pack for ranks in packs_in_order(pairs, len(pairs), budget=4096)
              for packs in ranks for pack in packs]  # fmt: skip
    run = sum(pairs.num_tokens(rows) for rows in packed)
    first = [int(np.flatnonzero([pairs.pair_id(r) == i for r in range(len(pairs))])[0])
             for i in dict.fromkeys(pairs.pair_id(r) for r in range(len(pairs)))]  # fmt: skip
    assert run == pairs.num_tokens(first), "copies cost no token"


def test_the_gradient_counts_each_pair_as_often_as_it_has_rows(
    config_of: ConfigOf, mixed: Path
) -> None:
    run = move(open_alone(config_of(data=str(mixed), global_batch_size=40, pack_tokens=300)))
    pairs = run.train.pairs
    copies = Counter(pairs.pair_id(row) for row in range(len(pairs)))
    first = {pairs.pair_id(row): row for row in reversed(range(len(pairs)))}
    losses = []
    for one, row in first.items():
        batch = run.train.batch([row], run.accelerator.device)
        loss = LOSSES["dpo"](run.train.pair_logps(batch, run.policy(batch.pack)))
        losses.append(loss.sum() * copies[one])
    (torch.stack(losses).sum() / 40).backward()
    wanted = gradients(run)

    backward_pass(run, packs_of(run, 1), 1)

    for key, gradient in gradients(run).items():
        assert (gradient - wanted[key]).norm() <= 1e-4 * wanted[key].norm(), key


def test_a_mixture_is_trained_and_evaluated_by_split(config_of: ConfigOf, mixed: Path) -> None:
    seen: dict[str, float] = {}
    done = dpo.train(
        config_of(data=str(mixed), eval_every=2, eval_splits=["hard"], steps=4),
        report=lambda _step, _total, metrics: seen.update(metrics),
    )

    assert done.steps == 4
    names = {name for name in seen if name.endswith("loss")}
    assert {"loss", "eval/loss", "eval/hard/loss"} <= names, sorted(seen)
