"""Shards open when rows of them are needed, and each is hashed whole before a row of it is used."""

import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from dpo.config import TrainConfig
from dpo.data.groups import Groups, find_group
from dpo.data.lengths import Wanted, costliest, of_longest, of_pair, of_rank
from dpo.data.pairs import Pairs
from dpo.data.sampler import make_order, packs_in_order
from dpo.data.shards import TableShard
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from dpo.training.memory_check import check_memory
from prefdata.errors import PrefdataError
from prefdata.store.commit import seal_file
from prefdata.store.manifest import ShardSeal, read_manifest
from prefdata.store.reader import Build, Shard, open_build, open_lazily
from prefdata.store.shards import TOKENS, write_shard
from tests.dpo.conftest import Arena, build_pairs, open_alone
from tests.dpo.training.test_loop import lines

ConfigOf = Callable[..., TrainConfig]
HASHED: list[Path] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and str(arguments[0]).endswith(".arrow"):
        HASHED.append(Path(str(arguments[0])))


sys.addaudithook(_hear)  # Python opens a shard only to hash it: pyarrow maps it


@pytest.fixture
def hashed() -> list[Path]:
    """Return a list that grows with each shard that Python opens; clear it after writing a set."""
    return HASHED


def mapped(folder: Path) -> set[str] | None:
    """Return the names of the shards that the kernel says are mapped; None if it does not say."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    found = maps.read_text().split()
    return {Path(name).name for name in found if name.startswith(str(folder))}


def table(rows: int, draws: np.random.Generator, *, masks: bool = True) -> pa.Table:
    """Return random rows of prompts with one to three pairs each, in the columns of a shard."""
    prompts = np.sort(draws.integers(0, max(1, rows // 2), rows))
    names = draws.integers(0, 2**63, (rows, 2))

    def lists(values: pa.Array, lengths: np.ndarray, kind: pa.DataType) -> pa.Array:
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, values, type=kind)

    columns: dict[str, pa.Array] = {
        column: pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), rows, [None, pa.py_buffer(ids.tobytes())]
        )
        for column, ids in (("pair_id", names), ("group_id", names[prompts]))
    }
    for name in ("prompt", "chosen", "rejected"):
        lengths = draws.integers(1, 9, rows)
        ids = pa.array(draws.integers(0, 300, lengths.sum()), pa.int32())
        columns[f"{name}_ids"] = lists(ids, lengths, TOKENS.field(f"{name}_ids").type)
        if name != "prompt":
            kind = TOKENS.field(f"{name}_mask").type
            flags = pa.array(draws.integers(0, 2, lengths.sum()).astype(bool))
            mask = lists(flags, lengths, kind)
            keeps = pa.array(draws.integers(0, 2, rows).astype(bool) & masks)
            columns[f"{name}_mask"] = pa.compute.if_else(keeps, mask, pa.nulls(rows, kind))
    margins = draws.normal(size=rows).astype(np.float32)
    columns["weight"] = pa.array(draws.random(rows).astype(np.float32))
    columns["margin"] = pa.array(margins, pa.float32(), mask=draws.random(rows) < 0.3)
    columns |= {f"{side}_rank": pa.nulls(rows, pa.int16()) for side in ("chosen", "rejected")}
    return pa.table([columns[name] for name in TOKENS.names], schema=TOKENS)


@pytest.fixture
def write_set(arena: Arena, tmp_path: Path) -> Callable[[list[int]], Path]:
    """Return a function that writes a set with shards of these numbers of rows."""

    def write(sizes: list[int]) -> Path:
        out, draws, seals = tmp_path / f"set-{len(sizes)}", np.random.default_rng(0), []
        (out / "tokens").mkdir(parents=True)
        for number, rows in enumerate(sizes):
            name = f"tokens/train-{number:05d}-of-{len(sizes):05d}.arrow"
            write_shard(out / name, table(rows, draws))
            digest = seal_file(out / name)._asdict()
            seals.append(ShardSeal(path=name, split="train", rows=rows, tokens=0, **digest))
        manifest = read_manifest(arena.data)
        splits = {"train": manifest.splits["train"].model_copy(update={"rows": sum(sizes)})}
        made = manifest.model_copy(update={"shards": seals, "splits": splits})
        (out / "manifest.json").write_bytes(made.sealed().to_bytes())
        return out

    return write


def damage(path: Path, at: int = -200) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_rows_are_those_of_all_tables_together(write_set: Callable[[list[int]], Path]) -> None:
    build = open_build(write_set([7, 1, 30, 12]))
    pairs, whole = Pairs(build.shards("train")), build.tokens("train").to_pylist()
    draws = np.random.default_rng(1)

    for row, wanted in enumerate(whole):
        prompt, (chosen, rejected), masks = pairs[row]
        found = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        assert {name: ids.tolist() for name, ids in found.items()} == {n: wanted[n] for n in found}
        kept = [None if mask is None else mask.tolist() for mask in masks]
        assert kept == [wanted["chosen_mask"], wanted["rejected_mask"]]
        assert pairs.pair_id(row) == wanted["pair_id"].hex()
    rows = draws.integers(0, len(whole), 40)
    for name, column in (("weight", pairs.weights), ("margin", pairs.margins)):
        wanted = np.array([whole[row][name] for row in rows], np.float32)
        assert np.array_equal(column[rows], wanted, equal_nan=True)
    parts = ("prompt_ids", "chosen_ids", "rejected_ids")
    assert pairs.lengths[rows].tolist() == [[len(whole[r][p]) for p in parts] for r in rows]
    assert pairs.num_without_margin() == sum(row["margin"] is None for row in whole)
    assert pairs.largest_id() == max(max(max(row[part]) for part in parts) for row in whole)
    assert pairs.weights[[]].shape == (0,)
    assert pairs.lengths[[]].shape == (0, 3)


def test_rows_of_a_length_are_those_of_a_sorted_list(
    write_set: Callable[[list[int]], Path],
) -> None:
    pairs = Pairs(open_build(write_set([40, 3, 60])).shards("train"))
    for measure, counts in ((of_pair, pairs.counts.pairs), (of_longest, pairs.counts.longest)):
        sizes = measure(np.asarray(pairs.lengths))
        assert counts.tolist() == np.bincount(sizes).tolist()
        wanted = [of_rank(counts, rank) for rank in range(len(sizes))]
        assert pairs.find(measure, wanted) == np.argsort(sizes, kind="stable").tolist()
    assert pairs.largest_size == sizes_of(pairs).max()


def sizes_of(pairs: Pairs) -> np.ndarray:
    return np.asarray(pairs.lengths).sum(1)


def pick_largest(sizes: np.ndarray, budget: int, most: int) -> list[int]:
    """Return the longest, then the longest other that fits, by a sorted list of all rows."""
    left, found = np.argsort(sizes, kind="stable").tolist(), []
    room = budget
    while left and len(found) < most:
        fitting = [at for at, row in enumerate(left) if not found or sizes[row] <= room]
        if not fitting:
            break
        row = left[fitting[-1]]
        del left[fitting[-1] :]
        found.append(row)
        room -= int(sizes[row])
    return found


def test_the_largest_pack_is_that_of_a_sorted_list() -> None:
    draws = np.random.default_rng(0)
    for _ in range(300):
        sizes = draws.integers(1, 9, draws.integers(1, 30))
        budget, most = int(draws.integers(1, 60)), int(draws.integers(1, 9))
        found = costliest(np.bincount(sizes), budget=budget, most=most)
        rows = [int(np.flatnonzero(sizes == one.length)[one.place]) for one in found]
        assert rows == pick_largest(sizes, budget, most)


def prompts_with_copies(draws: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids of prompts and pairs of groups: copies of a prompt's pairs, the last one cut."""
    for _ in range(draws.integers(0, 6)):
        prompt = draws.integers(0, 2**60, (1, 2))
        pairs = draws.integers(0, 2**60, (draws.integers(1, 5), 2))
        for is_last in [*[False] * draws.integers(0, 3), True]:
            some = pairs[: draws.integers(1, len(pairs) + 1)] if is_last else pairs
            yield prompt.repeat(len(some), 0), some


