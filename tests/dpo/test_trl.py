"""TRL's own trainer on our shards and reference log-probs: its losses equal ours."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import prefdata
from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.reference_pass import compute_reference
from dpo.trl import LOGPS, TOKENS, FromShards, trl_dataset
from prefdata.config import BuildConfig
from tests.dpo.conftest import Arena, open_alone
from tests.dpo.training.test_gradients import lines

ConfigOf = Callable[..., TrainConfig]


def test_a_split_has_the_tokens_and_log_probs_of_its_shards(arena: Arena) -> None:
    from dpo.data.reference_store import open_reference

    build = prefdata.open(arena.data)
    tokens = [row for shard in build.shards("train") for row in shard.read().to_pylist()]
    tables = open_reference(build, "default").tables("train")
    logps = [row for table in tables for row in table.to_pylist()]

    found = trl_dataset(arena.data).to_list()

    assert found == [
        {name: row[name] for name in TOKENS} | {name: of[name] for name in LOGPS}
        for row, of in zip(tokens, logps, strict=True)
    ]


@pytest.mark.filterwarnings("ignore")
def test_trl_starts_from_them_and_has_our_losses(
    arena: Arena, config_of: ConfigOf, tmp_path: Path
) -> None:
    trl = pytest.importorskip("trl", reason="TRL is not installed (extra `bench`)")
    from transformers import AutoTokenizer

    from dpo.training.loop import train

    class Trainer(FromShards, trl.DPOTrainer):
        pass

    config = config_of(steps=3, global_batch_size=4, seed=0, eval_split=None)
    ours = [line["loss"] for line in lines(train(config).out) if "loss" in line]

    order = open_alone(config).order
    rows = [row for step in (1, 2, 3) for row in order.rows(step)]
    settings = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=4, max_steps=3,
        learning_rate=1e-3, lr_scheduler_type="constant", precompute_ref_log_probs=True,
        max_length=None, logging_steps=1, report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False, save_strategy="no", weight_decay=0.0,
        train_sampling_strategy="sequential", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        str(arena.model), args=settings, train_dataset=trl_dataset(arena.data).select(rows),
        processing_class=AutoTokenizer.from_pretrained(arena.model),
    )  # fmt: skip
    trainer.train()

    theirs = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert theirs == pytest.approx(ours, abs=1e-4)


def test_turns_of_others_are_refused(arena: Arena, tmp_path: Path) -> None:
    turn = {"role": "assistant", "content": "A dog."}
    asked = {"role": "user", "content": "And a cat?"}
    first = {"role": "user", "content": "Tell me a story."}
    rejected = [first, turn | {"content": "No."}]
    row = {"chosen": [first, turn, asked, turn], "rejected": rejected}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    data = prefdata.build(
        BuildConfig(
            inputs=[str(tmp_path / "rows.jsonl")], tokenizer=str(arena.model),
            out=tmp_path / "data", test_fraction=0.0,
        )
    ).path  # fmt: skip
    compute_reference(data, model=str(arena.model))

    with pytest.raises(UsageError, match="T160"):
        trl_dataset(data)
