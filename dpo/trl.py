"""Shards and reference log-probs for TRL's DPOTrainer, which would otherwise compute them again.

    from trl import DPOConfig, DPOTrainer
    from dpo.trl import FromShards, trl_dataset

    class Trainer(FromShards, DPOTrainer): ...

    config = DPOConfig(precompute_ref_log_probs=True, max_length=None, ...)
    Trainer("org/model", args=config, train_dataset=trl_dataset("builds/hh")).train()

Written for TRL 1.16, which has no public way to pass tokens in.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dpo.data.reference_store import open_reference
from dpo.errors import UsageError
from prefdata.store.reader import open_lazily

if TYPE_CHECKING:
    from datasets import Dataset

TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids")
LOGPS = ("ref_chosen_logps", "ref_rejected_logps")


class FromShards:
    """Mixin for DPOTrainer, put first: a dataset with tokens and log-probs is used as it is."""

    def _prepare_dataset(self, dataset: Any, *arguments: Any, **named: Any) -> Any:
        if set(TOKENS) <= set(dataset.column_names):
            return dataset
        return super()._prepare_dataset(dataset, *arguments, **named)  # type: ignore[misc]

    def _precompute_ref_logps(self, dataset: Any, *arguments: Any, **named: Any) -> Any:
        if set(LOGPS) <= set(dataset.column_names):
            return dataset
        return super()._precompute_ref_logps(dataset, *arguments, **named)  # type: ignore[misc]


def trl_dataset(data: Path | str, split: str = "train", *, reference: str = "default") -> "Dataset":
    """Return a split of a build with the log-probs of `dpo-ref`, as TRL's collator reads it.

    Raises UsageError (T160) for completions with turns of others: TRL has no mask for them.
    """
    from datasets import Dataset, concatenate_datasets  # optional, and slow to import

    build = open_lazily(Path(data))
    stored = open_reference(build, reference).shards(split)
    parts = []
    for shard, logps_of in zip(build.shards(split), stored, strict=True):
        tokens, logps = shard.read(), logps_of.read()
        if any(tokens[f"{side}_mask"].null_count < len(tokens) for side in ("chosen", "rejected")):
            problem = "has completions of several turns, and TRL would train on all of them"
            raise UsageError("T160", str(data), problem, "train it with dpo-train")
        columns = [tokens[name] for name in TOKENS] + [logps[name] for name in LOGPS]
        parts.append(Dataset(pa.table(columns, names=[*TOKENS, *LOGPS])))
    whole: Dataset = concatenate_datasets(parts)
    return whole
