"""Checks of one tiny model: loading, packs against plain passes, training mode, LoRA, sampling."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from tiny_models import TEXT_IDS, Case, config_of, model_of
from torch import Tensor
from transformers import PreTrainedModel

from dpo.config import LoraSettings
from dpo.data.packing import PromptWithCompletions, pack
from dpo.data.pairs import Pairs
from dpo.data.shards import TableShard
from dpo.errors import MODEL_ERRORS, DpoError, first_line
from dpo.model.length_limits import start_afresh
from dpo.model.load import checkpoint_layers, load_model
from dpo.model.lora import add_lora
from dpo.model.policy import Policy
from dpo.model.self_check import make_policy
from dpo.sampling.cache_check import choose_reader
from dpo.sampling.decode import Prompt, sample_batch, uniforms
from dpo.sampling.draw import Sampling
from dpo.sampling.readers import Cached

NATS = 1e-4
"""Maximum difference of a token's log-prob, in float32."""
GRADIENTS = 1e-3
"""Maximum norm of the difference of gradients over the norm of the plain ones."""
PAIRS = [(3, 1, 2), (5, 4, 9), (9, 3, 3), (12, 8, 2), (16, 5, 7), (20, 9, 4), (25, 15, 17)]
"""Lengths of prompt, chosen and rejected that the self-check sees: up to 42 tokens."""
ROWS = [(20, 7, 9, 3), (3, 1, 14, 30), (30, 12, 2, 5), (5, 4, 20, 37)]
"""Lengths of prompts and three completions whose numbers are compared."""
GREEDY = Sampling(temperature=0.0, max_new_tokens=6)


Record = dict[str, str]
"""What each step of a case came to, by name."""


class Numbers(NamedTuple):
    """Log-probs of tokens, and gradients of a weighted sum of them by the names of weights."""

    logps: Tensor
    gradients: dict[str, Tensor]


def check_case(case: Case, folder: Path) -> Record:
    """Return what each step came to; without later ones if the checkpoint cannot be made."""
    found: Record = {"type": case.model_type, "variant": case.variant}
    try:
        torch.manual_seed(0)
        made = model_of(config_of(case.model_type, **case.settings))
        found["ties"] = "tied" if _is_tied(made) else "untied"
        made.save_pretrained(folder)
    except Exception as error:  # noqa: BLE001 — transformers' own failure, which is the finding
        said = " ".join(str(error).split())
        return found | {"built": f"{type(error).__name__}: {said}"}
    steps: tuple[tuple[str, Callable[..., str]], ...] = (
        ("packs", _packs),
        ("lora", _lora),
        ("sampling", _sampling),
    )
    for name, step in steps:
        found |= _outcome(name, step, folder)
    return found


def _outcome(name: str, step: Callable[[Path, Record], str], folder: Path) -> Record:
    """Return the result of a step, its code if it was refused, or the end of its traceback."""
    found: Record = {}
    try:
        found[name] = step(folder, found)
    except DpoError as error:
        found[name] = f"refused {error.code}"
        found[f"{name} why"] = str(error).replace(str(folder), "checkpoint")
    except Exception as error:  # noqa: BLE001 — a traceback is what the sweep looks for
        found[name] = "traceback"
        last = traceback.extract_tb(error.__traceback__)[-1]
        found[f"{name} why"] = f"{first_line(error)} ({Path(last.filename).name}:{last.lineno})"
    return found


def _packs(folder: Path, found: Record) -> str:
    """Compare packs with plain passes, in evaluation and in training with checkpointed layers."""
    model = load_model(str(folder))
    policy, why = make_policy(model, pairs_of(rows_of(PAIRS)))
    found["packs why"] = why or ""
    try:
        packed_numbers(policy, rows_of(ROWS))
    except MODEL_ERRORS as error:  # as the trainer does in its memory check
        found["packs why"] = f"a training pass fails ({first_line(error)})"
        return "refused T183"
    at_first = packed_numbers(policy, rows_of(ROWS))
    shared, passes = policy.shared, policy.passes
    policy.share(shared=False)  # with the model's own attention
    expected = plain_numbers(model, rows_of(ROWS))
    policy.share(shared=shared, passes=passes)
    found["gap"] = f"{_gap(expected, at_first):.1e}"
    wrong = [*_faults(expected, at_first, ""), *_training(policy, expected)]
    return "wrong: " + "; ".join(wrong) if wrong else _way(policy)


def _way(policy: Policy) -> str:
    how = "shared" if policy.shared else "unshared" if policy.passes else "unshared, one by one"
    return how if policy.form is not None else f"{how}, own logits"


def _training(policy: Policy, expected: Numbers) -> list[str]:
    policy.options = policy.options._replace(dropout=False)
    policy.train()
    wrong = list(_faults(expected, packed_numbers(policy, rows_of(ROWS)), "in training "))
    if policy.model.supports_gradient_checkpointing:
        checkpoint_layers(policy.model, place="")
        policy.train()
        wrong += _faults(expected, packed_numbers(policy, rows_of(ROWS)), "checkpointed ")
        policy.model.gradient_checkpointing_disable()  # type: ignore[no-untyped-call]
    policy.eval()
    return wrong


def _faults(expected: Numbers, found: Numbers, when: str) -> list[str]:
    gap = _gap(expected, found)
    if not gap <= NATS:
        return [f"{when}log-probs off by {gap:.1e}"]
    by = _gradient_gap(expected, found)
    return [] if by <= GRADIENTS else [f"{when}gradients off by {by:.1e}"]


