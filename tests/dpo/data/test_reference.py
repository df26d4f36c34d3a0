"""Mismatches are refused before step 1, each with its own code and remedy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from dpo.config import TrainConfig
from dpo.data.reference_store import read_manifest
from dpo.errors import DpoError
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from prefdata.errors import PrefdataError
from prefdata.store.canonical import to_json
from prefdata.store.commit import seal_file
from prefdata.store.shards import REFERENCE, write_shard
from tests.dpo.conftest import Arena, build_pairs, save_gpt2
from tests.dpo.model.zoo import config_of as zoo_config
from tests.dpo.model.zoo import model_of
from tests.dpo.tiny import CHATML, Heard, tiny_tokenizer

ConfigOf = Callable[..., TrainConfig]
Break = Callable[[Arena], dict[str, object]]


@pytest.fixture
def own(arena: Arena, tmp_path: Path) -> Arena:
    """Return a copy that a test may break."""
    model = shutil.copytree(arena.model, tmp_path / "model")
    return Arena(model, shutil.copytree(arena.data, tmp_path / "data"))


def other_tokenizer(own: Arena) -> dict[str, object]:
    path = own.model / "tokenizer.json"
    value = json.loads(path.read_text())
    value["added_tokens"][0]["content"] = "<|start|>"
    value["model"]["vocab"]["<|start|>"] = value["model"]["vocab"].pop("<|im_start|>")
    path.write_text(json.dumps(value))
    return {}


def other_template(own: Arena) -> dict[str, object]:
    save_gpt2(own.model, seed=0, template=CHATML.replace("\n", "\n\n"))
    return {}


def other_weights(own: Arena) -> dict[str, object]:
    save_gpt2(own.model, seed=3)
    return {}


def no_reference(own: Arena) -> dict[str, object]:
    shutil.rmtree(own.data / "reference")
    return {}


def unfinished_reference(own: Arena) -> dict[str, object]:
    (own.data / "reference/default/manifest.json").unlink()
    return {}


def other_build(own: Arena) -> dict[str, object]:
    build_pairs(own.data.parent / "fewer", tokenizer=own.model, count=20)
    shutil.copytree(own.data / "reference", own.data.parent / "fewer/reference")
    return {"data": str(own.data.parent / "fewer")}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flipped_token_shard(own: Arena) -> dict[str, object]:
    flip(own.data / "tokens/train-00000-of-00003.arrow")
    return {}


def flipped_reference_shard(own: Arena) -> dict[str, object]:
    flip(own.data / "reference/default/train-00000-of-00003.arrow")
    return {}


def changed_reference_manifest(own: Arena) -> dict[str, object]:
    path = own.data / "reference/default/manifest.json"
    path.write_text(path.read_text().replace('"no"', '"bf16"'))
    return {}


def wrong_numbers(own: Arena) -> dict[str, object]:
    """Change log-probs but keep every fingerprint valid: only the spot check finds it."""
    folder = own.data / "reference/default"
    manifest = read_manifest(folder / "manifest.json")
    shards = []
    for seal in manifest.shards:
        path = folder / seal.path
        table = pa.ipc.open_file(path.read_bytes()).read_all()
        tokens = table["ref_chosen_token_logps"].combine_chunks()
        moved = pa.ListArray.from_arrays(
            tokens.offsets, pa.array(tokens.values.to_numpy() - 0.01), type=tokens.type
        )
        write_shard(path, table.set_column(3, REFERENCE.field(3), moved).cast(REFERENCE))
        shards.append(seal.model_copy(update=seal_file(path)._asdict()))
    (folder / "manifest.json").write_bytes(manifest.with_shards(shards).to_bytes())
    return {}


def other_precision(_own: Arena) -> dict[str, object]:
    return {"mixed_precision": "bf16"}


def small_vocabulary(own: Arena) -> dict[str, object]:
    """Make a model with fewer embeddings than the build has ids."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(own.model)
    model.resize_token_embeddings(250)
    model.save_pretrained(own.model)
    return {}


def unknown_split(_own: Arena) -> dict[str, object]:
    return {"eval_split": "validation"}


def too_few_pairs(_own: Arena) -> dict[str, object]:
    return {"global_batch_size": 1000, "steps": None}


def no_margins(_own: Arena) -> dict[str, object]:
    return {"loss": {"name": "odpo"}}


