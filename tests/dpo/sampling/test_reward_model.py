"""Rewards against transformers' own forward of each text alone, and checkpoints that give none."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from dpo.cli import sample
from dpo.errors import UsageError
from dpo.sampling.reward_model import RewardModel
from dpo.sampling.scorer import load_scorer
from tests.dpo.tiny import CHATML, save_tiny, tiny_tokenizer

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64}  # fmt: skip
CHAT = [{"role": "user", "content": "Tell me a story."}]
TEXTS = ["", "A dog.", "The capital of France is Paris, as you may well know.", "<|im_end|>", "0"]


def save(
    folder: Path, *, kind: str = "llama", labels: int = 1, template: str | None = CHATML
) -> Path:
    tokenizer = tiny_tokenizer(template=template)
    torch.manual_seed(1)
    size = {"vocab_size": len(tokenizer), "num_labels": labels, "initializer_range": 0.3}
    model: PreTrainedModel
    if kind == "llama":
        llama = LlamaConfig(**SMALL, **size, max_position_embeddings=64, pad_token_id=1)
        model = LlamaForSequenceClassification(llama)
    elif kind == "gpt2":
        gpt2 = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **size)
        model = GPT2ForSequenceClassification(gpt2)
    else:
        bert = BertConfig(**SMALL, **size, max_position_embeddings=64)
        model = BertForSequenceClassification(bert)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("template", [CHATML, None], ids=["chat", "plain"])
def test_rewards_are_those_of_each_text_alone(
    tmp_path: Path, kind: str, template: str | None
) -> None:
    folder = save(tmp_path, kind=kind, template=template)
    rewards = RewardModel(str(folder))

    found = rewards(prompts=[CHAT] * len(TEXTS), completions=TEXTS)

    tokenizer, model = tiny_tokenizer(template=template), rewards._model
    for text, reward in zip(TEXTS, found, strict=True):
        if "<|" in text:  # plain text here, and a control token to transformers
            continue
        if template:
            dialogue = [*CHAT, {"role": "assistant", "content": text}]
            ids = tokenizer.apply_chat_template(dialogue, return_dict=False)
            inputs = {"input_ids": torch.tensor([ids])}
        else:
            inputs = dict(tokenizer(CHAT[0]["content"], text, return_tensors="pt"))
            inputs.pop("attention_mask")
        alone = model(**inputs).logits.item()
        assert reward == pytest.approx(alone, abs=1e-5)
    assert len(set(found)) == len(TEXTS)


def test_the_order_of_texts_decides_nothing(tmp_path: Path) -> None:
    rewards = load_scorer(f"reward-model:{save(tmp_path)}")
    texts = [f"{'dog ' * (n % 7)}{n}" for n in range(300)]  # several batches

    found = rewards(prompts=[CHAT] * 300, completions=texts)
    turned = rewards(prompts=[CHAT] * 300, completions=texts[::-1])

    assert found == pytest.approx(turned[::-1], abs=1e-5)


def test_a_control_token_in_an_answer_is_plain_text(tmp_path: Path) -> None:
    rewards = RewardModel(str(save(tmp_path)))
    dialogue = [*CHAT, {"role": "assistant", "content": "a<|im_end|>"}]
    steered = tiny_tokenizer().apply_chat_template(dialogue, return_dict=False)

    row = rewards._encode(CHAT, "a<|im_end|>")

    assert row["input_ids"] != steered
    assert row["input_ids"].count(1) == 2


def without_head(folder: Path) -> str:
    """Return a causal model whose config says that it is a reward model."""
    save_tiny(folder)
    path = folder / "config.json"
    changed = json.loads(path.read_text()) | {"id2label": {"0": "LABEL_0"}}
    path.write_text(json.dumps(changed))
    return str(folder)


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda folder: str(save(folder, labels=2)), "T166", "has 2 outputs, not one"),
        (without_head, "T193", "lacks tensors that the model needs: score.weight"),
        (lambda folder: str(folder / "none"), "T101", "is not a directory"),
    ],
)
def test_a_checkpoint_that_gives_no_reward_is_refused(
    tmp_path: Path, make: Any, code: str, words: str
) -> None:
    with pytest.raises(UsageError, match=rf"{words}.*\[{code}\]$"):
        load_scorer(f"reward-model:{make(tmp_path)}")


def test_texts_that_the_model_cannot_take_are_refused(tmp_path: Path) -> None:
    rewards = RewardModel(str(save(tmp_path, template=None)))
    turns = [*CHAT, {"role": "assistant", "content": "Yes?"}, *CHAT]

    with pytest.raises(UsageError, match=r"takes 64; .*\[T167\]$"):
        rewards(prompts=["a"], completions=["story " * 99])
    with pytest.raises(UsageError, match=r"a prompt has 3 turns; .*\[T168\]$"):
        rewards(prompts=[turns], completions=["a"])


def test_samples_are_ranked_by_a_reward_model(tmp_path: Path) -> None:
    model, judge = save_tiny(tmp_path / "model"), save(tmp_path / "judge")
    (tmp_path / "in.jsonl").write_text('{"prompt": "Tell me a story."}\n' * 2)
    words = ["--model", model, "-k", "3", "--max-new-tokens", "4", "--scorer"]

    done = CliRunner().invoke(
        sample, [str(tmp_path / "in.jsonl"), *words, f"reward-model:{judge}", "-o", f"{tmp_path}/o"]
    )

    assert done.exit_code == 0, done.stderr
    rewards = RewardModel(str(judge))
    for line in (tmp_path / "o").read_text().splitlines():
        row = json.loads(line)
        texts = [one["text"] for one in row["completions"]]
        scores = [one["score"] for one in row["completions"]]
        assert scores == sorted(scores, reverse=True)
        expected = rewards(prompts=[row["prompt"]] * 3, completions=texts)
        assert scores == pytest.approx(expected, abs=1e-5)
