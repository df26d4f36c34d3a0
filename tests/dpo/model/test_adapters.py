"""A model may be an adapter, or have one with it: it means the same in every command."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpo.config import TrainConfig
from dpo.data.reference_store import open_reference
from dpo.errors import DpoError, UsageError
from dpo.model.fingerprints import WeightsId
from dpo.model.load import load_model
from dpo.model.source import ModelSource
from dpo.reference_pass import compute_reference
from dpo.sampling.run import SampleJob, sample_file
from dpo.sampling.sample import SampleConfig
from dpo.scoring.run import ScoreOptions, score
from dpo.training.loop import train
from prefdata import open as open_build
from tests.dpo.conftest import Arena, open_alone

ConfigOf = Callable[..., TrainConfig]
LORA = {"r": 4, "alpha": 8}


@pytest.fixture(scope="module")
def tuned(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train an adapter that changes the model, in place of one of supervised fine-tuning."""
    config = TrainConfig.model_validate(
        {
            "model": str(arena.model), "data": str(arena.data), "lora": LORA, "steps": 6,
            "out": str(tmp_path_factory.mktemp("tuned") / "run"), "global_batch_size": 4,
            "optimizer": {"learning_rate": 1e-2}, "eval_split": None,
        }
    )  # fmt: skip
    train(config)
    return config.out / "adapter"


@pytest.fixture
def data(arena: Arena, tmp_path: Path) -> Path:
    return shutil.copytree(arena.data, tmp_path / "data")


def sums(data: Path, name: str) -> np.ndarray[Any, Any]:
    reference = open_reference(open_build(data, remembers=False), name)
    return np.concatenate([t["ref_chosen_logps"].to_numpy() for t in reference.tables("train")])


@pytest.fixture
def mixed(arena: Arena, tuned: Path, tmp_path: Path) -> Path:
    """Put a model and an adapter into one directory."""
    folder = shutil.copytree(arena.model, tmp_path / "mixed")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tuned / name, folder)
    return folder


def test_an_adapter_a_mixed_directory_and_both_names_are_one_reference(
    arena: Arena, tuned: Path, mixed: Path, data: Path
) -> None:
    sources = {
        "both": ModelSource(str(arena.model), str(tuned)),
        "folder": str(tuned),
        "mixed": str(mixed),
        "merged": str(tuned.with_name("model")),
    }
    for name, source in sources.items():
        compute_reference(data, model=source, name=name)
    found = {name: sums(data, name) for name in sources}

    for name, logps in found.items():
        np.testing.assert_allclose(logps, found["merged"], atol=1e-3, err_msg=name)
    assert np.abs(found["merged"] - sums(data, "default")).max() > 0.1


@pytest.mark.parametrize("how", ["start", "folder", "mixed"])
def test_an_adapter_is_continued_and_starts_as_its_reference(
    how: str, arena: Arena, tuned: Path, mixed: Path, data: Path, config_of: ConfigOf
) -> None:
    compute_reference(data, model=ModelSource(str(arena.model), str(tuned)), name="sft")
    names: dict[str, dict[str, Any]] = {
        "start": {"model": str(arena.model), "lora": {"start": str(tuned)}},
        "folder": {"model": str(tuned), "lora": {}},
        "mixed": {"model": str(mixed), "lora": {"r": 4}},
    }
    config = config_of(**names[how], data=str(data), reference={"name": "sft"}, steps=2)

    run = open_alone(config)
    assert run.starts_as_reference
    trained = {name for name, weight in run.policy.named_parameters() if weight.requires_grad}
    assert all("lora_" in name for name in trained)
    train(config)  # the first loss is checked to be ln 2
    before, after = (
        load_file(f / "adapter_model.safetensors") for f in (tuned, config.out / "adapter")
    )
    assert before.keys() == after.keys()
    assert all(before[name].shape == after[name].shape for name in before)
    saved = json.loads((config.out / "adapter/adapter_config.json").read_bytes())
    assert saved["base_model_name_or_path"] == str(mixed if how == "mixed" else arena.model)
    ids = torch.arange(20)[None]
    whole = load_model(str(config.out / "model"))(ids).logits
    parts = load_model(ModelSource(str(arena.model), str(config.out / "adapter")))(ids).logits
    assert torch.allclose(whole, parts, atol=1e-4)


