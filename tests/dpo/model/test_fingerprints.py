"""Weights are identified by their files; equal weights in other files by their values."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dpo.config import TrainConfig
from dpo.data.reference_store import ReferenceManifest, read_manifest
from dpo.errors import MismatchError
from dpo.model import fingerprints
from dpo.model.fingerprints import WeightsId, values_sha256
from dpo.model.load import load_model
from dpo.reference_pass import compute_reference
from dpo.training.deciding import Deciding
from dpo.training.loop import train
from prefdata.store.verify import sha256_cached
from tests.dpo.conftest import Arena, open_alone
from tests.dpo.model.broken import WEIGHTS, config, spoiled

ConfigOf = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def in_shards(arena: Arena, tmp_path: Path) -> Path:
    """Save the arena's model in several files."""
    folder = shutil.copytree(arena.model, tmp_path / "shards")
    (folder / WEIGHTS).unlink()
    AutoModelForCausalLM.from_pretrained(arena.model).save_pretrained(folder, max_shard_size="50KB")
    assert not (folder / WEIGHTS).exists()
    return folder


def never() -> str:
    raise AssertionError("the values are not needed")


def as_before(manifest: ReferenceManifest, model: Path) -> ReferenceManifest:
    """Return a manifest as older versions wrote it."""
    values = values_sha256(load_model(str(model)))
    update = {"weights_by": "values", "weights_sha256": values, "values_sha256": ""}
    return manifest.model_copy(update=update).with_shards(manifest.shards)


def with_old_reference(arena: Arena, folder: Path) -> Path:
    data = shutil.copytree(arena.data, folder)
    path = data / "reference/default/manifest.json"
    path.write_bytes(as_before(read_manifest(path), arena.model).to_bytes())
    assert b"weights_by" not in path.read_bytes()
    return data


def test_files_identify_weights_and_values_are_not_read(arena: Arena) -> None:
    manifest = read_manifest(arena.data / "reference/default/manifest.json")

    assert WeightsId(str(arena.model), never).made(manifest)


def test_one_other_value_is_another_id(arena: Arena, tmp_path: Path) -> None:
    other = shutil.copytree(arena.model, tmp_path / "other")
    spoiled("ln_f.weight", 3.0)(other)

    assert WeightsId(str(other), None).sha256 != WeightsId(str(arena.model), None).sha256


def test_config_decides_but_not_its_dtype_or_version(arena: Arena, tmp_path: Path) -> None:
    same, other = (shutil.copytree(arena.model, tmp_path / name) for name in ("same", "other"))
    config(dtype="bfloat16", transformers_version="9", use_cache=False)(same)
    config(layer_norm_epsilon=1e-3)(other)
    own = WeightsId(str(arena.model), None).sha256

    assert WeightsId(str(same), None).sha256 == own
    assert WeightsId(str(other), None).sha256 != own


def test_a_file_is_hashed_once(arena: Arena, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    now = partial(sha256_cached, settled=0)  # though the files are new
    monkeypatch.setattr(fingerprints, "sha256_cached", now)
    first = WeightsId(str(arena.model), None).sha256
    assert any(cache.rglob("*"))
    monkeypatch.setattr("prefdata.store.verify.sha256_file", never)

    assert WeightsId(str(arena.model), None).sha256 == first


def test_a_file_of_the_hub_is_named_by_its_hash(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lay files out as the Hub's cache does."""
    blobs, snapshot = tmp_path / "repo/blobs", tmp_path / "repo/snapshots/abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    digest = fingerprints._file_sha256(arena.model / WEIGHTS)
    shutil.copy(arena.model / WEIGHTS, blobs / digest)
    (snapshot / WEIGHTS).symlink_to(blobs / digest)
    shutil.copy(arena.model / "config.json", snapshot)
    own = WeightsId(str(arena.model), None).sha256
    monkeypatch.setattr(fingerprints, "sha256_cached", never)

    assert WeightsId(str(snapshot), None).sha256 == own


def test_equal_weights_in_other_files_are_accepted(
    in_shards: Path, config_of: ConfigOf, arena: Arena
) -> None:
    own = WeightsId(str(arena.model), None)
    assert WeightsId(str(in_shards), None).sha256 != own.sha256

    train(config_of(model=str(in_shards), steps=1))


def test_the_values_are_computed_once(arena: Arena) -> None:
    model = load_model(str(arena.model))
    first = WeightsId(str(arena.model), lambda: values_sha256(model)).values

    assert WeightsId(str(arena.model), never).values == first


def test_a_reference_of_an_older_version_still_serves(
    arena: Arena, config_of: ConfigOf, tmp_path: Path
) -> None:
    data = with_old_reference(arena, tmp_path / "data")
    before = (data / "reference/default/manifest.json").read_bytes()

    train(config_of(data=str(data), steps=1))
    compute_reference(data, model=str(arena.model))
    assert (data / "reference/default/manifest.json").read_bytes() == before


def test_an_old_reference_of_other_weights_is_refused(
    arena: Arena, config_of: ConfigOf, tmp_path: Path
) -> None:
    data = with_old_reference(arena, tmp_path / "data")
    other = shutil.copytree(arena.model, tmp_path / "other")
    spoiled("ln_f.weight", 3.0)(other)

    with pytest.raises(MismatchError, match="T205"):
        open_alone(config_of(data=str(data), model=str(other)))
    with pytest.raises(MismatchError, match="T205"):
        compute_reference(data, model=str(other))


def test_without_values_the_message_names_other_files_as_a_cause(
    arena: Arena, in_shards: Path, config_of: ConfigOf, tmp_path: Path
) -> None:
    data = shutil.copytree(arena.data, tmp_path / "data")
    path = data / "reference/default/manifest.json"
    manifest = read_manifest(path)
    unknown = manifest.model_copy(update={"values_sha256": ""}).with_shards(manifest.shards)
    path.write_bytes(unknown.to_bytes())

    with pytest.raises(MismatchError, match="in other files or another dtype"):
        open_alone(config_of(data=str(data), model=str(in_shards)))


def test_a_run_that_an_older_version_began_resumes(
    arena: Arena, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, said = config_of(steps=2, checkpoint_every=1), list[str]()
    values = values_sha256(load_model(str(arena.model)))

    now = Deciding.of

    def older(*args: Any) -> Deciding:
        return now(*args)._replace(weights=values)

    with monkeypatch.context() as then:
        then.setattr(Deciding, "of", older)
        train(config)
    shutil.rmtree(config.out / "model")
    (config.out / "run.json").unlink()
    train(config, on_message=said.append)

    assert "resumes after step 1" in said


def test_equal_weights_in_bfloat16_are_accepted_in_float32(arena: Arena, tmp_path: Path) -> None:
    half, whole = (shutil.copytree(arena.model, tmp_path / name) for name in ("half", "whole"))
    model = AutoModelForCausalLM.from_pretrained(arena.model, dtype=torch.bfloat16)
    model.save_pretrained(half)
    model.float().save_pretrained(whole)
    data = shutil.copytree(arena.data, tmp_path / "data")

    first = compute_reference(data, model=str(half), name="half")
    assert compute_reference(data, model=str(whole), name="half").hash == first.hash
