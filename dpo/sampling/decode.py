"""Sampled continuations of a batch of prompts, with their log-probs.

The draw of a token is a pure function of (distribution, uniform number), and the uniforms of a
completion of (seed, prompt row, k). So a completion does not depend on the rest of its batch,
except through rounding in the model's matmuls: in float32 that changes a token about once in ten
thousand tokens, in bfloat16 far more often.

Letters in shapes: B prompts, R = B·K rows, V vocabulary, T positions.
"""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from dpo.model.length_limits import start_afresh

NUCLEUS = 256  # tokens looked at first for top-p; the whole vocabulary if they do not suffice
KEEP = 0.75  # finished rows leave the batch when at most this share is unfinished


class Sampling(NamedTuple):
    """Settings of the draw of a token."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64


class Sampled(NamedTuple):
    """One completion by the model; `ids` include the end token if it was drawn."""

    ids: list[int]
    logp: float
    """Sum of the log-probs at temperature 1, over the whole vocabulary, in nats."""
    ended: bool


class Prompt(NamedTuple):
    """Token ids of one prompt, and the uniforms of its K completions: (K, max_new_tokens)."""

    ids: list[int]
    uniforms: NDArray[np.float64]


def uniforms(seed: int, row: int, k: int, count: int) -> NDArray[np.float64]:
    """Return random numbers in [0, 1) for `k` completions of prompt row `row`, (k, count)."""
    digests = [hashlib.sha256(f"{seed} {row} {n}".encode()).digest()[:16] for n in range(k)]
    streams = [np.random.Philox(key=int.from_bytes(digest, "little")) for digest in digests]
    return np.stack([np.random.Generator(stream).random(count) for stream in streams])


class Reader(Protocol):
    """Model over texts that grow by one token at a time; one row per text."""

    logits_RV: Tensor
    """Logits of the next token of every row."""

    def select(self, index_R: Tensor) -> None:
        """Keep these rows, in this order; a row can be repeated."""

    def step(self, tokens_R: Tensor) -> None:
        """Append a token to every row, and run the model."""


MakeReader = Callable[[PreTrainedModel, Sequence[list[int]], int], Reader]
"""Takes the model, texts, and how many tokens they will grow by."""


@torch.inference_mode()
def sample_batch(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    stop: frozenset[int],
    reader: MakeReader | None = None,
) -> list[list[Sampled]]:
    """Return K completions of each prompt; the prompt is run once for all of its K.

    Uses the model's cache, unless another `reader` is given (`Recomputed`).
    """
    read = (reader or Cached)(model, [prompt.ids for prompt in prompts], sampling.max_new_tokens)
    rows = _Rows(read, prompts)
    stop_ids = torch.tensor(sorted(stop), dtype=torch.long, device=model.device)
    exact = torch.promote_types(model.dtype, torch.float32)
    for place in range(sampling.max_new_tokens):
        logps_RV = read.logits_RV.to(exact).log_softmax(-1)
        tokens_R = draw(logps_RV, rows.uniforms_RT[:, place], sampling)
        rows.record(tokens_R, logps_RV.gather(1, tokens_R[:, None])[:, 0])
        rows.alive_R &= ~torch.isin(tokens_R, stop_ids)
        if not bool(rows.alive_R.any()) or place + 1 == sampling.max_new_tokens:
            break
        rows.step(tokens_R)
    return rows.result(stop)


class _Rows:
    """Rows of a batch while they grow: their tokens, and which are unfinished."""

    def __init__(self, reader: Reader, prompts: Sequence[Prompt]) -> None:
        self.reader, self.k = reader, len(prompts[0].uniforms)
        device = reader.logits_RV.device
        self.rows: NDArray[np.int64] = np.arange(len(prompts) * self.k)
        self.uniforms_RT = torch.from_numpy(np.concatenate([p.uniforms for p in prompts]))
        self.uniforms_RT = self.uniforms_RT.to(device)
        self.alive_R = torch.ones(len(self.rows), dtype=torch.bool, device=device)
        reader.select(torch.arange(len(prompts), device=device).repeat_interleave(self.k))
        self.tokens: list[list[int]] = [[] for _ in self.rows]
        self.logps: list[list[float]] = [[] for _ in self.rows]

    def record(self, tokens_R: Tensor, logps_R: Tensor) -> None:
        """Append a token to every unfinished row."""
        found = zip(
            self.rows, tokens_R.tolist(), logps_R.tolist(), self.alive_R.tolist(), strict=True
        )
        for row, token, logp, alive in found:
            if alive:
                self.tokens[row].append(token)
                self.logps[row].append(logp)

    def step(self, tokens_R: Tensor) -> None:
        """Run the new tokens; drop finished rows first when that is worth a copy."""
        if int(self.alive_R.sum()) <= KEEP * len(self.rows):
            alive = self.alive_R.nonzero()[:, 0]
            tokens_R = tokens_R[alive]
            self.rows = self.rows[alive.cpu().numpy()]
            self.uniforms_RT, self.alive_R = self.uniforms_RT[alive], self.alive_R[alive]
            self.reader.select(alive)
        self.reader.step(tokens_R)

    def result(self, stop: frozenset[int]) -> list[list[Sampled]]:
        done = [
            Sampled(ids, sum(logps), ids[-1] in stop)
            for ids, logps in zip(self.tokens, self.logps, strict=True)
        ]
        return [done[first : first + self.k] for first in range(0, len(done), self.k)]


class Cached:
    """Left-padded rows, and the model's cache of all tokens so far."""

    def __init__(self, model: PreTrainedModel, texts: Sequence[list[int]], room: int) -> None:
        self.model = model
        ids_RT, mask_RT = _pad_left(texts, room)
        device, self.length = model.device, ids_RT.shape[1]
        self.mask_RT = mask_RT.to(device)
        self.cache = DynamicCache(config=model.config)
        positions_RT = (self.mask_RT[:, : self.length].cumsum(-1) - 1).clamp(min=0)
        self.positions_R = positions_RT[:, -1]
        self.logits_RV = self._forward(ids_RT.to(device), positions_RT)

    def select(self, index_R: Tensor) -> None:
        self.cache.reorder_cache(cast(torch.LongTensor, index_R))
        self.mask_RT, self.positions_R = self.mask_RT[index_R], self.positions_R[index_R]
        self.logits_RV = self.logits_RV[index_R]

    def step(self, tokens_R: Tensor) -> None:
        self.length += 1
        self.positions_R = self.positions_R + 1
        self.logits_RV = self._forward(tokens_R[:, None], self.positions_R[:, None])

    def _forward(self, ids_RT: Tensor, positions_RT: Tensor) -> Tensor:
        """Return the logits of the last position, (R, V)."""
        model: Any = self.model
        logits: Tensor = model(
            input_ids=ids_RT,
            attention_mask=self.mask_RT[:, : self.length],
            position_ids=positions_RT,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]


