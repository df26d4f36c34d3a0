"""Before step 1: do shards, reference and model belong together?

Each mismatch is an error with a code of its own. Fingerprints are compared first; then a sample of
rows is computed again, which finds what no fingerprint knows, such as another library's rounding.
"""

from collections.abc import Callable, Sequence

import numpy as np
from transformers import PreTrainedModel

from dpo.data import Pairs
from dpo.errors import MismatchError
from dpo.forward import row_logps
from dpo.policy import Policy
from dpo.precision import Precision
from dpo.refstore import Reference
from dpo.steps import permute
from prefdata.store.reader import Build
from prefdata.tokens.target import load_target

SPOT_ROWS = 32
SPOT_TOLERANCE = {"no": 1e-3, "bf16": 0.1, "fp16": 0.0125}
"""Nats a token: of the worst token in float32; in the mean under bf16, whose rounding moves
with the shape of a batch."""
FIRST_LOSS_TOLERANCE = {"no": 1e-4, "bf16": 5e-3, "fp16": 6.25e-4}


def check_tokenizer(model: str, build: Build) -> None:
    """Refuse a model whose tokenizer or template is not the one that the build was made with."""
    built, own = build.manifest.tokenizer, load_target(model).seal()
    remedy = f"build again with --tokenizer {model}"
    if own.tokenizer_sha256 != built.tokenizer_sha256:
        problem = f"its tokenizer is not the one of {build.path}, made with {built.name}"
        raise MismatchError("T201", model, problem, remedy)
    if own.template_sha256 != built.template_sha256:
        problem = f"its chat template is not the one of {build.path}, made with {built.name}"
        raise MismatchError("T202", model, problem, remedy)


def check_vocabulary(model: PreTrainedModel, *splits: Pairs, place: str) -> None:
    """Refuse ids that the model has no embedding for."""
    rows = int(model.get_input_embeddings().weight.size(0))  # type: ignore[operator]
    largest = max(pairs.largest_id() for pairs in splits)
    if largest >= rows:
        problem = f"has {rows:,} embeddings, and the shards hold the id {largest:,}"
        raise MismatchError("T206", place, problem, "build again with this model's tokenizer")


def check_reference(
    reference: Reference, weights: str, *, place: str, precision: Precision
) -> None:
    """Refuse log-probs of other weights or of another precision."""
    manifest = reference.manifest
    if manifest.weights_sha256 != weights:
        problem = f"its log-probs come from other weights ({manifest.model}) than {place} has"
        remedy = (
            "run `dpo-ref` with this model, or name the one that it ran with as reference.model"
        )
        raise MismatchError("T205", str(reference.folder), problem, remedy)
    if manifest.mixed_precision != precision:
        problem = f"was computed with mixed_precision {manifest.mixed_precision}, not {precision}"
        remedy = f"run `dpo-ref --mixed-precision {precision}` under another --name"
        raise MismatchError("T208", str(reference.folder), problem, remedy)


def spot_check(policy: Policy, pairs: Pairs, reference: Reference, split: str) -> None:
    """Compute some rows again under the reference's model, and refuse log-probs that differ."""
    count = min(SPOT_ROWS, len(pairs))
    rows = np.sort(permute(np.arange(count), len(pairs), key="spot check")).tolist()
    precision = reference.manifest.mixed_precision
    stored = _stored_token_logps(reference, split, rows)
    for start in range(0, count, 4):
        tokens, _ = row_logps(policy, pairs, rows[start : start + 4], precision=precision)
        for row, both, expected in zip(rows[start:], tokens, stored[start:], strict=False):
            gaps = np.abs(np.concatenate(both) - expected)
            gap = float(gaps.max() if precision == "no" else gaps.mean())
            if not gap <= SPOT_TOLERANCE[precision]:
                problem = f"row {row:,} ({pairs.pair_id(row)}) is off by {gap:.2g} nats a token"
                remedy = "delete it and run `dpo-ref` again on this machine"
                raise MismatchError("T209", f"{reference.folder} {split}", problem, remedy)


def check_first_loss(
    loss: float, *, expected: float, precision: Precision, draws: Callable[[], bool]
) -> None:
    """Where the policy starts as the reference, every margin is 0, so the loss is known.

    `draws` finds out if two passes over the same pairs differ; it is asked only then.
    """
    if abs(loss - expected) <= FIRST_LOSS_TOLERANCE[precision] * max(1.0, abs(expected)):
        return
    problem = f"is {loss:.6f} where a policy that equals its reference has {expected:.6f}"
    remedy = "delete the reference and run `dpo-ref` again"
    if draws():
        problem += "; the model draws at random, though dropout is off: two passes over it differ"
        remedy = "set its rates of noise to 0 in its config.json, or use another model"
    raise MismatchError("T210", "the first loss", problem, remedy)


def _stored_token_logps(
    reference: Reference, split: str, rows: Sequence[int]
) -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """Token log-probs of chosen and rejected in a row, for each of some rows of a split."""
    tables = reference.tables(split)
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    found = []
    for row in rows:
        shard = int(np.searchsorted(starts, row, side="right")) - 1
        place = row - int(starts[shard])
        columns = ("ref_chosen_token_logps", "ref_rejected_token_logps")
        sides = [tables[shard][name][place].values.to_numpy() for name in columns]
        found.append(np.concatenate(sides))
    return found
