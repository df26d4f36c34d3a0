"""Loaded weights equal those on disk: a checkpoint is complete and unambiguous, or is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpo.config import TrainConfig
from dpo.errors import DpoError
from dpo.model.load import check_model, load_model
from dpo.model.weights import left_out
from dpo.reference_pass import compute_reference
from dpo.sampling.run import SampleJob, sample_file
from dpo.sampling.sample import SampleConfig
from dpo.scoring.run import ScoreOptions, score
from dpo.training.loop import train
from tests.census import snapshot
from tests.dpo.conftest import Arena, save_gpt2, save_llama
from tests.dpo.model.broken import (
    ADAPTER,
    HOSTILE,
    NAN,
    WEIGHTS,
    Break,
    as_pickle,
    config,
    cut,
    extra,
    holding,
    replaced,
    spoiled,
    without,
)  # fmt: skip
from tests.dpo.model.broken_checkpoints import GPT2_RIGHT, LLAMA, RIGHT

CASES = [
    pytest.param(kind, change, code, id=f"{kind}: {name}")
    for kind, variants in LLAMA.items()
    for name, (change, code) in variants.items()
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama") / "model")


@pytest.mark.parametrize(("kind", "change", "code"), CASES)
def test_a_broken_checkpoint_is_refused_with_its_code(
    kind: str, change: Break, code: str, llama: Path, tmp_path: Path
) -> None:
    """Check that NaN is found at loading, all others before; and that no pickle is run."""
    broken = shutil.copytree(llama, tmp_path / "model")
    change(broken)
    before = snapshot(tmp_path)

    with pytest.raises(DpoError) as caught:
        (load_model if kind == "not finite" else check_model)(str(broken))

    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert caught.value.place.startswith(str(broken))
    assert caught.value.remedy
    assert snapshot(tmp_path) == before
    assert not Path("HACKED").exists()


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
def test_a_right_checkpoint_loads_with_its_own_weights(
    change: Break, llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(llama, tmp_path / "model")
    change(folder)

    check_model(str(folder))
    model = load_model(str(folder))
    stored = load_file(llama / WEIGHTS)
    assert stored.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.allclose(tensor, stored[name], rtol=1e-2), name
    assert left_out(str(folder), model) is None


@pytest.mark.parametrize("change", GPT2_RIGHT.values(), ids=GPT2_RIGHT)
def test_tied_heads_and_old_buffers_are_not_faults(
    change: Break, arena: Arena, tmp_path: Path
) -> None:
    folder = shutil.copytree(arena.model, tmp_path / "model")
    change(folder)

    model = load_model(str(folder))
    stored = load_file(arena.model / WEIGHTS)
    assert torch.equal(model.lm_head.weight, stored["transformer.wte.weight"])
    assert left_out(str(folder), model) is None


def test_parts_that_transformers_leaves_out_are_named(tmp_path: Path) -> None:
    """Imitate the layers for multi-token prediction of Qwen3.5, which its rules ignore."""
    folder = save_gpt2(tmp_path / "model", seed=0)
    extra(transformer__h__7__attn__c_attn__bias=torch.ones(3))(folder)

    model = load_model(str(folder))
    message = left_out(str(folder), model)
    assert message is not None
    assert "transformer.h.* (1)" in message


COMMANDS = ("ref", "train", "score", "sample")
FAULTS: dict[str, tuple[Break, str]] = {
    "missing": (without("ln_f.weight"), "T193"),
    "extra": (extra(transformer__more__weight=torch.ones(3)), "T194"),
    "shape": (replaced("ln_f.weight", lambda _: torch.ones(33)), "T195"),
    "cut": (cut(lambda data: data[:-7]), "T191"),
    "adapter next to it": (holding("adapter_config.json", ADAPTER), "T190"),
    "pickle": (as_pickle("pytorch_model.bin", HOSTILE), "T192"),
    "config": (config(n_layer="two"), "T102"),
    "NaN": (spoiled("ln_f.weight", NAN), "T196"),
}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Tell me a story."}\n')
    return path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("change", "code"), FAULTS.values(), ids=FAULTS)
def test_every_command_refuses_it_before_any_work(
    command: str,
    change: Break,
    code: str,
    arena: Arena,
    prompts: Path,
    config_of: Callable[..., TrainConfig],
) -> None:
    root = prompts.parent
    model = shutil.copytree(arena.model, root / "model")
    data = shutil.copytree(arena.data, root / "data")
    change(model)
    before = snapshot(root)
    run: dict[str, Callable[[], object]] = {
        "ref": lambda: compute_reference(data, model=str(model), name="new"),
        "train": lambda: train(config_of(model=str(model), data=str(data))),
        "score": lambda: score([str(data)], root / "scores", ScoreOptions(str(model))),
        "sample": lambda: sample_file(
            SampleJob(prompts, str(model), root / "out.jsonl"), SampleConfig(k=1)
        ),
    }

    with pytest.raises(DpoError) as caught:
        run[command]()

    assert caught.value.code == code
    marks = {"run/.dpo-train.json", "scores/.dpo-score.json"}  # they mark whose directory it is
    after = {name: what for name, what in snapshot(root).items() if name not in marks}
    assert {n: what for n, what in after.items() if what != "an empty directory"} == before


@pytest.mark.parametrize(("change", "code"), list(FAULTS.values())[:4], ids=list(FAULTS)[:4])
def test_a_broken_reference_model_is_refused_before_the_policy_runs(
    change: Break, code: str, arena: Arena, tmp_path: Path
) -> None:
    model = shutil.copytree(arena.model, tmp_path / "model")
    change(model)
    options = ScoreOptions(str(arena.model), reference=str(model))

    with pytest.raises(DpoError) as caught:
        score([str(arena.data)], tmp_path / "scores", options)

    assert caught.value.code == code
    assert not (tmp_path / "scores").exists()