class Recomputed:
    """Texts that are run whole for every token, without a cache and without padding.

    For models whose cache does not give the log-probs of a plain pass. A step costs a forward
    pass over the whole text so far. Texts of the same length form a batch.
    """

    def __init__(self, model: PreTrainedModel, texts: Sequence[list[int]], _room: int) -> None:
        self.model = model
        self.texts = [torch.tensor(text, device=model.device) for text in texts]
        self.logits_RV = self._forward()

    def select(self, index_R: Tensor) -> None:
        self.texts = [self.texts[place] for place in index_R.tolist()]
        self.logits_RV = self.logits_RV[index_R]

    def step(self, tokens_R: Tensor) -> None:
        grown = zip(self.texts, tokens_R[:, None], strict=True)
        self.texts = [torch.cat((text, token)) for text, token in grown]
        self.logits_RV = self._forward()

    def _forward(self) -> Tensor:
        """Return the logits of the last position of every text, (R, V)."""
        places: dict[int, list[int]] = {}
        for place, text in enumerate(self.texts):
            places.setdefault(len(text), []).append(place)
        found = [
            last_logits(self.model, torch.stack([self.texts[place] for place in some]), keep=1)
            for some in places.values()
        ]
        order = np.argsort([place for some in places.values() for place in some])
        return torch.cat(found)[torch.from_numpy(order).to(found[0].device)][:, -1]


def last_logits(model: PreTrainedModel, ids_RT: Tensor, *, keep: int) -> Tensor:
    """Return the logits of the last positions of whole texts by a plain pass, (R, keep, V)."""
    start_afresh(model)
    options: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = keep
    logits: Tensor = model(input_ids=ids_RT, use_cache=False, **options).logits
    return logits[:, -keep:]


def draw(logps_RV: Tensor, uniforms_R: Tensor, sampling: Sampling) -> Tensor:
    """Return one token of each row, (R,): the inverse CDF at the uniform.

    Tokens keep the vocabulary's order, so that rounding cannot swap two tokens of nearly the same
    probability.
    """
    if sampling.temperature == 0:
        return logps_RV.argmax(-1)
    probs_RV = logps_RV.exp()
    if sampling.temperature != 1:
        probs_RV = (logps_RV / sampling.temperature).softmax(-1)
    if sampling.top_p == 1:
        return _invert(probs_RV, uniforms_R)
    best_RN, ids_RN = probs_RV.topk(min(NUCLEUS, probs_RV.shape[-1]))
    if bool((best_RN.sum(-1) < sampling.top_p).any()):
        best_RN, ids_RN = probs_RV.sort(-1, descending=True)
    # the nucleus: the smallest set of the likeliest tokens whose mass reaches top_p
    mass_before = best_RN.cumsum(-1, dtype=torch.float64) - best_RN
    best_RN = best_RN.masked_fill(mass_before >= sampling.top_p, 0)
    ids_RN, order = ids_RN.sort(-1)
    return ids_RN.gather(1, _invert(best_RN.gather(1, order), uniforms_R)[:, None])[:, 0]


def _invert(weights_RN: Tensor, uniforms_R: Tensor) -> Tensor:
    """Return the first index whose cumulative weight exceeds the uniform's share of the total."""
    sums_RN = weights_RN.cumsum(-1, dtype=torch.float64)
    targets_R1 = uniforms_R[:, None] * sums_RN[:, -1:]
    places_R = torch.searchsorted(sums_RN, targets_R1, right=True)[:, 0]
    return places_R.clamp(max=weights_RN.shape[-1] - 1)


def _pad_left(rows: Sequence[list[int]], room: int) -> tuple[Tensor, Tensor]:
    """Return left-padded ids (B, T), and their mask (B, T + room), with ones in the room."""
    length = max(map(len, rows))
    ids_BT = torch.zeros(len(rows), length, dtype=torch.long)
    mask_BT = torch.ones(len(rows), length + room, dtype=torch.long)
    for place, row in enumerate(rows):
        ids_BT[place, length - len(row) :] = torch.tensor(row)
        mask_BT[place, : length - len(row)] = 0
    return ids_BT, mask_BT
