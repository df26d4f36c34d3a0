"""Check before step 1 that packs give the log-probs of plain forward passes.

It runs the texts at the limits of a run: the longest and the shortest pair as one pack, the median
one, and for each length that the config names (a window, a chunk, a rotary limit) the pair just
beyond it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from dpo.data.lengths import Counts, Wanted, add_counts, of_longest, of_rank
from dpo.data.packing import Pack, PromptWithCompletions, bin_pack, pack
from dpo.data.pairs import Pairs
from dpo.errors import MODEL_ERRORS, UsageError, first_line, is_of_memory
from dpo.model.attention import SEGMENTS
from dpo.model.cpu_layers import use_onednn
from dpo.model.float32 import in_float32
from dpo.model.heads import LogitForm, logit_forms, takes_places
from dpo.model.kernel_check import check_kernel, has_kernel
from dpo.model.length_limits import chooses_keys, lengths_named, start_afresh
from dpo.model.policy import DEFAULTS, Policy, PolicyOptions, device_of
from dpo.model.unshared import PASSES
from dpo.precision import Precision

TOLERANCE = 1e-4
"""Nats per token, in float32."""
COMPARED = 256
"""Maximum compared tokens per completion: the logits of all of a long text are large."""
LIMITS = 4
"""Maximum limits of the config that are checked; the longest pair is beyond all of them."""


class Checked(NamedTuple):
    """Checked rows, with the plain log-probs of the compared completion tokens."""

    pack: Pack
    compared_n: Tensor
    """Indices of these tokens among the completion tokens of the pack."""
    plain_n: Tensor


def make_policy(
    model: PreTrainedModel,
    *splits: Pairs,
    options: PolicyOptions = DEFAULTS,
    precision: Precision = "no",
    compared: int = COMPARED,
    prepare: Callable[[Policy], None] = lambda policy: None,  # noqa: ARG005
) -> tuple[Policy, str | None]:
    """Return a policy that runs packs shared if that is correct for the model, else unshared.

    `prepare` is called first, to shard a model and to read its weights. The second value says why
    prompts are not shared; None if they are. `precision` is that of the
    run: a GPU's kernel is checked in it, and the model in float32 without that kernel. Raises
    UsageError (T111, T114, T180, T181). Afterwards float32 layers run by oneDNN where it is faster.
    """
    rows = probes(model.config, splits)
    return check_policy(
        model, rows, options=options, precision=precision, compared=compared, prepare=prepare
    )


def check_policy(
    model: PreTrainedModel,
    rows: list[PromptWithCompletions],
    *,
    options: PolicyOptions = DEFAULTS,
    precision: Precision = "no",
    compared: int = COMPARED,
    prepare: Callable[[Policy], None] = lambda policy: None,  # noqa: ARG005
) -> tuple[Policy, str | None]:
    """Return what `make_policy` does, checked with these rows."""
    policy = Policy(model, shared=False, options=options)
    prepare(policy)
    device = device_of(model)
    apart = precision != "no" and has_kernel(options, device, precision)
    policy.options = options._replace(backend=SEGMENTS) if apart else options
    with in_float32(model):
        why = _choose(policy, rows, compared)
    policy.options = options
    if apart and why is None:
        packs = [pack(some).to(device) for some in _in_packs(rows)]
        check_kernel(policy, packs, precision)
    use_onednn(policy.model)
    return policy, why


def _choose(policy: Policy, rows: list[PromptWithCompletions], compared: int) -> str | None:
    """Make a policy run in a way that is correct for these rows; return why it is not shared.

    A few pairs of the splits run as packs and as plain unpadded passes in float32: two plain
    passes per pair, at most seven pairs, and a packed pass for every one or two of them. If these
    disagree, the function from the head's products to logits is chosen by unshared passes, and
    unshared rows run as padded batches if that is correct.
    """
    checked = [_run_plainly(policy, some, compared) for some in _in_packs(rows)]
    why, usual = _disagreement(policy, checked, shared=True), policy.form
    if why is None:
        return None
    policy.form = _choose_form(policy, checked)
    if policy.form != usual and (why := _disagreement(policy, checked, shared=True)) is None:
        return None
    policy.share(shared=False)
    policy.run(partial(_require_causal, row=rows[len(rows) // 2]))
    fits = not chooses_keys(policy.model.config)
    fits = fits and _disagreement(policy, checked, shared=False, passes=1) is None
    policy.share(shared=False, passes=PASSES if fits else 0)
    return why


def _in_packs(rows: list[PromptWithCompletions]) -> list[list[PromptWithCompletions]]:
    """Return the rows in packs: the longest and the shortest share one."""
    sizes = [row.num_tokens for row in rows]
    packs = bin_pack(sizes, budget=max(sizes) + min(sizes))[0]
    return [[rows[place] for place in some] for some in packs]


def _choose_form(policy: Policy, checked: Sequence[Checked]) -> LogitForm | None:
    """Return the form of logits that plain rows agree with; None for the model's own logits.

    Raises UsageError (T111) if the log-probs of plain passes do not repeat.
    """
    worse = None
    for form in (*logit_forms(policy.model.config), None):
        policy.form = form
        worse = _disagreement(policy, checked, shared=False, passes=0)
        if worse is None:
            return form
    problem = f"its log-probs in packs differ from those of plain passes ({worse})"
    raise UsageError("T111", type(policy.model).__name__, problem, "use another model")


@torch.no_grad()
def _require_causal(model: PreTrainedModel, row: PromptWithCompletions) -> None:
    """Raise UsageError (T114) if the last token of a text changes what is predicted before it."""
    ids = torch.from_numpy(np.concatenate([row.prompt, row.completions[0]]).astype(np.int64))
    other = ids.clone()
    other[-1] = next((token for token in ids.tolist() if token != ids[-1]), int(ids[-1] == 0))
    device = device_of(model)
    places = torch.arange(len(ids) - 1, device=device)
    found = []
    for text in (ids.to(device), other.to(device)):
        start_afresh(model)
        found.append(_logits_at(model, text, places).float().log_softmax(-1))
    gap = float((found[0] - found[1]).abs().max()) if len(places) else 0.0
    if not gap <= TOLERANCE:
        problem = f"its tokens see later ones, which change log-probs by {gap:.2g} nats"
        remedy = "set is_decoder in its config.json if it was trained so, or use a decoder model"
        raise UsageError("T114", type(model).__name__, problem, remedy)


def logits_notice(policy: Policy) -> str | None:
    """Return a notice if the model computes its logits itself, else None."""
    if policy.form is not None:
        return None
    name = type(policy.model).__name__
    return (
        f"{name} computes its logits itself: memory grows with its vocabulary, so lower pack_tokens"
        " if it does not suffice"
    )


def probes(config: Any, splits: Sequence[Pairs]) -> list[PromptWithCompletions]:
    """Return the pairs of the check, chosen by the length of their longer text, each once."""
    counts = add_counts(*(split.counts.longest for split in splits))
    return _find(splits, probe_lengths(config, counts))


def probe_lengths(config: Any, counts: Counts) -> list[Wanted]:
    """Return the rows to check: the shortest, the median, the longest, and those past a limit."""
    below, total = np.cumsum(counts), int(counts.sum())
    shortest = int(np.flatnonzero(counts)[0])
    chosen = [0, total // 2, total - 1]
    within = [limit for limit in lengths_named(config) if shortest <= limit < len(counts) - 1]
    chosen += [int(below[limit]) for limit in within[:LIMITS]]
    return [of_rank(counts, rank) for rank in dict.fromkeys(chosen)]


def _find(splits: Sequence[Pairs], wanted: Sequence[Wanted]) -> list[PromptWithCompletions]:
    """Return the rows with these places among those of a length, counted over all splits."""
    found: dict[Wanted, PromptWithCompletions] = {}
    before: Counter[int] = Counter()
    for split in splits:
        counts = Counter(dict(enumerate(split.counts.longest.tolist())))
        here = [one for one in wanted if 0 <= one.place - before[one.length] < counts[one.length]]
        own = [Wanted(one.length, one.place - before[one.length]) for one in here]
        for one, row in zip(here, split.find(of_longest, own), strict=True):
            found[one] = split[row]
        before.update(counts)
    return [found[one] for one in wanted]


def length_notice(policy: Policy, *splits: Pairs) -> str | None:
    """Return a notice if rotary frequencies depend on length and texts cross a limit, else None."""
    counts = add_counts(*(split.counts.texts for split in splits))
    total = int(counts.sum())
    for limit in policy.limits:
        beyond = int(counts[limit.tokens + 1 :].sum())
        if 0 < beyond < total or (beyond and limit.grows):
            return (
                f"{beyond:,} of {total:,} texts are longer than {limit.tokens:,} tokens,"
                " where the model's rotary frequencies change: they run in separate rows"
            )
    return None


def _run_plainly(policy: Policy, rows: list[PromptWithCompletions], compared: int) -> Checked:
    """Return rows as a pack with their plain log-probs. Raises UsageError (T180, T181)."""
    counts = [len(completion) for row in rows for completion in row.completions]
    starts = np.cumsum([0, *counts[:-1]])
    places = [start + compared_tokens(n, compared) for start, n in zip(starts, counts, strict=True)]
    try:
        plain = policy.run(partial(plain_logps, rows=rows, compared=compared))
    except MODEL_ERRORS as error:
        texts = [len(row.prompt) + len(c) for row in rows for c in row.completions]
        if is_of_memory(error):
            problem = f"a plain pass over a text of {max(texts):,} tokens does not fit into memory"
            remedy = "build with a smaller max_length"
            raise UsageError("T181", type(policy.model).__name__, problem, remedy) from error
        problem = f"a plain pass over texts of {min(texts):,} to {max(texts):,} tokens fails"
        remedy = "check its config, build with a smaller max_length, or use another model"
        raise UsageError(
            "T180", type(policy.model).__name__, f"{problem} ({first_line(error)})", remedy
        ) from error
    return Checked(
        pack(rows).to(plain.device),
        torch.from_numpy(np.concatenate(places)).to(plain.device),
        plain,
    )


def compared_tokens(length: int, most: int) -> NDArray[np.int64]:
    """Return the indices of `most` tokens, evenly spaced from first to last, or of all."""
    return np.linspace(0, length - 1, min(length, most)).round().astype(np.int64)


def _disagreement(
    policy: Policy, checked: Sequence[Checked], *, shared: bool, passes: int = PASSES
) -> str | None:
    """Return what is wrong with log-probs of packs that run this way; None if they are right."""
    worst = 0.0
    try:
        policy.share(shared=shared, passes=passes)
        with torch.no_grad():
            for batch, compared_n, plain_n in checked:
                gaps = (policy(batch).logps_N[compared_n] - plain_n).abs()
                worst = max(worst, float(gaps.nan_to_num(torch.inf).max()))
    except MODEL_ERRORS as error:
        if is_of_memory(error):
            raise
        if isinstance(policy, FSDPModule):
            policy.reset_iter_state()
        return first_line(error)
    return None if worst <= TOLERANCE else f"off by {worst:.2g} nats per token"


@torch.no_grad()
def plain_logps(
    model: PreTrainedModel, rows: list[PromptWithCompletions], *, compared: int | None = None
) -> Tensor:
    """Return log-probs of completion tokens by transformers' forward, one text at a time, (n,).

    With `compared`, only that number of tokens of each (`compared_tokens`). Each text runs as in a
    fresh model.
    """
    found: list[Tensor] = []
    device = device_of(model)
    for row in rows:
        for completion in row.completions:
            ids = torch.from_numpy(np.concatenate([row.prompt, completion]).astype(np.int64))
            ids = ids.to(device)
            few = compared_tokens(len(completion), compared or len(completion))
            places = torch.from_numpy(len(row.prompt) - 1 + few).to(device)
            start_afresh(model)
            logps = _logits_at(model, ids, places).float().log_softmax(-1)
            found.append(logps.gather(-1, ids[places + 1][:, None]).squeeze(-1))
    return torch.cat(found)


def _logits_at(model: PreTrainedModel, ids: Tensor, places: Tensor) -> Tensor:
    """Return the logits at these positions of a text, (n, V); if possible, compute no others."""
    if not takes_places(model):
        logits: Tensor = model(input_ids=ids[None], use_cache=False).logits[0]
        return logits[places]
    kept: Tensor = model(input_ids=ids[None], use_cache=False, logits_to_keep=places).logits[0]
    return kept
