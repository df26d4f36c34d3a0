"""Check of a model's cache before sampling: its log-probs must be those of a plain pass.

Models keep their state under several names, and a cache that is passed under another name is
ignored: each step then runs without the earlier tokens, and nothing fails. So a few tokens are
drawn with the cache, and a plain pass over the same texts must give the same log-probs. If it does
not, the fallback runs whole texts for every token.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from dpo.errors import MODEL_ERRORS, UsageError, first_line, is_of_memory
from dpo.model.length_limits import length_limits, lengths_named
from dpo.sampling.decode import Prompt, sample_batch, uniforms
from dpo.sampling.draw import Sampling
from dpo.sampling.readers import Cached, MakeReader, Recomputed, last_logits

STEPS = 4
"""Tokens of the check; `max_new_tokens` if texts may cross a length limit of the config."""
TOLERANCE = {torch.bfloat16: 0.25, torch.float16: 0.05}
"""Nats per token, on average; 1e-3 in float32. A lost state is off by whole nats."""


def choose_reader(
    model: PreTrainedModel, texts: Sequence[list[int]], sampling: Sampling
) -> tuple[MakeReader, str | None]:
    """Return the reader that suits a model, and why it is not the cache (None if it is).

    Runs the shortest and the longest text: two batches of steps, and four plain passes.
    Raises UsageError (T182) if a plain pass fails.
    """
    probes = [min(texts, key=len), max(texts, key=len)]
    shortest, longest = len(probes[0]), len(probes[1]) + sampling.max_new_tokens
    for limit in length_limits(model):
        if limit.side(shortest) != limit.side(longest):
            return Recomputed, f"its rotary frequencies change at {limit.tokens:,} tokens"
    steps = min(STEPS, sampling.max_new_tokens)
    if any(shortest <= limit < longest for limit in lengths_named(model.config)):
        steps = sampling.max_new_tokens
    why = _disagreement(model, probes, Sampling(max_new_tokens=steps))
    return (Cached, None) if why is None else (Recomputed, why)


def _disagreement(model: PreTrainedModel, texts: list[list[int]], sampling: Sampling) -> str | None:
    """Return what is wrong with log-probs from the cache; None if they are right."""
    prompts = [
        Prompt(ids, uniforms(0, row, 2, sampling.max_new_tokens)) for row, ids in enumerate(texts)
    ]
    _plain_logp(model, texts[0], [])  # a model that cannot run the texts fails here
    try:
        sampled = sample_batch(model, prompts, sampling, frozenset(), Cached)
    except MODEL_ERRORS as error:
        if is_of_memory(error):
            raise
        return f"it fails ({first_line(error)})"
    gaps = [
        (completion.logp - _plain_logp(model, prompt.ids, completion.ids)) / len(completion.ids)
        for prompt, completions in zip(prompts, sampled, strict=True)
        for completion in completions
    ]
    gap = float(np.abs(gaps).mean())
    if gap <= TOLERANCE.get(model.dtype, 1e-3):
        return None
    return f"its log-probs differ from those of plain passes by {gap:.2g} nats per token"


@torch.inference_mode()
def _plain_logp(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> float:
    """Return the summed log-prob of a completion from one plain pass over its text, in nats."""
    ids = torch.tensor([prompt + completion], device=model.device)
    try:
        logits = last_logits(model, ids, keep=len(completion) + 1)[0, :-1]
    except MODEL_ERRORS as error:
        if is_of_memory(error):
            raise
        problem = f"a plain pass over {ids.shape[1]:,} tokens fails ({first_line(error)})"
        remedy = "check its config, shorten the prompts, or use another model"
        raise UsageError("T182", type(model).__name__, problem, remedy) from error
    exact = torch.promote_types(logits.dtype, torch.float32)
    logps = logits.to(exact).log_softmax(-1)
    return float(logps.gather(1, ids[0, len(prompt) :, None]).sum())
