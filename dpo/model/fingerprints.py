"""Checks before step 1 that shards, reference and model belong together.

Each mismatch is an error with its own code. Fingerprints are compared here; `spot_check` then
recomputes a sample of rows, which finds what fingerprints cannot.
"""

from torch import nn
from transformers import PreTrainedModel

from dpo.data.pairs import Pairs
from dpo.data.reference_store import Reference
from dpo.errors import MismatchError
from dpo.precision import Precision
from prefdata.store.reader import Build
from prefdata.tokens.tokenizer import load_tokenizer_spec


def check_tokenizer(model: str, build: Build) -> None:
    """Refuse a model whose tokenizer or template differs from that of the build."""
    built, own = build.manifest.tokenizer, load_tokenizer_spec(model).seal()
    remedy = f"build again with --tokenizer {model}"
    if own.tokenizer_sha256 != built.tokenizer_sha256:
        problem = f"its tokenizer differs from that of {build.path}, built with {built.name}"
        raise MismatchError("T201", model, problem, remedy)
    if own.template_sha256 != built.template_sha256:
        problem = f"its chat template differs from that of {build.path}, built with {built.name}"
        raise MismatchError("T202", model, problem, remedy)


def check_vocabulary(model: PreTrainedModel, *splits: Pairs, place: str) -> None:
    """Refuse ids for which the model has no embedding."""
    rows = int(model.get_input_embeddings().weight.size(0))  # type: ignore[operator]
    largest = max(pairs.largest_id() for pairs in splits)
    if largest >= rows:
        problem = f"has {rows:,} embeddings, but the shards contain the id {largest:,}"
        raise MismatchError("T206", place, problem, "build again with this model's tokenizer")


def check_lengths(model: PreTrainedModel, pairs: Pairs, *, place: str) -> str | None:
    """Refuse pairs that are longer than the model's table of positions (T198).

    Return a notice instead if positions are computed, as rotary ones are.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or not len(pairs):
        return None
    tokens = pairs.longest_texts
    row = int(tokens.argmax())
    if int(tokens[row]) <= limit:
        return None
    pair = f"pair {pairs.pair_id(row)[:12]} has {int(tokens[row]):,} tokens"
    beyond = int((tokens > limit).sum())
    if _has_table(model, limit):
        problem = f"has {limit:,} positions, but {pair}, the longest of {beyond:,}"
        raise MismatchError("T198", place, problem, f"build again with max_length: {limit}")
    return f"{beyond:,} pairs are longer than the {limit:,} tokens of {place}'s config: {pair}"


def _has_table(model: PreTrainedModel, limit: int) -> bool:
    """Return whether positions are rows of a table, learned or computed, and so limited."""
    inputs = model.get_input_embeddings()
    learned = any(
        isinstance(module, nn.Embedding)
        and module is not inputs
        and limit <= module.num_embeddings <= limit + 8  # OPT's begins at 2
        for module in model.modules()
    )
    return learned or any(
        "pos" in name and buffer.dim() == 2 and len(buffer) == limit
        for name, buffer in model.named_buffers()
    )


def check_reference(
    reference: Reference, weights: str, *, place: str, precision: Precision
) -> None:
    """Refuse log-probs that come from other weights or from another precision."""
    manifest = reference.manifest
    if manifest.weights_sha256 != weights:
        problem = f"its log-probs come from other weights ({manifest.model}) than {place} has"
        remedy = "run `dpo-ref` with this model, or set reference.model to the one that it ran with"
        raise MismatchError("T205", str(reference.folder), problem, remedy)
    if manifest.mixed_precision != precision:
        problem = f"was computed with mixed_precision {manifest.mixed_precision}, not {precision}"
        remedy = f"run `dpo-ref --mixed-precision {precision}` under another --name"
        raise MismatchError("T208", str(reference.folder), problem, remedy)