def test_groups_are_found_by_number_and_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpo.data.groups.BLOCK", 4)
    draws = np.random.default_rng(0)
    for _ in range(60):
        shards, wanted, start = [], [], 0
        for _ in range(draws.integers(1, 4)):
            ids = [np.zeros((0, 2), np.int64)], [np.zeros((0, 2), np.int64)]
            for prompt, pairs in prompts_with_copies(draws):
                ids[0].append(prompt)
                ids[1].append(pairs)
                wanted.append(range(start, start + len(pairs)))
                start += len(pairs)
            group_ids, pair_ids = (np.concatenate(some).astype(np.uint64) for some in ids)
            shards.append(SimpleNamespace(group_ids=group_ids, pair_ids=pair_ids))
        starts = np.cumsum([0, *(len(shard.group_ids) for shard in shards)])
        split = SimpleNamespace(
            starts=starts, open=shards.__getitem__, scan=lambda count, of=shards: map(count, of)
        )

        assert list(Groups(split)) == wanted
        for first, shard in zip(starts, shards, strict=False):
            for place in range(len(shard.group_ids)):
                rows = find_group(shard, place)
                assert range(first + rows.start, first + rows.stop) in wanted


def test_windows_of_prompts_do_not_depend_on_where_they_begin(
    write_set: Callable[[list[int]], Path],
) -> None:
    pairs = Pairs(open_build(write_set([40, 3, 60])).shards("train"))
    prompts = list(pairs.each_prompt())
    assert [row for rows in prompts for row in rows] == list(range(103))
    for first in (0, prompts[5].start, prompts[-1].start):
        windows = packs_in_order(pairs, 103, budget=50, first=first)
        packed = sorted(row for (packs,) in windows for some in packs for row in some)
        assert packed == list(range(first, 103))


