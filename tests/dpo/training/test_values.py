"""Non-finite weights, log-probs, scores and settings: each is an error before any harm."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

import prefdata
from dpo.config_file import parse_config
from dpo.data.lengths import of_longest
from dpo.data.pairs import Pairs
from dpo.data.reference_store import open_reference, read_manifest
from dpo.errors import DpoError
from dpo.model.fingerprints import check_lengths
from dpo.reference_pass import compute_reference
from dpo.sampling.scorer import load_scorer, score_completions
from dpo.scoring.run import ScoreOptions, score
from prefdata.store.commit import seal_file
from prefdata.store.shards import write_shard
from tests.dpo.conftest import Arena

SCORERS: dict[str, Callable[..., Any]] = {
    "texts": lambda **_: ["1.0", "2.0"],
    "a text": lambda **_: "12",
    "nothing": lambda **_: None,
    "nothing for each": lambda **_: [None, None],
    "one too few": lambda **_: [1.0],
    "one too many": lambda **_: [1.0, 2.0, 3.0],
    "without end": lambda **_: iter(lambda: 1.0, None),
    "NaN": lambda **_: [1.0, float("nan")],
    "infinite": lambda **_: [1.0, float("inf")],
    "a number": lambda **_: 1.0,
    "a set": lambda **_: {1.0, 2.0},
    "a mapping": lambda **_: {"a": 1.0, "b": 2.0},
    "lists": lambda **_: [[1.0], [2.0, 3.0]],
    "complex numbers": lambda **_: [1j, 2j],
    "a vast integer": lambda **_: [10**400, 1],
    "a matrix": lambda **_: np.ones((2, 2)),
    "an error": lambda **_: 1 / 0,
}


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
def test_what_a_scorer_gives_is_a_number_for_each_or_a_code(scorer: Callable[..., Any]) -> None:
    with pytest.raises(DpoError) as caught:
        score_completions(scorer, "mine:score", "prompt", ["a", "b"])

    assert caught.value.code == "T136"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "given",
    [[1, 2], (1.0, 2.0), np.array([1, 2]), torch.tensor([1.0, 2.0]), [np.float32(1), True + 1],
     iter([1, 2]), list(torch.tensor([1.0, 2.0]))],
    ids=["ints", "tuple", "numpy", "torch", "scalars", "iterator", "list of tensors"],
)  # fmt: skip
def test_numbers_of_any_library_are_scores(given: Any) -> None:
    assert score_completions(lambda **_: given, "s", "prompt", ["a", "b"]) == [1.0, 2.0]


@pytest.mark.parametrize("body", ["raise ValueError('x')", "def f(", "import nothing_of_this_name"])
def test_a_scorer_that_cannot_be_imported_is_a_code(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"scorer_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(DpoError, match="T135"):
        load_scorer(f"{name}:f")


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": float("inf")}, {"epochs": 1e300}, {"epochs": float("nan")},
        {"seed": 10**30}, {"seed": -(10**30)}, {"steps": 10**40}, {"global_batch_size": 10**20},
        {"optimizer": {"learning_rate": float("inf")}},
        {"optimizer": {"learning_rate": 1e-6, "weight_decay": float("inf")}},
        {"optimizer": {"learning_rate": 1e-6, "max_grad_norm": float("nan")}},
        {"optimizer": {"learning_rate": 1e-6, "warmup_steps": 10**30}},
        {"loss": {"name": "dpo", "beta": float("inf")}},
        {"loss": {"name": "dpo", "weight": float("inf")}},
        {"lora": {"alpha": float("inf")}}, {"lora": {"r": 10**30}},
        {"pack_tokens": 10**30}, {"eval_rows": 10**30}, {"router_aux_loss_coef": float("inf")},
    ],
    ids=str,
)  # fmt: skip
def test_a_number_that_no_run_can_use_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DpoError) as caught:
        parse_config({"model": "m", "data": "d", "out": "o"} | changes, place="train.yaml")

    assert caught.value.code == "T122"


@pytest.mark.parametrize("seed", [0, -1, 2**62, -(2**63)])
def test_any_seed_of_64_bits_is_one(seed: int) -> None:
    value = {"model": "m", "data": "d", "out": "o", "seed": seed}
    assert parse_config(value, place="t").seed == seed
    torch.manual_seed(seed)


def overflowing(arena: Arena, folder: Path) -> Path:
    """Save the model with finite weights whose products overflow."""
    shutil.copytree(arena.model, folder)
    model = GPT2LMHeadModel.from_pretrained(folder)
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight.mul_(1e30)
        model.transformer.h[0].mlp.c_proj.weight.mul_(1e30)
    model.save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_log_probs_that_are_not_finite_are_not_stored(arena: Arena, tmp_path: Path) -> None:
    """dpo-ref and dpo-score stop at the first pair, and leave nothing that looks finished."""
    model = overflowing(arena, tmp_path / "model")
    data = shutil.copytree(arena.data, tmp_path / "data")

    for run in (
        lambda: compute_reference(data, model=str(model), name="new"),
        lambda: score([str(data)], tmp_path / "out", ScoreOptions(str(model))),
    ):
        with pytest.raises(DpoError) as caught:
            run()
        assert caught.value.code in ("T199", "T111")
    assert not (data / "reference/new/manifest.json").exists()
    assert not (tmp_path / "out/score.json").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [1, 2])
def test_stored_log_probs_that_are_not_finite_are_named(
    column: int, value: float, arena: Arena, tmp_path: Path
) -> None:
    data = shutil.copytree(arena.data, tmp_path / "data")
    folder = data / "reference/default"
    manifest = read_manifest(folder / "manifest.json")
    path = folder / manifest.shards[-1].path
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    sums = table.column(column).to_numpy().copy()
    sums[2] = value
    spoiled = table.set_column(column, table.schema.field(column), pa.array(sums, pa.float32()))
    write_shard(path, spoiled)
    seal = manifest.shards[-1].model_copy(update=seal_file(path)._asdict())
    sealed = manifest.with_shards([*manifest.shards[:-1], seal])
    (folder / "manifest.json").write_bytes(sealed.to_bytes())

    with pytest.raises(DpoError) as caught:
        open_reference(prefdata.open(data), "default")

    assert caught.value.code == "T211"
    assert table["pair_id"][2].as_py().hex()[:12] in caught.value.problem


def positions(kind: str, limit: int) -> Any:
    """Return a tiny model whose config states this number of positions."""
    small = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 1}
    if kind == "gpt2":
        config = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=limit, **small)
        return GPT2LMHeadModel(config)
    if kind == "opt":
        sizes = {"hidden_size": 16, "ffn_dim": 16, "word_embed_proj_dim": 16}
        heads = {"num_hidden_layers": 1, "num_attention_heads": 2}
        return OPTForCausalLM(OPTConfig(max_position_embeddings=limit, **sizes, **heads, **small))
    sizes = {"hidden_size": limit, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(max_position_embeddings=limit, **sizes, **heads, **small))


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
def test_a_pair_beyond_the_positions_is_refused_or_reported(kind: str, arena: Arena) -> None:
    """As many positions as the longest pair has are enough; with one fewer the pair is named."""
    build = prefdata.open(arena.data)
    pairs = Pairs(build.shards("train"))
    tokens = of_longest(np.asarray(pairs.lengths))
    longest = int(tokens.max())
    even = longest - longest % 4
    row = pairs.pair_id(int(tokens.argmax()))[:12]

    assert check_lengths(positions(kind, even + 4), pairs, place="m") is None
    short = positions(kind, even - 4)
    if kind == "llama":
        message = check_lengths(short, pairs, place="m")
        assert message is not None
        assert row in message
        return
    with pytest.raises(DpoError) as caught:
        check_lengths(short, pairs, place="m")
    assert caught.value.code == "T198"
    assert row in caught.value.problem
    assert f"max_length: {even - 4}" in caught.value.remedy