def _gap(expected: Numbers, found: Numbers) -> float:
    return float((expected.logps - found.logps).abs().nan_to_num(torch.inf).max())


def _gradient_gap(expected: Numbers, found: Numbers) -> float:
    """Return the norm of the difference over the norm, over all weights."""
    gaps = sizes = 0.0
    for name in expected.gradients.keys() | found.gradients.keys():
        both = [numbers.gradients.get(name) for numbers in (expected, found)]
        theirs, mine = (0.0 if gradient is None else gradient.double() for gradient in both)
        gaps += float(torch.as_tensor(mine - theirs).square().sum())
        sizes += float(torch.as_tensor(theirs).square().sum())
    return (gaps / sizes) ** 0.5 if sizes else 0.0


def plain_numbers(model: PreTrainedModel, rows: Sequence[PromptWithCompletions]) -> Numbers:
    """Return the numbers of plain forward passes, one text at a time, each in a fresh state."""
    found = []
    for row in rows:
        for completion in row.completions:
            start_afresh(model)
            ids = torch.from_numpy(np.concatenate([row.prompt, completion]).astype(np.int64))
            logits = model(input_ids=ids[None], use_cache=False).logits[0]
            logps = logits[len(row.prompt) - 1 : -1].float().log_softmax(-1)
            found.append(logps.gather(-1, ids[len(row.prompt) :, None])[:, 0])
    return _numbers(model, torch.cat(found))


def packed_numbers(policy: Policy, rows: Sequence[PromptWithCompletions]) -> Numbers:
    """Return the numbers of one pack."""
    return _numbers(policy.model, policy(pack(list(rows))).logps_N)


def _numbers(model: PreTrainedModel, logps: Tensor) -> Numbers:
    model.zero_grad()
    (logps * torch.linspace(-1, 1, len(logps))).sum().backward()  # type: ignore[no-untyped-call]
    grads = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    return Numbers(logps.detach(), grads)


def _lora(folder: Path, found: Record) -> str:
    """Add the default adapter; it changes nothing at first, and gets a gradient."""
    model = load_model(str(folder))
    policy, _ = make_policy(model, pairs_of(rows_of(PAIRS)))
    rows = rows_of(ROWS)
    with torch.no_grad():
        before = policy(pack(rows)).logps_N
    found["lora why"] = add_lora(model, LoraSettings(), seed=0) or ""
    policy.options = policy.options._replace(dropout=False)
    policy.train()
    after = packed_numbers(policy, rows)
    if not (gap := float((after.logps - before).abs().max())) <= NATS:
        return f"wrong: a fresh adapter changes log-probs by {gap:.1e}"
    return (
        "ok" if any(g.abs().sum() > 0 for g in after.gradients.values()) else "wrong: no gradient"
    )


def _sampling(folder: Path, found: Record) -> str:
    """Compare greedy completions of a padded batch with a loop of plain passes."""
    model = load_model(str(folder))
    texts = [row.prompt.tolist() for row in rows_of([(3,), (6,), (13,), (21,)])]
    reader, why = choose_reader(model, texts, GREEDY)
    found["sampling why"] = why or ""
    prompts = [Prompt(text, uniforms(0, 0, 1, GREEDY.max_new_tokens)) for text in texts]
    sampled = sample_batch(model, prompts, GREEDY, frozenset(), reader)
    for text, completions in zip(texts, sampled, strict=True):
        if completions[0].ids != _greedy(model, text):
            return f"wrong after {len(text)} tokens"
    return "cache" if reader is Cached else "recomputed"


@torch.no_grad()
def _greedy(model: PreTrainedModel, text: list[int]) -> list[int]:
    ids = list(text)
    for _ in range(GREEDY.max_new_tokens):
        start_afresh(model)
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(text) :]


def rows_of(lengths: Sequence[tuple[int, ...]]) -> list[PromptWithCompletions]:
    """Return random rows; each item is the lengths of a prompt and its completions."""
    generator = np.random.default_rng(0)

    def ids(length: int) -> Any:
        return generator.choice(np.array(TEXT_IDS), length).astype(np.int32)

    return [
        PromptWithCompletions(ids(prompt), tuple(map(ids, sizes)), (None,) * len(sizes))
        for prompt, *sizes in lengths
    ]


def pairs_of(rows: Sequence[PromptWithCompletions]) -> Pairs:
    """Return rows of one prompt and two completions as a split of a build."""
    names = pa.array([number.to_bytes(16, "big") for number in range(len(rows))], pa.binary(16))
    ids, empty = pa.list_(pa.int32()), pa.nulls(len(rows), pa.list_(pa.bool_()))
    columns = {
        "prompt_ids": pa.array([row.prompt for row in rows], ids),
        "chosen_ids": pa.array([row.completions[0] for row in rows], ids),
        "rejected_ids": pa.array([row.completions[1] for row in rows], ids),
        "chosen_mask": empty,
        "rejected_mask": empty,
        "weight": pa.array([1.0] * len(rows), pa.float32()),
        "margin": pa.nulls(len(rows), pa.float32()),
        "pair_id": names,
        "group_id": names,
    }
    return Pairs([TableShard(pa.table(columns))])


def _is_tied(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head is not None and getattr(head, "weight", None) is model.get_input_embeddings().weight
