"""Ways to break a checkpoint's directory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Break = Callable[[Path], None]
Tensors = dict[str, Tensor]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def weights(change: Callable[[Tensors], Tensors]) -> Break:
    """Save the checkpoint's tensors with a change."""

    def apply(folder: Path) -> None:
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def without(*ends: str) -> Break:
    return weights(lambda t: {k: v for k, v in t.items() if not k.endswith(ends)})


def extra(**tensors: Tensor) -> Break:
    return weights(lambda t: t | {k.replace("__", "."): v for k, v in tensors.items()})


def replaced(end: str, make: Callable[[Tensor], Tensor]) -> Break:
    return weights(lambda t: {k: make(v) if k.endswith(end) else v for k, v in t.items()})


def config(**changes: Any) -> Break:
    def apply(folder: Path) -> None:
        value = json.loads((folder / "config.json").read_bytes())
        (folder / "config.json").write_text(json.dumps(value | changes))

    return apply


def holding(name: str, data: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(data)  # type: ignore[return-value]


def cut(keep: Callable[[bytes], bytes]) -> Break:
    def apply(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(keep((folder / WEIGHTS).read_bytes()))

    return apply


def sharded(change: Callable[[dict[str, str]], Any] = lambda weight_map: weight_map) -> Break:
    """Save the checkpoint as two shards with an index, and change the index's map."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names = sorted(tensors)
        files = {n: f"model-{1 + (at > 5):05d}-of-00002.safetensors" for at, n in enumerate(names)}
        for file in set(files.values()):
            held = {name: tensors[name] for name in names if files[name] == file}
            save_file(held, folder / file, metadata={"format": "pt"})
        index = {"metadata": {"total_size": 1}, "weight_map": change(files)}
        (folder / INDEX).write_text(json.dumps(index))

    return apply


def both_forms(folder: Path) -> None:
    """Save shards with an index, and keep the whole file next to them."""
    whole = (folder / WEIGHTS).read_bytes()
    sharded()(folder)
    (folder / WEIGHTS).write_bytes(whole)


def then(*parts: Break) -> Break:
    def apply(folder: Path) -> None:
        for part in parts:
            part(folder)

    return apply


def gone(*names: str) -> Break:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def as_pickle(name: str, data: bytes | None = None) -> Break:
    """Replace the safetensors by a pickle of torch, or by these bytes."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        if data is None:
            torch.save(tensors, folder / name)
        else:
            (folder / name).write_bytes(data)

    return apply


HOSTILE = b"cposix\nsystem\n(S'touch HACKED'\ntR."
ADAPTER = json.dumps({"base_model_name_or_path": "org/base", "peft_type": "LORA"}).encode()
NAN, INF = torch.nan, torch.inf


def spoiled(end: str, value: float) -> Break:
    """Replace the last value of a tensor."""

    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return replaced(end, change)
