"""Sampled continuations of a batch of prompts, with their log-probs.

The draw of a token is a pure function of (distribution, uniform number), and the uniforms of a
completion of (seed, prompt row, k). So a completion does not depend on the rest of its batch,
except through rounding in the model's matmuls: in float32 that changes a token about once in ten
thousand tokens, in bfloat16 far more often.

Letters in shapes: B prompts, R = B·K rows, V vocabulary, T positions.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from dpo.sampling.draw import Sampling, draw
from dpo.sampling.readers import Cached, MakeReader, Reader


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
        tokens_R, logps_R = draw(read.logits_RV.to(exact), rows.uniforms_RT[:, place], sampling)
        rows.record(tokens_R, logps_R)
        alive_R = ~torch.isin(tokens_R, stop_ids)
        if place + 1 == sampling.max_new_tokens or not bool(alive_R.any()):
            break
        rows.step(tokens_R, alive_R)
    return rows.result(stop)


class _Rows:
    """Unfinished rows of a batch, and the tokens of all."""

    def __init__(self, reader: Reader, prompts: Sequence[Prompt]) -> None:
        self.reader, self.k = reader, len(prompts[0].uniforms)
        self.device = reader.logits_RV.device
        self.rows: NDArray[np.int64] = np.arange(len(prompts) * self.k)
        self.uniforms_RT = torch.from_numpy(np.concatenate([p.uniforms for p in prompts]))
        self.uniforms_RT = self.uniforms_RT.to(self.device)
        reader.select(torch.arange(len(prompts), device=self.device).repeat_interleave(self.k))
        self.tokens: list[list[int]] = [[] for _ in self.rows]
        self.logps: list[list[float]] = [[] for _ in self.rows]

    def record(self, tokens_R: Tensor, logps_R: Tensor) -> None:
        """Append a token to every unfinished row."""
        for row, token, logp in zip(self.rows, tokens_R.tolist(), logps_R.tolist(), strict=True):
            self.tokens[row].append(token)
            self.logps[row].append(logp)

    def step(self, tokens_R: Tensor, alive_R: Tensor) -> None:
        """Run the new tokens of the rows that are alive; the last of them fill the gaps."""
        num_alive = int(alive_R.sum())
        if num_alive < len(self.rows):
            # alive 1 0 1 0 1 gives rows 0 4 2, of which only 4 moves
            index_R = torch.arange(num_alive, device=self.device)
            index_R[~alive_R[:num_alive]] = num_alive + alive_R[num_alive:].nonzero()[:, 0]
            self.rows = self.rows[index_R.cpu().numpy()]
            tokens_R, self.uniforms_RT = tokens_R[index_R], self.uniforms_RT[index_R]
            self.reader.select(index_R)
        self.reader.step(tokens_R)

    def result(self, stop: frozenset[int]) -> list[list[Sampled]]:
        done = [
            Sampled(ids, sum(logps), ids[-1] in stop)
            for ids, logps in zip(self.tokens, self.logps, strict=True)
        ]
        return [done[first : first + self.k] for first in range(0, len(done), self.k)]
