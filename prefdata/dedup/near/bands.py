"""Near-duplicates of a whole build: the rows of all parts, bucket by bucket of their keys.

    parts/NAME.near-UNIT.arrow   a part's sets; each row's leader, the first with the same set; and
                                 the least number of the prompts of a leader's rows
    parts/NAME.bands-UNIT.arrow  a run of the leaders: lane 0 by the key of the whole set, and one
                                 lane for each band
    parts/N.joined-UNIT.arrow    after wave N: rows that have near-duplicates in another set, and
                                 the smallest row of their cluster

A task takes one range of the keys of one band. Bands are taken in waves of twice as many each time,
and what a wave joins is not tested in the next: nearly all of a cluster is joined by the first few
bands. The clusters are those of `find_pairs`, whose guarantee does not depend on what is joined.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from prefdata.dedup.near.options import NearDuplicates, Unit
from prefdata.dedup.near.overlap import Pairs, Rows, SetStore
from prefdata.dedup.near.pairs import Forest, join_buckets, join_copies
from prefdata.dedup.near.sketch import Sketch, StoredSketches, open_sketch, sketch_table
from prefdata.engine import Engine
from prefdata.engine.exchange import (
    KEY,
    Bucket,
    Lane,
    Parts,
    cut_buckets,
    find_keys,
    most_rows,
    part_path,
    read_lanes,
    read_parts,
    run_bytes,
    write_run,
)
from prefdata.hashing import Numbers

WHOLE, LEADER, LEAST = 0, 1, 2  # places among the keys of a stored sketch
_TIMES = 4  # keys are narrow, so a task takes more of them
_JOINED = {KEY: pl.UInt64, "label": pl.Int64, "least": pl.UInt64}


def store_sketch(sketch: Sketch, prompts: Numbers) -> tuple[pa.Table, pa.Buffer]:
    """Return what a part keeps of a sketch: its sets, and the run of its leaders' keys.

    `prompts` has a number of each row's prompt.
    """
    sets = SetStore([sketch])
    filled = np.flatnonzero(sets.sizes)
    filled = filled[np.lexsort((filled, sketch.keys[WHOLE][filled]))]
    forest = Forest(len(sets.sizes))
    join_copies(sets, forest, filled, sketch.keys[WHOLE][filled])
    leader = forest.labels()
    least = prompts.copy()
    np.minimum.at(least, leader, prompts)
    kept = sketch._replace(keys=[sketch.keys[WHOLE], leader.astype(np.uint64), least[leader]])
    leaders = filled[leader[filled] == filled]
    rows = leaders.astype(np.uint32)
    lanes = [pl.DataFrame({KEY: keys[leaders], "row": rows}) for keys in sketch.keys]
    return sketch_table(kept), run_bytes(*lanes)


class BandTask(NamedTuple):
    """Inputs of a worker for one range of the keys of some bands."""

    root: Path
    unit: Unit
    lanes: range
    bucket: Bucket
    threshold: float
    joined: int
    """Number of the waves before this one."""

    @property
    def about(self) -> str:
        return f"near-duplicates of the {self.unit}, band {self.lanes.start}"


def find_all_clusters(root: Path, near: NearDuplicates, workers: Engine) -> None:
    """Find the clusters of all rows by each unit of the options."""
    for unit in near.units:
        bands = near.sketch_options(unit).num_bands
        find_clusters(root, unit, threshold=near.threshold, num_bands=bands, workers=workers)


def find_clusters(
    root: Path, unit: Unit, *, threshold: float, num_bands: int, workers: Engine
) -> None:
    """Find the clusters of all rows; `clusters_of` then returns those of a part."""
    parts = read_parts(root)
    buckets = cut_buckets(parts.num_rows, _TIMES)
    most = max(1, most_rows(_TIMES) // max(parts.num_rows, 1))
    rows, labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for wave, lanes in enumerate(_waves(num_bands)):
        tasks = (
            BandTask(root, unit, lanes[first : first + most], bucket, threshold, wave)
            for first in range(0, len(lanes), most)
            for bucket in buckets
        )
        rows, labels = _join(rows, labels, workers.map(join_band, tasks))
        frame = pl.DataFrame({KEY: rows.astype(np.uint64), "label": labels})
        write_run(_joined_path(root, unit, wave), frame)
    least = _stored(parts, unit, rows).keys(LEAST)
    places = np.searchsorted(rows, labels)
    np.minimum.at(least, places, least.copy())
    frame = pl.DataFrame(
        {KEY: rows.astype(np.uint64), "label": labels, "least": least[places]}, schema=_JOINED
    )
    write_run(part_path(root, "00000", f"clusters-{unit}"), frame)


def _waves(num_bands: int) -> Iterator[range]:
    """Yield the lanes of each wave: whole sets, then 1, 2, 4, … bands."""
    yield range(WHOLE, WHOLE + 1)
    first, number = 1, 1
    while first <= num_bands:
        yield range(first, min(first + number, num_bands + 1))
        first, number = first + number, 2 * number


def _join(rows: Rows, labels: Rows, found: Iterable[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    """Return all rows that are joined to another, sorted, with the smallest row of their cluster.

    `found` are pairs of rows to join, in addition to `rows` and `labels`.
    """
    pairs = [(rows, labels), *found]
    a, b = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    ends = np.union1d(a, b)
    forest = Forest(len(ends))
    forest.join(np.searchsorted(ends, a), np.searchsorted(ends, b))
    return ends, ends[forest.labels()]


def _joined_path(root: Path, unit: Unit, wave: int) -> Path:
    return part_path(root, f"{wave:05d}", f"joined-{unit}")


def _stored(parts: Parts, unit: Unit, rows: Rows) -> SetStore:
    return SetStore(StoredSketches(parts.paths(f"near-{unit}")), parts.locate(rows))


def join_band(task: BandTask) -> tuple[Rows, Rows]:
    """Return pairs of near-duplicates that connect the rows of one range of keys."""
    parts = read_parts(task.root)
    paths = parts.paths(f"bands-{task.unit}")
    lanes = list(map(_candidates, read_lanes(paths, task.bucket, task.lanes, parts.starts)))
    some = np.unique(np.concatenate([lane.rows for lane in lanes]))
    if task.lanes.start != WHOLE and len(some):
        some = some[_leads(task, some)]
    sets = _stored(parts, task.unit, some)
    forest = Forest.of_labels(_labels(task, some))
    whole, found = sets.keys(WHOLE), list[Pairs]()
    for lane in lanes:
        inside = np.isin(lane.rows, some, kind="sort")
        rows, keys = np.searchsorted(some, lane.rows[inside]), lane.keys[inside]
        order = np.lexsort((rows, whole[rows], keys))
        rows, keys = rows[order], keys[order]
        if task.lanes.start == WHOLE:
            found.append(join_copies(sets, forest, rows, keys))
        else:
            found += join_buckets(sets, forest, rows, keys, task.threshold)
    empty = np.zeros(0, np.int64)
    pairs = (np.concatenate([empty, *(getattr(pair, side) for pair in found)]) for side in "ab")
    a, b = (some[side] for side in pairs)
    return a, b


def _candidates(lane: Lane) -> Lane:
    """Return the rows that share their key with another row."""
    shared = _shared(lane.keys)
    return Lane(lane.keys[shared], lane.rows[shared])


def _leads(task: BandTask, rows: Rows) -> NDArray[np.bool_]:
    """Return the mask of rows that are not copies of a smaller one."""
    copies = _joined_path(task.root, task.unit, WHOLE)
    known, found = find_keys(copies, rows.astype(np.uint64))
    leads = ~known
    leads[known] = found["label"].to_numpy() == rows[known]
    return leads


def _shared(keys: Numbers) -> NDArray[np.bool_]:
    """Return the mask of keys that occur more than once."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(keys), np.bool_)
    shared[order[1:]] |= same
    shared[order[:-1]] |= same
    return shared


