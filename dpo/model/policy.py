"""Causal LM as a module from packs to log-probs, which accelerate wraps.

One `forward` runs the body, the attention over packs and the tiled head, so that the hooks of DDP,
FSDP2 and DeepSpeed fire as for any model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from dpo.data.packing import Pack, Segment, pack
from dpo.data.pairs import Pairs
from dpo.model import attention
from dpo.model.dropout import train_without_dropout
from dpo.model.heads import (
    LogitForm,
    body_of,
    head_of,
    logit_forms,
    logps_of_logits,
    takes_places,
)
from dpo.model.length_limits import length_limits, start_afresh
from dpo.model.logps import logps_and_collisions
from dpo.model.moe import expert_load, experts_per_token
from dpo.model.unshared import PASSES, Part, split_pack, split_texts
from dpo.precision import Precision, autocast

Logps = NDArray[np.float32]
Result = TypeVar("Result")


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

    `shared` runs the pack as one row, the prompt once. Without it, every completion follows a copy
    of its prompt in a row of its own, with the model's own attention: for models whose attention
    cannot be replaced, and to check shared runs against. `form` is the function from the products
    of the head to logits; None lets the model compute its logits itself.
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
        self.own_attention: str = model.config._attn_implementation or "eager"
        self.limits, self.options = length_limits(model), options
        self.form: LogitForm | None = logit_forms(model.config)[0]
        self.shared = self.head_adds = False
        self.passes = PASSES
        self.share(shared=shared)

    def train(self, mode: bool = True) -> "Policy":  # noqa: FBT001, FBT002 — torch's signature
        """Switch to training, which is deterministic unless `options.dropout`."""
        super().train(mode)
        if mode and not self.options.dropout:
            train_without_dropout(self.model)
        return self

    def share(self, *, shared: bool, passes: int = PASSES) -> None:
        """Run packs with shared prompts, or one completion per row.

        Unshared rows of texts whose lengths may share a pass run as at most `passes` padded
        batches, or one by one if `passes` is 0.
        """
        if shared != self.shared:  # the config of a model with towers may not say which is set
            self.model.set_attn_implementation(attention.NAME if shared else self.own_attention)
        self.shared, self.passes = shared, passes

    @contextmanager
    def unshared(self) -> Iterator[None]:
        """Run the model with its own attention, as plain passes need it."""
        shared, passes = self.shared, self.passes
        self.share(shared=False)
        yield
        self.share(shared=shared, passes=passes)

    def add_gradients_in_place(self) -> None:
        """Make head and embedding add their gradients directly to `weight.grad`, if float32.

        This avoids writing and adding matrices of the vocabulary's size for each pack: the head
        adds its tiles, the embedding the rows that a pack uses. Only for one process: DDP and
        others that average gradients need them to pass through autograd.
        """
        if self.form is not None:
            self.head_adds = _adds(head_of(self.model, self.form).weight_VH)
        embedding = self.model.get_input_embeddings()
        if type(embedding) is nn.Embedding and _adds(embedding.weight):
            embedding.register_forward_hook(_cut_off)

    def forward(self, pack: Pack) -> PolicyOutput:
        """Return the log-probs of a pack's completion tokens, and what the options add."""
        outputs_NX, routed = self._outputs(pack)
        wants_collisions = self.options.log_sum_sq_probs
        if self.form is None:
            logps_N, collisions_N = logps_of_logits(
                outputs_NX, pack.targets_N, log_sum_sq_probs=wants_collisions
            )
        else:
            logps_N, collisions_N = self._logps(outputs_NX, self.form, pack.targets_N)
        found = PolicyOutput(logps_N)
        if wants_collisions:
            found = found._replace(collisions_N=collisions_N)
        if self.options.loads:
            loads_2E = expert_load(routed, chosen=experts_per_token(self.model))
            found = found._replace(loads_2E=loads_2E)
        return found

    def run(self, work: Callable[[PreTrainedModel], Result]) -> Result:
        """Return what `work` makes of the model, whose weights are gathered if they are sharded."""
        return work(self.model)

    def _logps(
        self, hidden_NH: Tensor, form: LogitForm, targets_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        kind = hidden_NH.device.type
        if torch.is_autocast_enabled(kind):
            hidden_NH = hidden_NH.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            head = head_of(self.model, form)._replace(
                adds=self.head_adds, log_sum_sq_probs=self.options.log_sum_sq_probs
            )
            return logps_and_collisions(hidden_NH, head, targets_N)

    def _outputs(self, pack: Pack) -> tuple[Tensor, list[Tensor]]:
        """Return what predicts the completion tokens, and router logits.

        (N, H) hidden states, or (N, V) logits if the model computes them itself.
        """
        if (parts := self._parts(pack)) is not None:
            return self._in_parts(pack, parts)
        outputs_NX, routed = self._run_shared(
            pack.input_ids_T, pack.position_ids_T, pack.segments, pack.logit_index_N
        )
        return outputs_NX, list(routed)

    def _parts(self, pack: Pack) -> list[Part] | None:
        """Return the parts whose texts may share a pass; None if the whole pack may."""
        lengths = [s.prompt + length for s in pack.segments for length in s.completions]
        sides = [tuple(limit.side(length) for limit in self.limits) for length in lengths]
        if not self.shared:
            classes = sides if self.passes else range(len(sides))
            return split_texts(pack.segments, classes, passes=self.passes)
        if self.limits and (len(set(sides)) > 1 or self._is_sharded()):
            return split_pack(pack.segments, sides)
        return None

    def _in_parts(self, pack: Pack, parts: Sequence[Part]) -> tuple[Tensor, list[Tensor]]:
        """Return `_outputs` from several passes, and a prompt's router logits from its first."""
        device = pack.input_ids_T.device
        outputs: list[Tensor] = []
        routed: list[Tensor] = []
        idle = self._most_passes(len(parts), device) - len(parts)
        for part in parts:
            outputs_nX, logits = self._run_part(pack, part)
            outputs.append(outputs_nX)
            is_new = torch.from_numpy(part.is_new_RT).to(device).flatten()
            routed += [layer[is_new] for layer in logits]
        order = np.argsort(np.concatenate([part.tokens_n for part in parts]))
        outputs_NX = torch.cat(outputs)[torch.from_numpy(order).to(device)]
        for _ in range(idle):
            outputs_NX = outputs_NX + self._run_part(pack, parts[0])[0].sum() * 0.0
        return outputs_NX, routed

    def _run_part(self, pack: Pack, part: Part) -> tuple[Tensor, Sequence[Tensor]]:
        device = pack.input_ids_T.device
        places_RT = torch.from_numpy(part.places_RT).to(device)
        predicts_n = torch.from_numpy(part.predicts_n).to(device)
        ids_RT = pack.input_ids_T[places_RT.clamp(min=0)]
        if self.shared:
            position_ids_T = pack.position_ids_T[places_RT[0]]
            return self._run_shared(ids_RT[0], position_ids_T, part.segments, predicts_n)
        is_padded = bool((part.places_RT < 0).any())
        padding = {"attention_mask": (places_RT >= 0).long()} if is_padded else {}
        return self._run(predicts_n, input_ids=ids_RT, **padding)

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
        self,
        input_ids_T: Tensor,
        position_ids_T: Tensor,
        segments: Sequence[Segment],
        predicts_n: Tensor,
    ) -> tuple[Tensor, Sequence[Tensor]]:
        return self._run(
            predicts_n,
            input_ids=input_ids_T[None],
            # a mask of ones keeps transformers from inferring texts from the positions
            attention_mask=torch.ones_like(input_ids_T)[None],
            position_ids=position_ids_T[None],
            segments=segments,
            backend=self.options.backend,
        )

    def _run(self, predicts_n: Tensor, **inputs: Any) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the outputs at places of all rows, (n, X), and each layer's router logits."""
        if any(limit.grows for limit in self.limits):
            start_afresh(self.model)
        wants: dict[str, Any] = {"output_router_logits": True} if self.options.loads else {}
        if self.form is None:
            is_alone = len(inputs["input_ids"]) == 1 and takes_places(self.model)
            wants |= {"logits_to_keep": predicts_n} if is_alone else {}
            found = self.model(**inputs, **wants, use_cache=False)
            outputs_nX = found.logits.flatten(0, 1)
            outputs_nX = outputs_nX if is_alone else outputs_nX.index_select(0, predicts_n)
        else:
            found = body_of(self.model)(**inputs, **wants, use_cache=False)
            outputs_nX = found.last_hidden_state.flatten(0, 1).index_select(0, predicts_n)
        return outputs_nX, found.router_logits if self.options.loads else ()


@torch.no_grad()
def row_logps(
    policy: Policy, pairs: Pairs, rows: Sequence[int], *, precision: Precision
) -> tuple[list[RowLogps], Logps]:
    """Return the token log-probs of rows that run as one pack, and their sums, (rows, 2).

    A prompt or completion that several rows share is run once.
    """
    device, joined = device_of(policy.model), pairs.share_prompts(rows)
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


def device_of(model: PreTrainedModel) -> torch.device:
    """Return the device that runs a model; sharded weights may be on the host."""
    weight = next(model.parameters())
    if isinstance(weight, DTensor):
        return torch.device(weight.device_mesh.device_type)
    return weight.device
