"""A model's body and head, and the function from the head's products to logits.

Families scale logits or cap them under names of their own, and some multiply by a number by which
others divide. So the numbers that a config names are tried, and the self-check keeps the first
whose log-probs are those of a plain pass. If none does, the model computes its logits itself: whole
rows of the vocabulary then, and no tiles.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpo.model.logps import Head

_SCALES = re.compile(r"logits?_scal|lm_head_multiplier")
_CAPS = re.compile(r"(?<!attn_)logits?_soft_?cap")


class LogitForm(NamedTuple):
    """Map from a product x of hidden state and head to a logit: softcap·tanh(scale·x / softcap)."""

    scale: float = 1.0
    softcap: float | None = None


def body_of(model: PreTrainedModel) -> nn.Module:
    """Return the model without its head."""
    base: nn.Module = model.base_model
    if base is model:  # its class names a prefix that it does not have (Llama 4)
        base = getattr(model, "model", base)
    return base


def head_of(model: PreTrainedModel, form: LogitForm) -> Head:
    """Return the model's head. Raises NotImplementedError if it is not one linear layer."""
    linear = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(linear, nn.Linear):
        message = "a head that is not one linear layer"
        raise NotImplementedError(message)
    return Head(linear.weight, linear.bias, *form)


def logit_forms(config: Any) -> list[LogitForm]:
    """Return the forms that a model's config may mean, the most frequent meaning first.

    >>> from transformers import GraniteConfig
    >>> logit_forms(GraniteConfig(logits_scaling=4.0))[:2]
    [LogitForm(scale=0.25, softcap=None), LogitForm(scale=4.0, softcap=None)]
    """
    named = dict(_numbers(config.get_text_config())) | dict(_numbers(config))
    caps = [value for name, value in named.items() if _CAPS.search(name)]
    scales = [
        scale
        for name, value in named.items()
        if _SCALES.search(name)
        for scale in ((1 / value, value) if name == "logits_scaling" else (value, 1 / value))
    ]
    forms = [LogitForm(scale, cap) for cap in (*caps, None) for scale in (*scales, 1.0)]
    return list(dict.fromkeys(forms))


def _numbers(config: Any) -> Iterator[tuple[str, float]]:
    for name, value in config.to_dict().items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            yield name, float(value)


def takes_places(model: PreTrainedModel) -> bool:
    """Return whether the model can compute its logits at chosen positions only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def logps_of_logits(
    logits_NV: Tensor, targets_N: Tensor, *, log_sum_sq_probs: bool = False
) -> tuple[Tensor, Tensor]:
    """Return `logps_and_collisions` of whole logits: log-probs of targets, and log Σ p² or NaN."""
    logps_NV = logits_NV.float().log_softmax(-1)
    logps_N = logps_NV.gather(-1, targets_N[:, None])[:, 0]
    with torch.no_grad():
        wanted = log_sum_sq_probs
        squares_N = (2 * logps_NV).logsumexp(-1) if wanted else torch.full_like(logps_N, torch.nan)
    return logps_N, squares_N
