"""Before step 1: does the packed path give the log-probs of plain forward passes?"""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from dpo.data import Pairs
from dpo.errors import UsageError
from dpo.packing import Pack, Prompted, pack
from dpo.policy import Policy

TOLERANCE = 1e-4
"""Nats a token, in float32."""

_RUN_ERRORS = (TypeError, ValueError, NotImplementedError, RuntimeError, AttributeError, KeyError)


def make_policy(model: PreTrainedModel, pairs: Pairs) -> tuple[Policy, str | None]:
    """A policy that runs packs shared where that is right for the model, else unshared.

    Two pairs, the smallest and the median one, run as one pack and as plain unpadded passes in
    float32. The second value says why prompts are not shared; None where they are.
    """
    order = np.argsort(pairs.sizes, kind="stable")
    rows = [pairs[int(order[0])], pairs[int(order[len(order) // 2])]]
    policy = Policy(model, shared=False)
    plain = plain_logps(model, rows)
    batch = pack(rows).to(plain.device)
    why = _disagreement(policy, batch, plain, shared=True)
    if why is None:
        return policy, None
    if (worse := _disagreement(policy, batch, plain, shared=False)) is not None:
        problem = f"its log-probs in packs are not those of plain passes ({worse})"
        raise UsageError("T111", type(model).__name__, problem, "use another model")
    return policy, why


def _disagreement(policy: Policy, batch: Pack, plain: Tensor, *, shared: bool) -> str | None:
    try:
        policy.share(shared=shared)
        with torch.no_grad():
            packed = policy(batch).logps_N
    except _RUN_ERRORS as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    worst = float((packed - plain).abs().max())
    return None if worst <= TOLERANCE else f"off by {worst:.2g} nats a token"


@torch.no_grad()
def plain_logps(model: PreTrainedModel, rows: list[Prompted]) -> Tensor:
    """Log-probs of all completion tokens by transformers' own forward, one text at a time, (N,)."""
    found: list[Tensor] = []
    for row in rows:
        for completion in row.completions:
            ids = torch.from_numpy(np.concatenate([row.prompt, completion]).astype(np.int64))
            ids = ids.to(model.device)
            logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
            logps = logits[len(row.prompt) - 1 : -1].log_softmax(-1)
            found.append(logps.gather(-1, ids[len(row.prompt) :, None]).squeeze(-1))
    return torch.cat(found)
