"""Causal LM as a module from packs to log-probs, which accelerate wraps.

One `forward` runs the body, the attention over packs and the tiled head, so that the hooks of DDP,
FSDP2 and DeepSpeed fire as for any model.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from dpo.data.packing import Pack, Segment, pack
from dpo.data.pairs import Pairs
from dpo.errors import UsageError
from dpo.model import attention
from dpo.model.dropout import train_without_dropout
from dpo.model.length_limits import length_limits, start_afresh
from dpo.model.logps import Head, logps_and_collisions
from dpo.model.moe import expert_load, experts_per_token
from dpo.model.unshared import Part, split_pack
from dpo.precision import Precision, autocast

Logps = NDArray[np.float32]


class PolicyOutput(NamedTuple):
    """Output of a policy for one pack."""

    logps_N: Tensor
    """Log-probs of the completion tokens, nats, float32."""
    collisions_N: Tensor | None = None
    """log Σ p² of the next token's distribution, if requested."""
    loads_2E: Tensor | None = None
    """Load of each expert (`expert_load`), if requested."""


class RowLogps(NamedTuple):
    """Log-probs of one pair's tokens, in nats: (chosen length,) and (rejected length,)."""

    chosen: Logps
    rejected: Logps


class PolicyOptions(NamedTuple):
    """How a policy runs, and what it returns with the log-probs."""

    backend: str = attention.AUTO
    """A name in `attention.BACKENDS`."""
    dropout: bool = True
    """Whether training draws the model's own dropout."""
    log_sum_sq_probs: bool = False
    """Whether to return `collisions_N`."""
    loads: bool = False
    """Whether to return `loads_2E`."""


DEFAULTS = PolicyOptions()