def changed_build_manifest(own: Arena) -> dict[str, object]:
    """Change the number of rows."""
    path = own.data / "manifest.json"
    path.write_text(path.read_text().replace('"rows":', '"rows":1', 1))
    return {}


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (other_tokenizer, "T201"),
        (other_template, "T202"),
        (no_reference, "T203"),
        (unfinished_reference, "T203"),
        (other_build, "T204"),
        (other_weights, "T205"),
        (small_vocabulary, "T206"),
        (changed_reference_manifest, "T207"),
        (other_precision, "T208"),
        (wrong_numbers, "T209"),
        (flipped_token_shard, "E136"),
        (flipped_reference_shard, "E136"),
        (unknown_split, "T124"),
        (too_few_pairs, "T125"),
        (no_margins, "T126"),
        (changed_build_manifest, "E133"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_mismatch_is_refused_with_its_own_code(
    broken: Break, code: str, own: Arena, config_of: ConfigOf
) -> None:
    changes = {"model": str(own.model), "data": str(own.data)} | broken(own)
    config = config_of(**changes)

    with pytest.raises((DpoError, PrefdataError)) as caught:
        train(config)

    assert caught.value.code == code
    assert caught.value.remedy
    assert not (config.out / "model").exists()
    assert not (config.out / "metrics.jsonl").exists()


def test_a_finished_reference_is_left_and_another_is_refused(own: Arena) -> None:
    before = (own.data / "reference/default/manifest.json").read_bytes()

    compute_reference(own.data, model=str(own.model))
    assert (own.data / "reference/default/manifest.json").read_bytes() == before

    save_gpt2(own.model, seed=5)
    with pytest.raises(DpoError, match="T205"):
        compute_reference(own.data, model=str(own.model))


@pytest.mark.parametrize("into", [1, 7, 12])
def test_a_reference_continues_within_a_shard(
    into: int, arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expect the same bytes, without running the kept rows again."""
    monkeypatch.setattr("dpo.data.sampler.WINDOW", 2)
    monkeypatch.setattr("dpo.reference_pass.KEEP_EVERY", 0.0)
    data = build_pairs(tmp_path / "data", tokenizer=arena.model, shard_rows=100)
    folder = data / "reference/default"
    whole = compute_reference(data, model=str(arena.model), name="whole", pack_tokens=90)

    at = max(range(len(whole.shards)), key=lambda place: whole.shards[place].rows)
    before = sum(seal.rows for seal in whole.shards[:at])

    with pytest.raises(KeyboardInterrupt):
        compute_reference(
            data, model=str(arena.model), pack_tokens=90, progress=Heard(stop=before + into)
        )
    pieces = list(folder.glob("*.from-*"))
    assert bool(pieces) == (into > 6)
    heard = Heard()
    again = compute_reference(data, model=str(arena.model), pack_tokens=90, progress=heard)

    assert again == whole
    kept = read_manifest(folder / "manifest.json").shards
    assert [seal.sha256 for seal in kept] == [seal.sha256 for seal in whole.shards]
    assert not list(folder.glob("*.from-*"))
    begun = next(done for done in heard.done if done > before)
    assert begun - before > (into - 6 if pieces else 0)
    assert (begun - before <= 2) == (not pieces)
    assert max(heard.done) == sum(seal.rows for seal in whole.shards)


def test_a_piece_that_was_changed_is_refused(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpo.data.sampler.WINDOW", 2)
    monkeypatch.setattr("dpo.reference_pass.KEEP_EVERY", 0.0)
    data = build_pairs(tmp_path / "data", tokenizer=arena.model, shard_rows=100)

    with pytest.raises(KeyboardInterrupt):
        compute_reference(data, model=str(arena.model), progress=Heard(stop=7))
    piece = next((data / "reference/default").glob("*.from-*"))
    flipped = bytearray(piece.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    piece.write_bytes(flipped)

    with pytest.raises(PrefdataError):
        compute_reference(data, model=str(arena.model))


def test_a_reference_continues_at_the_first_missing_file(own: Arena) -> None:
    folder = own.data / "reference/default"
    whole = read_manifest(folder / "manifest.json")
    (folder / "manifest.json").unlink()
    (folder / "partial.json").write_bytes(whole.with_shards(whole.shards[:2]).to_bytes())
    for seal in whole.shards[2:]:
        (folder / seal.path).unlink()
    kept = (folder / whole.shards[0].path).stat().st_mtime_ns
    heard = Heard()

    again = compute_reference(own.data, model=str(own.model), progress=heard)

    assert again == whole
    assert (folder / whole.shards[0].path).stat().st_mtime_ns == kept
    assert heard.done[:2] == [whole.shards[0].rows, sum(seal.rows for seal in whole.shards[:2])]
    assert not (folder / "partial.json").exists()
    assert to_json(again.model_dump(mode="json")) == (folder / "manifest.json").read_bytes()


def test_why_prompts_are_not_shared_is_noted(arena: Arena, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = model_of(zoo_config("bloom", n_layer=2, n_head=4, vocab_size=len(tokenizer)))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    heard = Heard()

    manifest = compute_reference(
        arena.data, model=str(tmp_path / "model"), name=tmp_path / "reference", progress=heard
    )

    assert not manifest.shared_prompts
    assert heard.notes[0].startswith("prompts are not shared by their completions: ")
