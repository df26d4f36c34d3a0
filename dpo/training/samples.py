"""Completions of fixed prompts by the live policy, drawn at each evaluation."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel

from dpo.config import TrainConfig
from dpo.data.pairs import Pairs
from dpo.errors import UsageError
from dpo.model.policy import Policy
from dpo.model.tokenizer import load_tokenizer, stop_ids
from dpo.sampling.cache_check import choose_reader
from dpo.sampling.decode import Prompt, sample_batch, uniforms
from dpo.sampling.draw import Sampling
from dpo.sampling.readers import MakeReader
from dpo.saving_config import SampleSettings
from dpo.training.distributed import is_sharded

BATCH = 32
"""Prompts decoded at once."""


class Sampler:
    """The first distinct prompts of a split, and how their completions are drawn."""

    def __init__(
        self, config: TrainConfig, settings: SampleSettings, prompts: list[tuple[str, list[int]]]
    ) -> None:
        self.pair_ids = [pair_id for pair_id, _ in prompts]
        self.tokenizer = load_tokenizer(config.model)
        self.sampling = Sampling(
            settings.temperature, settings.top_p, max_new_tokens=settings.max_new_tokens
        )
        self.prompts = [
            Prompt(ids, uniforms(config.seed, row, 1, settings.max_new_tokens))
            for row, (_, ids) in enumerate(prompts)
        ]
        self._reader: MakeReader | None = None

    def choose_reader(self, model: PreTrainedModel) -> None:
        """Choose how a model's states are kept, in the precision of its weights."""
        texts = [prompt.ids for prompt in self.prompts]
        self._reader, _ = choose_reader(model, texts, self.sampling)

    def draw(
        self, model: PreTrainedModel, autocast: AbstractContextManager[Any]
    ) -> list[dict[str, Any]]:
        """Return one completion of each prompt; the policy is in eval mode, unshared."""
        if self._reader is None:
            self.choose_reader(model)
        assert self._reader is not None
        stop = stop_ids(model, self.tokenizer)
        drawn = []
        with autocast, torch.no_grad():
            for at in range(0, len(self.prompts), BATCH):
                some = self.prompts[at : at + BATCH]
                drawn += sample_batch(model, some, self.sampling, stop, self._reader)
        decode = self.tokenizer.decode
        return [
            {
                "pair_id": pair_id,
                "prompt": decode(prompt.ids, skip_special_tokens=False),
                "completion": decode(one.ids, skip_special_tokens=True),
                "tokens": len(one.ids),
                "ended": one.ended,
                "logp": float(f"{one.logp:.8g}"),
            }
            for pair_id, prompt, (one,) in zip(self.pair_ids, self.prompts, drawn, strict=True)
        ]


def open_sampler(config: TrainConfig, pairs: Pairs, policy: Policy) -> Sampler | None:
    """Return the sampler of a run, or None if it is not asked for.

    Takes the policy as it was checked: in training, sharded weights are gathered as autocast casts.

    Raises UsageError (T148) for a prompt that leaves too few positions.
    """
    settings = config.eval_samples
    if settings is None:
        return None
    prompts = list(_first_prompts(pairs, settings.prompts))
    limit = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
    for pair_id, ids in prompts:
        if isinstance(limit, int) and len(ids) + settings.max_new_tokens > limit:
            problem = f"{len(ids):,} tokens of prompt and {settings.max_new_tokens:,} new ones"
            problem += f" do not fit the model's {limit:,}"
            remedy = "lower eval_samples.max_new_tokens"
            raise UsageError("T148", f"eval_samples, pair {pair_id[:12]}", problem, remedy)
    sampler = Sampler(config, settings, prompts)
    if is_sharded(policy):
        with policy.unshared():
            policy.run(sampler.choose_reader)
    return sampler


def _first_prompts(pairs: Pairs, count: int) -> Iterator[tuple[str, list[int]]]:
    """Yield the first `count` distinct prompts, each with the id of its first pair."""
    seen: set[bytes] = set()
    for row in range(len(pairs)):
        if len(seen) == count:
            return
        ids = pairs[row].prompt
        if ids.tobytes() not in seen:
            seen.add(ids.tobytes())
            yield pairs.pair_id(row), ids.tolist()
