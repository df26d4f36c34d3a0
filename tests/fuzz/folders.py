"""Damaged builds, reference log-probs, checkpoints and runs."""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

from dpo.config_file import parse_config
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from prefdata.store.canonical import hash_json, to_json
from tests.dpo.conftest import build_pairs, save_gpt2
from tests.fuzz.mutate import damaged

FOREIGN = (
    "checkpoints/step-00000018.tar.gz", "checkpoints/step-latest", "checkpoints/step-00000020.keep",
    "checkpoints/notes.txt", "checkpoints/step-99999999", "checkpoints/step-00000001 copy",
    "notes.md", "model/notes.md", ".ipynb_checkpoints/x", "events.out.tfevents.1", "core.123",
)  # fmt: skip
FOREIGN_OF_DATA = (
    "text/.ipynb_checkpoints/x.parquet", "tokens/old.arrow", "reference/mine/notes", "notes.md",
    "reference/notes", "rejected/mine.parquet", "tokens/.train-00000-of-00001.arrow.tmp.mine",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 2**70, 1e308, float("nan"), "", "x" * 500, "../../etc/passwd",
    "/etc/passwd",
    "a\0b", "\x1b[31m", "\u202e", [], {}, [[]], {"a": None}, "tokens", ".", "..", "NaN",
)  # fmt: skip


def make_base(folder: Path) -> Path:
    """Make a model, a build with its reference, and a run that stopped after two of four steps."""
    model = save_gpt2(folder / "model", seed=0)
    data = build_pairs(folder / "data", tokenizer=model, count=16)
    compute_reference(data, model=str(model))
    settings = run_settings(folder) | {"steps": 2}
    train(parse_config(settings, place="base"))
    (folder / "run" / "run.json").unlink(missing_ok=True)  # as a run that was stopped
    return folder


def run_settings(folder: Path) -> dict[str, Any]:
    """Return the config with which each damaged run is restarted."""
    return {
        "model": str(folder / "model"), "data": str(folder / "data"), "out": str(folder / "run"),
        "global_batch_size": 4, "steps": 2, "checkpoint_every": 1, "eval_split": None,
    }  # fmt: skip


def damage(folder: Path, number: int) -> list[str]:
    """Damage a copy of the base; return the names that are now foreign and must not be touched."""
    random = Random(f"folder {number}")
    planted = _plant(folder, random)
    for _ in range(random.choice((0, 1, 1, 1, 2)) if planted else random.choice((1, 1, 2))):
        files = sorted(
            path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
        )
        files = [path for path in files if str(path.relative_to(folder)) not in planted]
        files = [path for path in files if "model" not in path.relative_to(folder).parts[:1]]
        file = random.choice(files)
        if file.suffix == ".json" and random.random() < 0.6:
            _change_json(file, random)
        else:
            _damage_file(file, random)
    return planted


def _plant(folder: Path, random: Random) -> list[str]:
    names = []
    for _ in range(random.choice((0, 0, 1, 2))):
        of_run = random.random() < 0.6
        name = (
            f"run/{random.choice(FOREIGN)}" if of_run else f"data/{random.choice(FOREIGN_OF_DATA)}"
        )
        path = folder / name
        if path.exists() or path.is_symlink() or not path.parent.parent.is_dir():
            continue
        path.parent.mkdir(exist_ok=True)
        if random.random() < 0.2:
            path.symlink_to(random.choice((".", "nowhere", "../model", path.name)))
        elif random.random() < 0.2:
            path.mkdir()
            (path / "inside").write_text("mine")
            name = f"{name}/inside"
        else:
            path.write_bytes(random.randbytes(random.choice((0, 10, 1000))))
        names.append(name)
    return names


def _damage_file(file: Path, random: Random) -> None:
    action = random.randrange(10)
    data = file.read_bytes()
    if action == 0:
        file.unlink()
    elif action == 1:
        file.unlink()
        file.mkdir()
    elif action == 2:
        file.unlink()
        file.symlink_to(random.choice((file.name, "nowhere", "/dev/null", ".")))
    elif action == 3:
        file.write_bytes(b"")
    elif action == 4:
        others = sorted(path for path in file.parent.iterdir() if path.is_file())
        file.write_bytes(random.choice(others).read_bytes())
    elif action == 5:
        shutil.copy(file, file.with_name(f"{file.stem}-copy{file.suffix}"))
    else:
        file.write_bytes(damaged(data, random))


def _change_json(file: Path, random: Random) -> None:
    """Change one value; most times, write a hash that fits."""
    try:
        value = json.loads(file.read_bytes())
    except ValueError:
        return
    holder, key = _leaf(value, random)
    if holder is None:
        return
    action = random.randrange(3)
    if action == 0 and isinstance(holder, dict):
        del holder[key]
    elif action == 1 and isinstance(holder[key], list) and holder[key]:
        holder[key].pop()
    else:
        holder[key] = random.choice(VALUES)
    if isinstance(value, dict) and "hash" in value and random.random() < 0.7:
        rest = {name: part for name, part in value.items() if name != "hash"}
        try:
            file.write_bytes(to_json({**value, "hash": hash_json(rest)}))
        except TypeError:  # an integer beyond 64 bits
            file.write_text(json.dumps(value))
    else:
        file.write_text(json.dumps(value))


def _leaf(value: Any, random: Random) -> tuple[Any, Any]:
    """Return a random place in a JSON value: its container, and its key there."""
    holder, key = None, None
    while isinstance(value, dict | list) and value and (holder is None or random.random() < 0.8):
        holder = value
        key = (
            random.choice(sorted(value))
            if isinstance(value, dict)
            else random.randrange(len(value))
        )
        value = holder[key]
    return holder, key