class Policy(nn.Module):
    """A causal LM that maps a pack to the log-probs of its completion tokens.

    `shared` runs the pack as one row, the prompt once. Without it, every completion runs in its own
    row after a copy of its prompt, with the model's own attention: for models whose attention
    cannot be replaced, and to check shared runs against.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        shared: bool = True,
        options: PolicyOptions = DEFAULTS,
    ) -> None:
        super().__init__()
        self.model = model
        self._no_split_modules = model._no_split_modules  # layers by which accelerate shards
        self.own_attention: str = model.config._attn_implementation or "eager"
        self.limits, self.options = length_limits(model), options
        self.shared = self.head_adds = False
        self.share(shared=shared)

    def train(self, mode: bool = True) -> "Policy":  # noqa: FBT001, FBT002 — torch's signature
        """Switch to training, which is deterministic unless `options.dropout`."""
        super().train(mode)
        if mode and not self.options.dropout:
            train_without_dropout(self.model)
        return self

    def share(self, *, shared: bool) -> None:
        """Run packs with shared prompts, or one completion per row."""
        wanted = attention.NAME if shared else self.own_attention
        if self.model.config._attn_implementation != wanted:
            self.model.set_attn_implementation(wanted)
        self.shared = shared

    def add_gradients_in_place(self) -> None:
        """Make head and embedding add their gradients directly to `weight.grad`, if float32.

        This avoids writing and adding matrices of the vocabulary's size for each pack: the head
        adds its tiles, the embedding the rows that a pack uses. Only for one process: DDP and
        others that average gradients need them to pass through autograd.
        """
        head, embedding = head_of(self.model).weight_VH, self.model.get_input_embeddings()
        self.head_adds = _adds(head)
        if type(embedding) is nn.Embedding and _adds(embedding.weight):
            embedding.register_forward_hook(_cut_off)

    def forward(self, pack: Pack) -> PolicyOutput:
        """Return the log-probs of a pack's completion tokens, and what the options add."""
        hidden_NH, routed = self._states(pack)
        if torch.is_autocast_enabled(hidden_NH.device.type):
            hidden_NH = hidden_NH.to(torch.get_autocast_dtype(hidden_NH.device.type))
        with torch.autocast(hidden_NH.device.type, enabled=False):
            head = head_of(self.model)._replace(
                adds=self.head_adds, log_sum_sq_probs=self.options.log_sum_sq_probs
            )
            logps_N, collisions_N = logps_and_collisions(hidden_NH, head, pack.targets_N)
        found = PolicyOutput(logps_N)
        if self.options.log_sum_sq_probs:
            found = found._replace(collisions_N=collisions_N)
        if self.options.loads:
            loads_2E = expert_load(routed, chosen=experts_per_token(self.model))
            found = found._replace(loads_2E=loads_2E)
        return found

    def _states(self, pack: Pack) -> tuple[Tensor, list[Tensor]]:
        """Return the hidden states that predict completion tokens, (N, H), and router logits."""
        if (parts := self._parts(pack)) is not None:
            return self._in_parts(pack, parts)
        states_TH, routed = self._run_shared(pack.input_ids_T, pack.position_ids_T, pack.segments)
        return states_TH.index_select(0, pack.logit_index_N), list(routed)

    def _parts(self, pack: Pack) -> list[Part] | None:
        """Return the parts whose texts may share a row; None if the whole pack may."""
        if not self.shared:
            return split_pack(pack.segments, range(pack.num_completions))
        if not self.limits:
            return None
        lengths = [s.prompt + length for s in pack.segments for length in s.completions]
        sides = [tuple(limit.side(length) for limit in self.limits) for length in lengths]
        if len(set(sides)) > 1 or self._is_sharded():
            return split_pack(pack.segments, sides)
        return None

    def _in_parts(self, pack: Pack, parts: Sequence[Part]) -> tuple[Tensor, list[Tensor]]:
        """Return hidden states from several rows, and a prompt's router logits from its first."""
        device = pack.input_ids_T.device
        hidden: list[Tensor] = []
        routed: list[Tensor] = []
        idle = self._most_passes(len(parts), device) - len(parts)
        for part in parts:
            states_TH, logits = self._run_part(pack, part)
            hidden.append(states_TH.index_select(0, torch.from_numpy(part.predicts_n).to(device)))
            is_new = torch.from_numpy(part.is_new_t).to(device)
            routed += [layer[is_new] for layer in logits]
        order = np.argsort(np.concatenate([part.tokens_n for part in parts]))
        states_NH = torch.cat(hidden)[torch.from_numpy(order).to(device)]
        for _ in range(idle):
            states_NH = states_NH + self._run_part(pack, parts[0])[0].sum() * 0.0
        return states_NH, routed

    def _run_part(self, pack: Pack, part: Part) -> tuple[Tensor, Sequence[Tensor]]:
        places = torch.from_numpy(part.places_t).to(pack.input_ids_T.device)
        ids = pack.input_ids_T[places]
        if not self.shared:
            return self._run(input_ids=ids[None])
        return self._run_shared(ids, pack.position_ids_T[places], part.segments)

    def _is_sharded(self) -> bool:
        return any(isinstance(weight, DTensor) for weight in self.model.parameters())

    def _most_passes(self, mine: int, device: torch.device) -> int:
        """Return the passes that every process runs, as all gather sharded weights together."""
        if not self._is_sharded():
            return mine
        most = torch.tensor(mine, device=device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return int(most)

    def _run_shared(
        self, input_ids_T: Tensor, position_ids_T: Tensor, segments: Sequence[Segment]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        return self._run(
            input_ids=input_ids_T[None],
            # a mask of ones keeps transformers from inferring texts from the positions
            attention_mask=torch.ones_like(input_ids_T)[None],
            position_ids=position_ids_T[None],
            segments=segments,
            backend=self.options.backend,
        )

    def _run(self, **inputs: Any) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the hidden states of one row, (T, H), and each layer's router logits, (T, E)."""
        if any(limit.grows for limit in self.limits):
            start_afresh(self.model)
        wants = {"output_router_logits": True} if self.options.loads else {}
        found = body_of(self.model)(**inputs, **wants, use_cache=False)
        return found.last_hidden_state[0], found.router_logits if self.options.loads else ()


@torch.no_grad()
def row_logps(
    policy: Policy, pairs: Pairs, rows: Sequence[int], *, precision: Precision
) -> tuple[list[RowLogps], Logps]:
    """Return the token log-probs of rows that run as one pack, and their sums, (rows, 2).

    A prompt or completion that several rows share is run once.
    """
    device, joined = policy.model.device, pairs.share_prompts(rows)
    batch = pack(joined.prompts).to(device)
    with autocast(device, precision):
        token_logps_N = policy(batch).logps_N
    lengths = np.bincount(batch.completion_id_N.cpu().numpy(), minlength=batch.num_completions)
    tokens = np.split(token_logps_N.cpu().numpy(), np.cumsum(lengths)[:-1])
    found = [RowLogps(tokens[chosen], tokens[rejected]) for chosen, rejected in joined.sides]
    return found, batch.sums(token_logps_N).cpu().numpy()[joined.sides]


def _adds(weight: Tensor) -> bool:
    return weight.requires_grad and weight.is_leaf and weight.dtype == torch.float32


def _cut_off(embedding: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """Return embeddings whose gradient goes only to the rows of `weight.grad`."""
    if not output.requires_grad:
        return None
    rows = output.detach().requires_grad_()
    rows.register_hook(partial(_add_rows, embedding, args[0]))  # type: ignore[no-untyped-call]
    return rows.clone()  # a model may scale it in place


def _add_rows(embedding: nn.Embedding, ids: Tensor, gradient: Tensor) -> None:
    weight = embedding.weight
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    if embedding.padding_idx is not None:  # its row is never trained
        gradient = gradient.masked_fill((ids == embedding.padding_idx)[..., None], 0.0)
    weight.grad.index_add_(0, ids.flatten(), gradient.flatten(0, -2).to(weight.grad.dtype))


def body_of(model: PreTrainedModel) -> nn.Module:
    """Return the model without its head."""
    base: nn.Module = model.base_model
    if base is model:  # its class names a prefix that it does not have (Llama 4)
        base = getattr(model, "model", base)
    return base


def head_of(model: PreTrainedModel) -> Head:
    """Return the model's head with the scaling and capping of its config."""
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
