"""RLOO of TRL on the ground-truth scorer: the counterpart of the paper's PPO-GT.

    python -m pipelines.paper.sentiment.rloo --settings settings.yaml --beta 0.05 --seed 0 --out DIR

`RLOOTrainer` is REINFORCE with the other completions' mean as baseline
(https://arxiv.org/abs/2402.14740) and a KL penalty. Its settings are TRL's, except for the sizes of
this experiment, the learning rate (TRL's 1e-6 changes nothing in so few steps) and no dropout.
"""

import argparse
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.paper.sentiment.data import read_rows
from pipelines.paper.sentiment.settings import Settings, find_scorer, read


def train(settings: Settings, *, beta: float, seed: int, out: Path) -> None:
    """Train as many steps as the other methods, with as many completions as they have sides."""
    from trl import RLOOConfig, RLOOTrainer

    scorer = find_scorer(settings.scorer)

    def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        return list(scorer(prompts=prompts, completions=completions))

    start = str(settings.out / "sft" / "model")
    rows = [{"prompt": row["prompt"]} for row in read_rows(settings.out / "prompts.jsonl")]
    config = RLOOConfig(
        output_dir=str(out / "trl"), seed=seed, beta=beta, max_steps=max(settings.points),
        num_generations=settings.k, per_device_train_batch_size=2 * settings.pairs_per_step,
        max_completion_length=settings.max_new_tokens,
        learning_rate=settings.rloo_learning_rate, lr_scheduler_type="constant",
        save_strategy="no", report_to=[], logging_steps=1, use_cpu=not torch.cuda.is_available(),
        bf16=False, gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = RLOOTrainer(
        model=AutoModelForCausalLM.from_pretrained(start),
        reward_funcs=reward,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(start, padding_side="left"),
    )
    trainer.train()
    trainer.save_model(str(out / "model"))
    AutoTokenizer.from_pretrained(start).save_pretrained(out / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--beta", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    train(read(args.settings), beta=args.beta, seed=args.seed, out=args.out)


if __name__ == "__main__":
    main()