def _labels(task: BandTask, rows: Rows) -> Rows:
    """Return what the waves before have joined: a label for each row, equal for joined ones."""
    if not task.joined or not len(rows):
        return rows
    path = _joined_path(task.root, task.unit, task.joined - 1)
    known, found = find_keys(path, rows.astype(np.uint64))
    labels = rows.copy()
    labels[known] = found["label"].to_numpy()
    return labels


class Clusters(NamedTuple):
    """Of each row of a part: the smallest row of its cluster, and a number of the cluster."""

    labels: Rows
    least: Numbers
    """Least number of a prompt of the cluster."""


def clusters_of(parts: Parts, part: int, unit: Unit) -> Clusters:
    """Return the clusters of a part's rows, once `find_clusters` has found them."""
    sketch = open_sketch(parts.path_of(part, f"near-{unit}"))
    leaders = sketch.keys[LEADER].astype(np.int64) + parts.start_of(part)
    least = np.array(sketch.keys[LEAST])
    path = part_path(parts.root, "00000", f"clusters-{unit}")
    known, found = find_keys(path, leaders.astype(np.uint64))
    labels = leaders.copy()
    labels[known], least[known] = found["label"].to_numpy(), found["least"].to_numpy()
    return Clusters(labels, least)


def sets_of(root: Path, unit: Unit, rows: Rows) -> SetStore:
    """Return the sets of some rows of a build, by their indices."""
    return _stored(read_parts(root), unit, rows)
