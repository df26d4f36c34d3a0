"""Log-probs of completions that are given as tokens, such as samples of a policy."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from dpo.data.packing import PromptWithCompletions, bin_pack, pack
from dpo.model.policy import device_of
from dpo.model.self_check import check_policy, probe_lengths

PACK_TOKENS = 2048


@torch.no_grad()
def completion_logps(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[Sequence[int]]],
) -> list[list[float]]:
    """Return log π(y|x) of each prompt's completions, in nats: the sum over a completion's tokens.

    Prompts and completions are token ids, as `encode_prompts` and `Completion.ids` have them. A
    prompt runs once for all of its completions, if a check of a few rows against plain forward
    passes finds that correct for the model; else each completion runs with a copy of it. Raises
    ValueError for a prompt or completion without tokens, UsageError (T111, T114) for models that
    cannot be run.
    """
    if not all(
        len(p) and some and all(map(len, some))
        for p, some in zip(prompts, completions, strict=True)
    ):
        message = "every prompt has completions, and all have at least one token"
        raise ValueError(message)
    rows = [
        PromptWithCompletions(np.array(prompt), tuple(map(np.array, some)), (None,) * len(some))
        for prompt, some in zip(prompts, completions, strict=True)
    ]
    longest = np.array([len(row.prompt) + max(map(len, row.completions)) for row in rows])
    wanted = probe_lengths(model.config, np.bincount(longest))
    places = [int(np.flatnonzero(longest == one.length)[one.place]) for one in wanted]
    policy, _ = check_policy(model, [rows[place] for place in places])
    found: list[list[float]] = [[]] * len(rows)
    for some in bin_pack([row.num_tokens for row in rows], budget=PACK_TOKENS)[0]:
        batch = pack([rows[place] for place in some]).to(device_of(model))
        sums = iter(batch.sums(policy(batch).logps_N).tolist())
        for place in some:
            found[place] = [next(sums) for _ in rows[place].completions]
    policy.share(shared=False)  # the model's own attention again
    return found