def test_a_set_opens_no_shard_and_a_step_only_its_own(
    write_set: Callable[[list[int]], Path], config_of: ConfigOf, hashed: list[Path]
) -> None:
    folder = write_set([5] * 60)
    hashed.clear()

    pairs = Pairs(open_lazily(folder).shards("train"))
    order = make_order(pairs, config_of(global_batch_size=4))
    assert pairs.counts.pairs.sum() == len(order) == 300
    pairs.find(of_pair, [Wanted(pairs.largest_size, 0)])
    assert not hashed
    assert not mapped(folder)

    rows = order.rows(1)
    tokens = [pairs[row].num_tokens for row in rows]
    wanted = {f"train-{row // 5:05d}-of-00060.arrow" for row in rows}
    assert tokens == pairs.sizes[rows].tolist()
    assert sorted(path.name for path in hashed) == sorted(wanted), "each once"
    assert mapped(folder) in (wanted, None)
    pairs.shards.check(range(300))
    assert len(hashed) == 60


def test_a_changed_file_is_hashed_again(
    write_set: Callable[[list[int]], Path], hashed: list[Path]
) -> None:
    (shard,) = open_lazily(write_set([5])).shards("train")
    hashed.clear()
    shard.read()
    shard.read()
    assert len(hashed) == 1
    damage(shard.path)
    with pytest.raises(PrefdataError, match="E136"):
        shard.read()


def code_of(work: Callable[[], object]) -> str | None:
    try:
        work()
    except PrefdataError as error:
        return error.code
    return None


@pytest.mark.parametrize("at", [0, 12, 700, -200, -10])
def test_counts_of_a_damaged_shard_are_refused_or_change_no_row(
    at: int, write_set: Callable[[list[int]], Path]
) -> None:
    """Bits of the file's head, its columns and its footer: the shard is refused when it is used."""
    build = open_lazily(write_set([5, 5]))
    damage(build.shards("train")[1].path, at)
    pairs = Pairs(build.shards("train"))
    assert code_of(lambda: pairs.counts) in (None, "E136")
    with pytest.raises(PrefdataError, match="E136"):
        pairs[7]
    with pytest.raises(PrefdataError, match="E136"):
        Pairs(build.shards("train")).shards.check()


