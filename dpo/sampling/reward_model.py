"""A reward model as a scorer: a checkpoint for sequence classification with one output.

    score = RewardModel("org/reward-model")
    score(prompts=["What is 2 + 2?"], completions=["4."])

A conversation and its answer are rendered with the model's own chat template. Without a template,
and for verbatim text, the tokenizer gets prompt and completion as its two texts.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from dpo.errors import UsageError
from dpo.model.load import best_device, load_reward_model
from dpo.model.tokenizer import Messages, encode_prompt, load_tokenizer, prompt_encoder

_BATCH_TOKENS = {"cpu": 4096}
_ELSEWHERE = 32768  # tokens of a batch, with padding
Columns = dict[str, list[int]]


class RewardModel:
    """A loaded reward model; higher rewards are better."""

    def __init__(self, name: str, device: torch.device | None = None) -> None:
        self.name, self._device = name, device or best_device()
        self._model = load_reward_model(name, self._device)
        self._tokenizer = load_tokenizer(name)
        self._encoder = prompt_encoder(self._tokenizer)
        self._pad = self._model.config.get_text_config().pad_token_id
        self._most = getattr(self._model.config, "max_position_embeddings", None)

    def __call__(
        self, *, prompts: Sequence[str | Messages], completions: Sequence[str]
    ) -> list[float]:
        """Return the reward of each completion, in batches of similar length."""
        rows = [self._encode(*pair) for pair in zip(prompts, completions, strict=True)]
        rewards = [0.0] * len(rows)
        for places in self._batches([len(row["input_ids"]) for row in rows]):
            found = self._rewards([rows[place] for place in places])
            for place, reward in zip(places, found, strict=True):
                rewards[place] = reward
        return rewards

    def _encode(self, prompt: str | Messages, completion: str) -> Columns:
        has_template = bool(self._encoder.target.templates)
        if isinstance(prompt, list) and has_template:
            dialogue = [*prompt, {"role": "assistant", "content": completion}]
            ids = encode_prompt(dialogue, self._encoder, self.name, is_answered=True)
            row = {"input_ids": ids}
        else:
            plain = self._plain(prompt)
            row = dict(self._tokenizer(plain, completion, split_special_tokens=True))
            row.pop("attention_mask", None)
        if self._most is not None and len(row["input_ids"]) > self._most:
            problem = f"a prompt and its completion have {len(row['input_ids']):,} tokens"
            problem += f", and the model takes {self._most:,}"
            raise UsageError("T167", self.name, problem, "leave such rows out, or name another")
        return row

    def _plain(self, prompt: str | Messages) -> str:
        """Return a prompt for a model without a template, which knows no turns."""
        if isinstance(prompt, str):
            return prompt
        if len(prompt) == 1:
            return str(prompt[0]["content"])
        problem = f"has no chat template, and a prompt has {len(prompt)} turns"
        raise UsageError("T168", self.name, problem, "name a reward model that has a template")

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield the indices of each batch; one at a time without a padding token.

        Which position holds the reward depends on the checkpoint's padding token, so none is
        chosen for it here.
        """
        most = 1 if self._pad is None else _BATCH_TOKENS.get(self._device.type, _ELSEWHERE)
        batch: list[int] = []
        for place in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and (len(batch) + 1) * lengths[place] > most:
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    @torch.inference_mode()
    def _rewards(self, rows: Sequence[Columns]) -> list[float]:
        inputs: dict[str, Any] = {
            name: pad_sequence(
                [torch.tensor(row[name]) for row in rows],
                batch_first=True,
                padding_value=(self._pad or 0) if name == "input_ids" else 0,
            )
            for name in rows[0]
        }
        ones = [torch.ones(len(row["input_ids"]), dtype=torch.long) for row in rows]
        inputs["attention_mask"] = pad_sequence(ones, batch_first=True)
        inputs = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        logits = self._model(**inputs).logits.float()
        return logits.squeeze(-1).tolist()  # type: ignore[no-any-return]
