"""Load-balancing loss of a mixture of experts, exact over the step and counted once.

E · Σ_e f_e · P_e over E experts: f_e is how often a token was sent to expert e, P_e the router
probability of that expert, both means over all tokens of a step in all layers (Eq. 4 to 6 of
https://arxiv.org/abs/2101.03961; all layers together, as transformers counts them). A token that is
run once, such as one of a shared prompt, counts once. No gradient flows through f.
"""

from collections.abc import Container, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dpo.errors import UsageError


def expert_load(router_logits: Sequence[Tensor], *, chosen: int) -> Tensor:
    """Return each expert's count and probability, summed over layers and tokens, (2, E).

    Takes the logits of each layer, (tokens, E); each token goes to `chosen` of the experts.
    """
    total = torch.zeros(2, router_logits[0].shape[-1], device=router_logits[0].device)
    for logits in router_logits:
        probabilities = logits.float().softmax(-1)
        experts = probabilities.topk(chosen, dim=-1).indices.flatten()
        counts = torch.bincount(experts, minlength=probabilities.shape[-1])
        total = total + torch.stack((counts.to(total), probabilities.sum(0)))
    return total


def balance_loss(loads_2E: Tensor, total_2E: Tensor, *, chosen: int) -> Tensor:
    """Return a pack's part of the step's loss, (): the parts of all packs add up to it.

    `total_2E` is the sum of the loads of all packs of the step.
    """
    counts_E = total_2E[0].detach().to(loads_2E)
    tokens = counts_E.sum() / chosen
    return len(counts_E) * (counts_E @ loads_2E[1]) / tokens**2


def check_routing(model: PreTrainedModel, *, place: str) -> None:
    """Raise UsageError (T112) if the model does not report how it routes tokens."""
    recorded: Container[str] = getattr(model.base_model, "_can_record_outputs", None) or ()
    if "router_logits" in recorded and experts_per_token(model):
        return
    problem = "does not report router logits, which router_aux_loss_coef needs"
    remedy = "leave it out, or use a mixture of experts whose config has num_experts_per_tok"
    raise UsageError("T112", place, problem, remedy)


def experts_per_token(model: PreTrainedModel) -> int:
    """Return the number of experts that a token goes to; 0 if the config does not say."""
    return int(getattr(model.config, "num_experts_per_tok", None) or 0)