def test_offsets_that_cannot_be_right_are_reported_as_damage(
    write_set: Callable[[list[int]], Path],
) -> None:
    build = open_lazily(write_set([5, 5]))
    path = build.shards("train")[1].path
    offsets = build.shards("train")[1].peek()["prompt_ids"].chunk(0).offsets.to_numpy()
    at = path.read_bytes().index(offsets.tobytes())
    damage(path, at + 7)  # the highest byte of the second one
    with pytest.raises(PrefdataError, match="E136"):
        _ = Pairs(build.shards("train")).counts


@pytest.mark.parametrize("fault", ["missing", "size", "link"])
def test_what_can_be_seen_without_reading_is_refused_at_once(
    fault: str, write_set: Callable[[list[int]], Path], tmp_path: Path
) -> None:
    folder = write_set([5, 5])
    path = sorted((folder / "tokens").iterdir())[1]
    data = path.read_bytes()
    path.unlink()
    if fault == "size":
        path.write_bytes(data[:-8])
    if fault == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PrefdataError) as caught:
        open_lazily(folder)
    assert caught.value.code == ("E130" if fault == "link" else "E135")


def kept_bytes(work: Callable[[], object]) -> int:
    """Return the bytes that Python, numpy and Arrow hold after some work."""
    gc.collect()
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    kept = work()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    del kept
    return held


@pytest.mark.parametrize("unit", ["pairs", "groups"])
def test_memory_does_not_grow_with_the_pairs(
    unit: str, write_set: Callable[[list[int]], Path], config_of: ConfigOf
) -> None:
    """An array of one byte a row would be seen: 40,000 bytes, where shards take a few hundred."""
    config = config_of(global_batch_size=8, batch_unit=unit)

    def work(build: Build) -> object:
        pairs = Pairs(build.shards("train"))
        order = make_order(pairs, config)
        wanted = costliest(pairs.counts.pairs, budget=200, most=8)
        rows = [*order.rows(1), *pairs.find(of_pair, wanted)]
        found = pairs.share_prompts(rows), pairs.groups[rows], pairs.shares[rows]
        assert all(map(len, found))
        pairs.shards.open.cache_clear()
        return pairs, order

    sizes = {}
    for number in (1, 5):
        build = open_lazily(write_set([10_000] * number))
        work(build)  # what is made once, such as caches of imports
        sizes[number] = kept_bytes(lambda build=build: work(build))
    assert (sizes[5] - sizes[1]) / 40_000 < 0.5


def test_a_run_finds_damage_before_the_step_that_needs_it(
    arena: Arena, config_of: ConfigOf, tmp_path: Path, hashed: list[Path]
) -> None:
    """The steps before it are taken, and the run continues once the file is as it was."""
    data = build_pairs(
        tmp_path / "data", tokenizer=arena.model, count=120, shard_rows=1, test_fraction=0.05
    )
    compute_reference(data, model=str(arena.model))
    config = config_of(data=str(data), steps=8, checkpoint_every=1, eval_split=None)
    hashed.clear()
    run = open_alone(config)
    check_memory(run)
    used = {path for path in hashed if path.parent.name == "tokens"}
    shards = run.train.pairs.shards
    assert len(used) < len(shards.sources) / 2

    def files(step: int) -> dict[Path, Shard]:
        found = [shards.sources[part.number] for part in shards.parts(run.order.rows(step))]
        return {shard.path: shard for shard in found if shard.path not in used}

    used |= files(1).keys()
    step = next(step for step in range(2, 9) if files(step))
    path, shard = files(step).popitem()
    good, ids = path.read_bytes(), shard.peek()["rejected_ids"].chunk(0).values.to_numpy()
    damage(path, good.index(ids.tobytes()))

    with pytest.raises(PrefdataError) as caught:
        train(config)
    assert caught.value.code == "E136"
    assert str(path) in str(caught.value)
    assert [line["step"] for line in lines(config.out) if "loss" in line] == list(range(1, step))
    path.write_bytes(good)
    assert train(config).steps == 8


def test_rows_in_memory_are_a_shard() -> None:
    pairs = Pairs([TableShard(table(9, np.random.default_rng(2), masks=False))])
    assert pairs.counts.pairs.sum() == len(pairs) == 9
    assert pairs[3].masks == (None, None)
