"""PPO of TRL 1.12 against a reward model that is fitted on the pairs of DPO: the paper's PPO.

    python -m pipelines.paper.sentiment.ppo --settings settings.yaml --beta 0.05 --seed 0 --out DIR

TRL 1.12 is the last that has PPO: `make ppo` installs it into a directory of its own, since RLOO
uses a later one. The settings of both trainers are TRL's, except for the sizes of this experiment,
PPO's learning rate, temperature 1, at which policies are evaluated, and float32.
"""

import argparse
import sys
from copy import deepcopy
from itertools import cycle, islice
from math import gcd
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    set_seed,
)

import prefdata
from dpo import encode_prompts
from pipelines.paper.sentiment.data import read_rows
from pipelines.paper.sentiment.peers import PPO_LIBRARY
from pipelines.paper.sentiment.settings import Settings, read

MICRO_BATCH = 8
"""Completions of a forward and backward pass; 32 would take several GB more."""


def load_tokenizer(start: str) -> Any:
    """Return the tokenizer with a token that only pads.

    TRL masks padding by its id: an end of sequence that also pads would get neither reward nor
    gradient.
    """
    tokenizer = AutoTokenizer.from_pretrained(start, padding_side="left")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    return tokenizer


def fit_reward_model(settings: Settings, tokenizer: Any, *, seed: int, out: Path) -> Any:
    """Return the reference with a head for rewards, fitted on as many pairs as DPO gets."""
    from trl import RewardConfig, RewardTrainer

    set_seed(seed)  # of the head's first weights
    start = settings.out / "sft" / "model"
    model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=1)
    size = max(len(tokenizer), model.config.vocab_size)
    model.resize_token_embeddings(size, mean_resizing=False)  # padding is masked, but looked up
    found = prefdata.open(settings.out / "data").tokens("train")
    rows = [
        {side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")}
        for row in found.select(["prompt_ids", "chosen_ids", "rejected_ids"]).to_pylist()
    ]
    config = RewardConfig(
        output_dir=str(out / "reward"), seed=seed, max_steps=max(settings.points),
        per_device_train_batch_size=settings.pairs_per_step, **_plain(),
    )  # fmt: skip
    trainer = RewardTrainer(
        model=model, args=config, train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return model


def train(settings: Settings, *, beta: float, seed: int, out: Path) -> None:
    """Train on batches of as many completions as the other methods have sides in a step."""
    sys.path.insert(0, str(PPO_LIBRARY))  # before a TRL of the environment, which has no PPO
    # oneDNN in MKL's place: on an EPYC with AVX-512 222 GFLOP/s a core, not 102, still float32
    torch.set_float32_matmul_precision("medium")
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    start = str(settings.out / "sft" / "model")
    tokenizer = load_tokenizer(start)
    reward = fit_reward_model(settings, tokenizer, seed=seed, out=out)
    size = 2 * settings.pairs_per_step
    total = size * settings.ppo_batches
    prompts = [row["prompt"] for row in read_rows(settings.out / "prompts.jsonl")]
    ids = encode_prompts(prompts, tokenizer, raw=True)
    # more than all batches need: the last batch of a pass has an optimizer step per micro-batch
    rows = [{"input_ids": list(one)} for one in islice(cycle(ids), total + size)]
    micro = gcd(size, MICRO_BATCH)
    config = PPOConfig(
        output_dir=str(out / "trl"), seed=seed, kl_coef=beta,
        learning_rate=settings.ppo_learning_rate, temperature=1.0, stop_token="eos",
        response_length=settings.max_new_tokens, total_episodes=total,
        local_rollout_forward_batch_size=size, per_device_train_batch_size=micro,
        gradient_accumulation_steps=size // micro, **_plain(),
    )  # fmt: skip
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(start), ref_model=None,
        reward_model=reward, value_model=deepcopy(reward),
        train_dataset=datasets.Dataset.from_list(rows),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(out / "model"))
    AutoTokenizer.from_pretrained(start).save_pretrained(out / "model")


def _plain() -> dict[str, Any]:
    """Return what both trainers have in common."""
    return {
        "save_strategy": "no", "report_to": [], "logging_steps": 1, "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(), "bf16": False, "gradient_checkpointing": False,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--beta", type=float, required=True, help="coefficient of the KL penalty")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    train(read(args.settings), beta=args.beta, seed=args.seed, out=args.out)


if __name__ == "__main__":
    main()
