"""A trained policy as a reward model: accuracy on RewardBench's layouts, by subset.

    python -m pipelines.paper.reward.run pipelines/paper/reward/settings.yaml

`dpo-score` gives the implicit rewards and resumes where it was stopped.
"""

import argparse
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field, PositiveFloat
from transformers.utils.logging import disable_progress_bar

import prefdata
from pipelines.commands import Invoke, clean_exit, in_a_process, read_config, show
from pipelines.paper.reward.result import RewardResult, summarize
from prefdata.config import AnyPath
from prefdata.settings import StrictModel
from prefdata.store.canonical import to_json
from prefdata.store.commit import make_folder, write_bytes


class Settings(StrictModel):
    """One policy and one benchmark."""

    model: str
    """Policy: the directory of a checkpoint, or a hub name."""
    reference: str
    """Model that it was trained from."""
    beta: PositiveFloat
    """The β that it was trained with. It scales rewards, and changes no accuracy."""
    data: Annotated[list[str], Field(min_length=1)]
    """Benchmark: whatever `prefdata` reads, such as files, or a set of the Hub."""
    by: str = "subset"
    """Column that names the subset."""
    out: AnyPath


def read(path: Path) -> Settings:
    return read_config(Settings, path, "pipelines/paper/reward/run.py")


def measure(settings: Settings, invoke: Invoke) -> RewardResult:
    """Score the benchmark and write `result.json`."""
    out = settings.out / "scores"
    make_folder(settings.out)
    words = ["dpo-score", settings.model, *settings.data, "--reference", settings.reference]
    words += ["--beta", str(settings.beta), "--by", settings.by, "--text", "chat", "-o", str(out)]
    show(words)
    invoke(words)
    lines = prefdata.open(out / "data").manifest.lines
    result = summarize(
        pl.read_parquet(out / "scores.parquet"),
        settings.by,
        left_out=lines.lines - lines.blank - lines.kept,
        settings=settings.model_dump(mode="json"),
    )
    write_bytes(settings.out / "result.json", to_json(result))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path, help="YAML file, such as settings.yaml")
    path: Path = parser.parse_args().settings
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with clean_exit():
        settings = read(path)
        result = measure(settings, in_a_process)
    print()
    for name, of in [*result.by.items(), ("all", result.overall)]:
        for what, one in (("pairs", of.pairs), ("rows", of.rows)):
            interval = f"{one.low:.1%} to {one.high:.1%}"
            print(f"{name:24}{what:6}{one.accuracy:6.1%} ({interval}) of {one.pairs:,}")
    print(f"{result.left_out:,} rows left out; {settings.out / 'result.json'} is written")


if __name__ == "__main__":
    main()
