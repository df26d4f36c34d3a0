"""Every output file, with one bit flipped or truncated anywhere, is refused by its reader.

Tested on a build, its reference log-probs and a checkpoint, with the readers that users call.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import prefdata
from dpo.config_file import parse_config
from dpo.data.reference_store import open_reference
from dpo.errors import DpoError
from dpo.reference_pass import compute_reference
from dpo.training.checkpoint import find_checkpoint
from dpo.training.loop import train
from prefdata.building import build
from prefdata.config import BuildConfig
from prefdata.errors import PrefdataError
from tests.dpo.conftest import save_gpt2, write_pairs
from tests.effort import times

pytestmark = pytest.mark.stress
TRIES = times(25, 1_000)


class Artefact(NamedTuple):
    """A file, and a function that returns whether its reader accepts the directory."""

    path: Path
    is_taken: Callable[[], bool]


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Artefact]]:
    """Return the files of a small build, its reference and a checkpoint, by kind."""
    folder = tmp_path_factory.mktemp("whole")
    model, data, run = save_gpt2(folder / "model", seed=0), folder / "data", folder / "run"
    rows = write_pairs(folder / "rows.jsonl", 24)
    doubled = rows.read_text() + rows.read_text().splitlines()[0] + "\n{\n"
    rows.write_text(doubled)
    build(BuildConfig(inputs=[str(rows)], tokenizer=str(model), out=data, test_fraction=0.3))
    compute_reference(data, model=str(model))
    config = {"model": str(model), "data": str(data), "out": str(run), "steps": 2}
    train(parse_config(config | {"global_batch_size": 4, "checkpoint_every": 1}, place="test"))
    manifest = prefdata.open(data).manifest
    (checkpoint,) = (run / "checkpoints").iterdir()
    reference = next((data / "reference").iterdir())
    files = [file.path for file in manifest.files]
    return {
        "manifest": [Artefact(data / "manifest.json", lambda: opens(data))],
        "tokens": [Artefact(data / seal.path, lambda: opens(data)) for seal in manifest.shards],
        "other": [Artefact(data / name, reads(data, name)) for name in files],
        "reference": [
            Artefact(path, lambda: has_reference(data, reference.name))
            for path in sorted(reference.iterdir())
        ],
        "checkpoint": [
            Artefact(path, lambda: find_checkpoint(run / "checkpoints") is not None)
            for path in sorted(checkpoint.iterdir())
        ],
    }


def opens(data: Path) -> bool:
    try:
        prefdata.open(data)
    except PrefdataError:
        return False
    return True


def reads(data: Path, name: str) -> Callable[[], bool]:
    opened = prefdata.open(data)

    def read() -> bool:
        try:
            opened.file(name)
        except PrefdataError:
            return False
        return True

    return read


def has_reference(data: Path, name: str) -> bool:
    try:
        open_reference(prefdata.open(data), name)
    except (DpoError, PrefdataError):
        return False
    return True


def flips(data: bytes) -> Iterator[bytes]:
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), TRIES).tolist():
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def cuts(data: bytes) -> Iterator[bytes]:
    for length in np.random.default_rng(1).integers(0, len(data), TRIES).tolist():
        yield data[:length]


@pytest.mark.parametrize("damage", [flips, cuts])
@pytest.mark.parametrize("kind", ["manifest", "tokens", "other", "reference", "checkpoint"])
def test_no_damage_gets_past_a_reader(
    artefacts: dict[str, list[Artefact]], kind: str, damage: Callable[[bytes], Iterator[bytes]]
) -> None:
    """Damage is refused with a code, or skipped if an older file can be used."""
    assert artefacts[kind]
    for artefact in artefacts[kind]:
        whole = artefact.path.read_bytes()
        assert artefact.is_taken()
        taken = []
        for damaged in damage(whole):
            artefact.path.write_bytes(damaged)
            if artefact.is_taken():
                taken.append(damaged)
        artefact.path.write_bytes(whole)
        assert not taken, (artefact.path.name, len(taken), TRIES)
        assert artefact.is_taken()
