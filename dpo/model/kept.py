"""Bytes that autograd keeps of a pack until its backward pass, counted without weights.

The model's body runs once over fake tensors, which have shapes and dtypes but no data, under the
autocast of the run. So the count covers any architecture, adapter and precision, and takes a second
at most. Every tensor that an operation saves counts once by its storage; weights do not count, but
the copies do that autocast makes of them.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from dpo.errors import MODEL_ERRORS
from dpo.model.heads import body_of
from dpo.model.logps import CPU_SIZES, GPU_SIZES, KEPT_PER_HIDDEN
from dpo.precision import Precision, autocast

NAME = "counted"
TOKENS = 1009
"""Tokens of the counted pack: a prime, by which no size of a weight is divisible."""
KEPT_OF_A_LAYER = 34
"""Bytes per token and hidden unit that a transformer layer keeps in 16 bits, without attention's
scores: section 4.1 of https://arxiv.org/abs/2205.05198. For bodies that fake tensors cannot run."""


class Kept(NamedTuple):
    """Bytes that a body keeps of a pack."""

    per_token: float
    copies: int
    """Of weights, in the dtype of products: the same for any pack."""
    layers: int
    hidden: int
    """Bytes of a token's hidden state."""
    width: int
    """Bytes of a number in it."""
    device: torch.device

    def pack(self, tokens: int, *, checkpointed: bool) -> int:
        """Return the bytes that a pack takes between its forward and its backward pass.

        They include the gradients of one layer's states, and the head: its states, their gradients
        and the tiles that it keeps.
        """
        body = self.per_token * tokens
        layer = body / self.layers
        if checkpointed:  # the inputs of all layers, and one layer that runs again
            body = layer + self.layers * self.hidden * tokens
        tiles = (CPU_SIZES if self.device.type == "cpu" else GPU_SIZES).kept
        head = min(tiles, KEPT_PER_HIDDEN * self.hidden * tokens) + 2 * self.hidden * tokens
        return int(body + layer + head) + self.copies


def count_kept(
    model: PreTrainedModel,
    *,
    device: torch.device,
    precision: Precision,
    dtypes: Mapping[int, torch.dtype],
) -> Kept:
    """Return what a model keeps of a pack.

    The model is on `meta` and unusable afterwards; `dtypes` are those that its weights will be held
    in, by their ids.
    """
    config: Any = model.config.get_text_config()
    layers = max(1, int(getattr(config, "num_hidden_layers", 1)))
    embedding: Any = model.get_input_embeddings()
    size = int(embedding.weight.shape[-1])
    is_float32 = dtypes.get(id(embedding.weight), torch.float32) == torch.float32
    width = 4 if precision == "no" and is_float32 else 2
    hidden = size * width
    weights = sum(weight.numel() for weight in model.parameters())
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    try:
        of_tokens, copies = _count(model, precision, dtypes)
    except MODEL_ERRORS:  # fused experts have no fake float32
        try:
            of_tokens = _count(model, "no", {}, only=torch.bfloat16)[0]
            of_tokens *= 2 if is_float32 else 1
        except MODEL_ERRORS:
            of_tokens = KEPT_OF_A_LAYER * hidden // 2 * layers * TOKENS
        copies = 2 * weights if precision != "no" else 0
    return Kept(of_tokens / TOKENS, copies, layers, hidden, width, device)


def _count(
    model: PreTrainedModel,
    precision: Precision,
    dtypes: Mapping[int, torch.dtype],
    *,
    only: torch.dtype | None = None,
) -> tuple[int, int]:
    """Return the bytes of a pack of `TOKENS`, and those that are copies of weights.

    All weights are held in the dtype `only`, if it is given. The tensors are those of a CPU, as
    torch cannot run those of a device that is not here.
    """
    device = torch.device("cpu")
    model.set_attn_implementation(NAME)
    model.train(mode=False)
    kept: dict[int, Tensor] = {}
    with FakeTensorMode():
        weights = _fill(model, dtypes, device, only)

        def keep(tensor: Tensor) -> Tensor:
            place = tensor.untyped_storage()._cdata
            if place not in weights:
                kept[place] = tensor
            return tensor

        ids = torch.zeros((1, TOKENS), dtype=torch.long, device=device)
        saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with saved, autocast(device, precision):
            body_of(model)(
                input_ids=ids,
                position_ids=ids,
                attention_mask=torch.ones_like(ids),
                use_cache=False,
            )
        sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    of_tokens = sum(size for size in sizes if size % TOKENS == 0)
    return of_tokens, sum(sizes) - of_tokens


def _fill(
    model: nn.Module,
    dtypes: Mapping[int, torch.dtype],
    device: torch.device,
    only: torch.dtype | None,
) -> set[int]:
    """Give a model fake weights and buffers; return the weights' storages."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for short, weight in module._parameters.items():
            if weight is None:
                continue
            if id(weight) not in made:
                dtype = only or dtypes.get(id(weight), weight.dtype)
                fake = torch.empty(weight.shape, dtype=dtype, device=device)
                made[id(weight)] = nn.Parameter(fake, requires_grad=weight.requires_grad)
            module._parameters[short] = made[id(weight)]
        for short, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[short] = torch.empty(
                    buffer.shape, dtype=buffer.dtype, device=device
                )
    return {weight.untyped_storage()._cdata for weight in made.values()}


class _Attention(torch.autograd.Function):
    """Attention as the backward pass sees it: it keeps its inputs and its output."""

    @staticmethod
    def forward(ctx: Any, query_BHTD: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, heads, tokens, _ = query_BHTD.shape
        output = query_BHTD.new_empty(batch, tokens, heads, value.shape[-1])
        ctx.save_for_backward(query_BHTD, key, value, output)
        return output


def _attend(
    module: nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,  # noqa: ARG001
    **_options: Any,
) -> tuple[Tensor, None]:
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = (states.to(dtype) for states in (query, key, value))
    output: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return output, None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, lambda **_options: None)
