"""The shipped configs of the paper's tasks have the settings of its appendix B."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from dpo import encode_prompts, load_tokenizer
from dpo.config import LossConfig
from dpo.config_file import read_config
from dpo.training.optimizer import learning_rate
from prefdata.building import build
from prefdata.config import BuildConfig
from tests.dpo.tiny import tiny_tokenizer

PAPER = Path(__file__).resolve().parents[2] / "pipelines" / "paper"


class Settings(NamedTuple):
    """Settings that appendix B of https://arxiv.org/abs/2305.18290 states."""

    beta: float = 0.1
    batch: int = 64
    optimizer: str = "rmsprop"
    peak: float = 1e-6
    warmup: int = 150


APPENDIX_B = {"sentiment": Settings(), "tldr": Settings(beta=0.5), "dialogue": Settings()}


@pytest.mark.parametrize("task", APPENDIX_B)
def test_a_config_has_the_settings_of_appendix_b(task: str) -> None:
    paper = APPENDIX_B[task]

    config = read_config(PAPER / task / "train.yaml")

    assert config.loss == (LossConfig(name="dpo", beta=paper.beta),)
    assert (config.global_batch_size, config.batch_unit) == (paper.batch, "pairs")
    assert config.optimizer.name == paper.optimizer
    rates = [
        learning_rate(step, total=10_000, config=config.optimizer)
        for step in (1, 75, 150, 151, 10_000)
    ]
    assert rates == pytest.approx(
        [paper.peak / paper.warmup, paper.peak / 2, paper.peak, paper.peak, paper.peak]
    )
    assert config.optimizer.weight_decay == 0
    assert (config.ld_alpha, config.sampo, config.wpo, config.lora) == (None, False, False, None)


def test_every_config_of_a_task_is_compared() -> None:
    assert {path.parent.name for path in PAPER.glob("*/train.yaml")} == set(APPENDIX_B)


COMPARISON = {
    "info": {"id": "1", "post": "It rained.", "title": "Rain", "subreddit": "x", "article": None},
    "summaries": [{"text": "Sun.", "policy": "a"}, {"text": "a dog.", "policy": "b"}],
    "choice": 1,
}
BUILDS = {
    "dialogue": (
        [
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant: a dog.",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant: No.",
            }
        ],
        "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant:| a dog.<|im_end|>",
    ),
    "tldr": ([COMPARISON], "POST: It rained.\n\nTL;DR:| a dog.<|im_end|>"),
}


ASKED = {
    "dialogue": [
        {"role": role, "content": text}
        for role, text in (("user", "Hi"), ("assistant", "Yes?"), ("user", "Who?"))
    ],
    "tldr": [{"role": "user", "content": "It rained."}],
}


@pytest.mark.parametrize("task", BUILDS)
def test_a_build_writes_texts_as_the_tasks_model_reads_them(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, text = BUILDS[task]
    tokenizer = tiny_tokenizer(template=None)
    tokenizer.save_pretrained(tmp_path / "model")
    template = {"tldr": "post.jinja", "dialogue": "transcript.jinja"}[task]
    shutil.copyfile(PAPER / task / template, tmp_path / "model" / "chat_template.jinja")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = yaml.safe_load((PAPER / task / "build.yaml").read_text("utf-8"))
    changes = {
        "inputs": [str(tmp_path / "rows.jsonl")], "tokenizer": str(tmp_path / "model"),
        "out": str(tmp_path / "data"), "test_fraction": 0.0,
    }  # fmt: skip
    monkeypatch.chdir(PAPER.parents[1])

    (row,) = build(BuildConfig.model_validate(config | changes)).tokens("train").to_pylist()

    prompt, chosen = (tokenizer.decode(row[f"{part}_ids"]) for part in ("prompt", "chosen"))
    assert f"{prompt}|{chosen}" == text
    sampled = encode_prompts([ASKED[task]], load_tokenizer(str(tmp_path / "model")))
    assert sampled == [row["prompt_ids"]]  # " a" is one token: a prompt must not end in a space


def test_the_commands_of_the_page_are_runs() -> None:
    page = (PAPER / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [line.split() for line in re.findall(r"^dpo-train (.*)$", page, re.MULTILINE)]

    losses = [
        read_config(PAPER.parents[1] / path, overrides).loss[0].name
        for path, *overrides in commands
    ]
    assert losses == ["sft", "dpo", "dpo", "unlikelihood"]