def test_all_weights_of_a_model_with_an_adapter_can_be_trained(
    tuned: Path, data: Path, config_of: ConfigOf
) -> None:
    compute_reference(data, model=str(tuned), name="sft")
    config = config_of(model=str(tuned), data=str(data), reference={"name": "sft"}, steps=2)

    run = open_alone(config)
    assert not any("lora_" in name for name, _ in run.policy.named_parameters())
    assert all(weight.requires_grad for weight in run.policy.parameters())
    train(config)
    assert not (config.out / "adapter").exists()


def test_the_reference_without_the_adapter_is_refused(tuned: Path, config_of: ConfigOf) -> None:
    with pytest.raises(DpoError) as caught:
        open_alone(config_of(lora={"start": str(tuned)}))

    assert caught.value.code == "T205"


def test_the_base_can_be_the_reference_if_it_is_named(
    tuned: Path, data: Path, config_of: ConfigOf
) -> None:
    compute_reference(data, model=str(tuned), name="sft")
    config = config_of(data=str(data), reference={"name": "sft", "model": str(tuned)}, steps=1)
    assert not open_alone(config).starts_as_reference


def test_an_adapter_is_part_of_the_identity(arena: Arena, tuned: Path, mixed: Path) -> None:
    ids = [
        WeightsId(source, None).sha256
        for source in (ModelSource(str(arena.model), str(tuned)), str(tuned), str(mixed))
    ]

    assert len(set(ids)) == 1
    assert ids[0] != WeightsId(str(arena.model), None).sha256


def test_samples_and_scores_take_adapters(
    arena: Arena, tuned: Path, data: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Tell me a story."}\n')
    config = SampleConfig(k=2, max_new_tokens=8, temperature=0)
    jobs = {
        "folder": SampleJob(prompts, str(tuned), tmp_path / "folder.jsonl"),
        "both": SampleJob(prompts, str(arena.model), tmp_path / "both.jsonl", adapter=str(tuned)),
    }
    texts = {}
    for name, job in jobs.items():
        sample_file(job, config)
        rows = [json.loads(line) for line in job.out.read_text().splitlines()]
        texts[name] = [one["text"] for one in rows[0]["completions"]]
    assert texts["folder"] == texts["both"]

    model = str(tuned.with_name("model"))
    found = [
        score([str(data)], tmp_path / Path(name).name, ScoreOptions(name)).overall.accuracy
        for name in (str(tuned), model)
    ]
    assert found[0] == found[1]


def test_settings_of_the_adapter_itself_cannot_be_changed(
    tuned: Path, data: Path, config_of: ConfigOf
) -> None:
    compute_reference(data, model=str(tuned), name="sft")
    config = config_of(model=str(tuned), data=str(data), reference={"name": "sft"}, lora={"r": 8})

    with pytest.raises(UsageError, match="T106"):
        open_alone(config)


def test_without_peft_an_adapter_is_an_error(
    tuned: Path, mixed: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)

    for name in (tuned, mixed):
        with pytest.raises(UsageError, match="T128"):
            compute_reference(data, model=str(name), name="none")


def test_a_base_that_moved_is_named_with_the_remedy(
    tuned: Path, data: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tuned, tmp_path / "moved")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "/no"}))

    with pytest.raises(UsageError, match="T190") as caught:
        compute_reference(data, model=str(folder), name="none")
    assert "lora.start" in caught.value.remedy
    assert "--adapter" in caught.value.remedy
