"""The causal LM as a module from packs to log-probs: what accelerate wraps and a loss reads.

One `forward` holds the body, the attention over packs and the chunked head, so that the hooks of
DDP, FSDP2 and DeepSpeed fire as they do for any model.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpo import attention
from dpo.errors import UsageError
from dpo.logps import Head, logps_and_collisions
from dpo.packing import Pack
from dpo.routing import experts_per_token, router_loads


class Found(NamedTuple):
    """What a policy finds of a pack."""

    logps_N: Tensor
    """Log-probs of the completion tokens, nats, float32."""
    collisions_N: Tensor | None = None
    """log Σ p² of the next token's distribution, where it is wanted."""
    loads_2E: Tensor | None = None
    """What each expert got (`router_loads`), where it is wanted."""


class Policy(nn.Module):
    """A causal LM that maps a pack to the log-probs of its completion tokens.

    `shared` runs the pack as one row, the prompt once. Without it every completion runs in a row
    of its own after a copy of its prompt, under the model's own attention: for models whose
    attention cannot be driven, and for checking the first way against the second.
    """

    def __init__(self, model: PreTrainedModel, *, shared: bool = True) -> None:
        super().__init__()
        self.model = model
        self._no_split_modules = model._no_split_modules  # which layers accelerate shards by
        self.own_attention: str = model.config._attn_implementation or "eager"
        self.shared = self.head_adds = self.collisions = self.loads = False
        self.share(shared=shared)

    def share(self, *, shared: bool) -> None:
        """Run packs with their prompts shared, or one completion a row."""
        wanted = attention.NAME if shared else self.own_attention
        if self.model.config._attn_implementation != wanted:
            self.model.set_attn_implementation(wanted)
        self.shared = shared

    def add_gradients_in_place(self) -> None:
        """Let head and embedding add their gradients to `weight.grad`, where they are float32.

        It spares writing and adding matrices of the vocabulary's size for each pack: the head adds
        its tiles, the embedding the rows that a pack uses. For one process: what averages
        gradients over several, such as DDP, has to see them pass through autograd.
        """
        head, embedding = head_of(self.model).weight_VH, self.model.get_input_embeddings()
        self.head_adds = _adds(head)
        if type(embedding) is nn.Embedding and _adds(embedding.weight):
            embedding.register_forward_hook(_cut_off)

    def forward(self, pack: Pack) -> Found:
        """Log-probs of the completion tokens of a pack; what `collisions` and `loads` ask for."""
        hidden_NH, routed = self._shared(pack) if self.shared else self._unshared(pack)
        if torch.is_autocast_enabled(hidden_NH.device.type):
            hidden_NH = hidden_NH.to(torch.get_autocast_dtype(hidden_NH.device.type))
        with torch.autocast(hidden_NH.device.type, enabled=False):
            head = head_of(self.model)._replace(adds=self.head_adds, collisions=self.collisions)
            logps_N, collisions_N = logps_and_collisions(hidden_NH, head, pack.targets_N)
            return Found(
                logps_N,
                collisions_N if self.collisions else None,
                router_loads(routed, chosen=experts_per_token(self.model)) if self.loads else None,
            )

    def _shared(self, pack: Pack) -> tuple[Tensor, list[Tensor]]:
        """Hidden states that predict completion tokens, out of one row, (N, H); router logits."""
        states_TH, routed = self._run(
            input_ids=pack.input_ids_T[None],
            position_ids=pack.position_ids_T[None],
            segments=pack.segments,
        )
        return states_TH.index_select(0, pack.predicts_N), list(routed)

    def _unshared(self, pack: Pack) -> tuple[Tensor, list[Tensor]]:
        """The same from plain rows, one completion each and nothing else in them.

        Of a prompt's router logits those of its first row are told, as where it runs once.
        """
        hidden: list[Tensor] = []
        routed: list[Tensor] = []
        for row in unshared_rows(pack):
            states_TH, logits = self._run(input_ids=pack.input_ids_T[row.places][None])
            hidden.append(states_TH[row.first - 1 : -1])
            routed += [layer[0 if row.brings_prompt else row.first :] for layer in logits]
        return torch.cat(hidden), routed

    def _run(self, **inputs: Any) -> tuple[Tensor, Sequence[Tensor]]:
        """Hidden states of one row, (T, H), and the router logits of each layer, (T, E)."""
        options = {"output_router_logits": True} if self.loads else {}
        found = self.model.base_model(**inputs, **options, use_cache=False)
        return found.last_hidden_state[0], found.router_logits if self.loads else ()


def _adds(weight: Tensor) -> bool:
    return weight.requires_grad and weight.is_leaf and weight.dtype == torch.float32


def _cut_off(embedding: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """Hand out embeddings whose gradient goes to the rows of `weight.grad` and not on."""
    if not output.requires_grad:
        return None
    rows = output.detach().requires_grad_()
    rows.register_hook(partial(_add_rows, embedding, args[0]))  # type: ignore[no-untyped-call]
    return rows


def _add_rows(embedding: nn.Embedding, ids: Tensor, gradient: Tensor) -> None:
    weight = embedding.weight
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    if embedding.padding_idx is not None:  # its row is never trained
        gradient = gradient.masked_fill((ids == embedding.padding_idx)[..., None], 0.0)
    weight.grad.index_add_(0, ids.flatten(), gradient.flatten(0, -2).to(weight.grad.dtype))


class Row:
    """Where one completion and its prompt stand in a pack."""

    def __init__(self, prompt: slice, completion: slice, *, brings_prompt: bool) -> None:
        self.brings_prompt = brings_prompt
        self.places = torch.cat(
            (
                torch.arange(prompt.start, prompt.stop),
                torch.arange(completion.start, completion.stop),
            )
        )
        self.first = prompt.stop - prompt.start


def unshared_rows(pack: Pack) -> list[Row]:
    """A row for each completion of the pack, in the pack's order."""
    rows: list[Row] = []
    start = 0
    for segment in pack.segments:
        prompt = slice(start, start + segment.prompt)
        start = prompt.stop
        for place, length in enumerate(segment.completions):
            rows.append(Row(prompt, slice(start, start + length), brings_prompt=place == 0))
            start += length
    return rows


def head_of(model: PreTrainedModel) -> Head:
    """The model's head with the scaling and capping that its config states."""
    linear = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(linear, nn.Linear):
        raise UsageError(
            "T110",
            type(model).__name__,
            "the head is not one linear layer",
            "use a model with an ordinary language-modeling head",
        )
    config: Any = model.config
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere multiplies
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite divides
    return Head(linear.weight, linear.bias, scale, getattr(config, "final_logit_softcapping", None))
