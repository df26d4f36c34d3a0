"""Splits of a build with their reference log-probs, as batches of packs."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpo.config import TrainConfig
from dpo.data.packing import Pack, pack
from dpo.data.pairs import Pairs
from dpo.data.reference_store import Reference, reference_column
from dpo.data.shards import Column, Rows
from dpo.data.token_weights import TokenWeights, weigh, wpo_weight
from dpo.loss import PairLogps
from dpo.model.policy import PolicyOutput
from prefdata.store.reader import Build


class Batch(NamedTuple):
    """Pairs in one pack."""

    rows: list[int]
    pack: Pack
    pair_index_R2: Tensor
    """Indices of chosen and rejected among the pack's completions."""


class Split(NamedTuple):
    """One split with its reference log-probs."""

    pairs: Pairs
    ref_logps: NDArray[np.float32] | Column[Any]
    """Sums over chosen and rejected under the reference, (rows, 2), nats; NaN without one."""
    counting: TokenWeights | None = None
    """Weights of tokens; None if all count equally."""
    sources: tuple[str, ...] = ()
    """Names of the files that the rows are from, if there are several."""
    source_numbers: NDArray[np.unsignedinteger[Any]] = np.zeros(0, np.uint8)
    """Index of each row's file in `sources`."""

    def check(self, rows: Rows) -> None:
        """Hash the shards of these rows that are new. Raises the error of a wrong one."""
        self.pairs.shards.check(rows)
        if isinstance(self.ref_logps, Column):
            self.ref_logps.shards.check(rows)

    def batch(self, rows: list[int], device: torch.device) -> Batch:
        """Return pairs as one pack, with each prompt and each of its completions once."""
        joined = self.pairs.share_prompts(rows)
        return Batch(
            rows, pack(joined.prompts).to(device), torch.from_numpy(joined.sides).to(device)
        )

    def pair_logps(self, batch: Batch, found: PolicyOutput) -> PairLogps:
        """Return policy and reference log-probs of a pack's pairs, from the policy's output."""
        rows, sides = batch.rows, batch.pair_index_R2
        lengths = batch.pack.lengths()[sides]
        token_logps_N, weight = found.logps_N, torch.ones_like(lengths[:, 0])
        if found.collisions_N is not None:
            weight = wpo_weight(batch.pack, token_logps_N, found.collisions_N)[sides].prod(1)
            weight = weight.clamp(max=1.0)
        if self.counting is None:
            sums = batch.pack.sums(token_logps_N)[sides]
        else:
            weights = [
                self.counting.weights(self.pairs.pair_id(row), both)
                for row, both in zip(rows, lengths.int().tolist(), strict=True)
            ]
            sums = weigh(batch.pack, token_logps_N, sides, weights)
            counted = [[some.sum() for some in pair] for pair in weights]
            lengths = lengths.new_tensor(np.array(counted))
        columns = (self.ref_logps[rows], self.pairs.margins[rows], self.pairs.groups[rows])
        ref, margin, group = (torch.from_numpy(column).to(sums.device) for column in columns)
        return PairLogps(
            chosen=sums[:, 0],
            rejected=sums[:, 1],
            ref_chosen=ref[:, 0],
            ref_rejected=ref[:, 1],
            chosen_length=lengths[:, 0],
            rejected_length=lengths[:, 1],
            margin=margin,
            group=group,
            winner=sides[:, 0],
            weight=weight,
        )


def read_split(build: Build, reference: Reference | None, split: str, config: TrainConfig) -> Split:
    """Return a split; its shards are opened when rows of them are needed."""
    shards, counting = build.shards(split), None
    if config.ld_alpha is not None or config.sampo:
        counting = TokenWeights(config.ld_alpha, config.seed)
    pairs = Pairs(shards)
    if reference is None:
        without = np.broadcast_to(np.float32(np.nan), (len(pairs), 2))
        return Split(pairs, without, counting)
    return Split(pairs, reference_column(reference.shards(split), shards, counting), counting)


def read_eval_splits(
    build: Build, reference: Reference | None, config: TrainConfig
) -> dict[str, Split]:
    """Return the splits to evaluate on that have rows, by name, with their sources."""
    names = [config.eval_split, *config.eval_splits]
    return {
        name: _with_sources(build, reference, name, config)
        for name in names
        if name is not None and build.splits[name].rows
    }


def _with_sources(
    build: Build, reference: Reference | None, name: str, config: TrainConfig
) -> Split:
    split = read_split(build, reference, name, config)
    if len(build.manifest.inputs) < 2:
        return split
    paths: dict[str, int] = {}
    numbers = []
    for column in build.text_column(name, "source"):
        found = [paths.setdefault(path, len(paths)) for path in column.dictionary.to_pylist()]
        kind = np.min_scalar_type(len(paths))
        numbers.append(np.array(found, kind)[np.asarray(column.indices)])
    names = [Path(path).name for path in paths]
    names = names if len(set(names)) == len(names) else list(paths)
    return split._replace(sources=tuple(names), source_numbers=np.concatenate(numbers))
