"""Evaluation on any split of a build; `auto` takes the one of the highest rank."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dpo.config import TrainConfig
from dpo.errors import DpoError
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from prefdata.building import build
from prefdata.config import BuildConfig
from prefdata.errors import PrefdataError
from tests.dpo.conftest import Arena, write_pairs

ConfigOf = Callable[..., TrainConfig]


def data_of(arena: Arena, folder: Path, *splits: str) -> str:
    """Build twelve pairs for each split, with the reference log-probs of the arena's model."""
    lines = write_pairs(folder / "all.jsonl", 12 * len(splits)).read_text().splitlines()
    inputs = {}
    for number, split in enumerate(splits):
        path = folder / f"{split}-pairs.jsonl"
        path.write_text("\n".join(lines[12 * number : 12 * number + 12]))
        inputs[split] = [str(path)]
    config = BuildConfig(inputs=inputs, tokenizer=str(arena.model), out=folder / "data")
    build(config)
    compute_reference(str(folder / "data"), model=str(arena.model))
    return str(folder / "data")


@pytest.mark.parametrize(
    ("splits", "wanted", "found"),
    [
        (("train", "test"), "auto", "test"),
        (("train", "validation"), "auto", "validation"),
        (("train", "validation", "eval", "test"), "auto", "test"),
        (("train", "chat", "dev"), "auto", "dev"),
        (("train", "chat", "test"), "chat", "chat"),
        (("train", "chat"), None, None),
    ],
)
def test_the_split_that_is_evaluated_on_is_found_and_reported(
    splits: tuple[str, ...], wanted: str | None, found: str | None, arena: Arena,
    config_of: ConfigOf, tmp_path: Path,
) -> None:  # fmt: skip
    data, said = data_of(arena, tmp_path, *splits), []

    done = train(
        config_of(data=data, eval_split=wanted, steps=1, global_batch_size=2),
        on_message=said.append,
    )

    assert done.summary is not None
    assert done.summary.config.eval_split == found
    assert ("eval/loss" in done.summary.final) == (found is not None)
    expected = [f"evaluates on the split {found}"] if found not in (None, "test") else []
    assert [line for line in said if "split" in line] == expected


def test_a_build_without_train_or_without_another_split_is_one_line(
    arena: Arena, config_of: ConfigOf, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    for splits, code in ((("train",), "T124"), (("test",), "E138")):
        data = data_of(arena, tmp_path / ("a" if code == "T124" else "b"), *splits)
        with pytest.raises((DpoError, PrefdataError)) as caught:
            train(config_of(data=data, steps=1, global_batch_size=2))
        assert caught.value.code == code
