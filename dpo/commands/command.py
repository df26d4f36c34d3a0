"""What the commands of dpo share: the wrapper of commands with a model, and options."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from dpo.errors import UsageError
from prefdata.command import Command, say

PATH = click.Path(path_type=Path)
_TRAIN = ("accelerate", "psutil", "safetensors", "torch")


class TrainCommand(Command):
    """Command that needs the packages of the extra `train`; its --help does not."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command itself, if they are installed."""
        if missing := [name for name in _TRAIN if find_spec(name) is None]:
            problem = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
            remedy = 'pip install "prefdata-dpo[train]"'
            raise UsageError("T108", f"dpo-{self.name}", problem, remedy)
        return self.invoke_installed(ctx)

    def invoke_installed(self, ctx: click.Context) -> Any:
        """Run the command itself."""
        return super().invoke(ctx)


class ModelCommand(TrainCommand):
    """Command that runs a model, without transformers' own progress bars."""

    def invoke_installed(self, ctx: click.Context) -> Any:
        """Run the command itself, after a line about a GPU that cannot be used."""
        from transformers.utils.logging import disable_progress_bar  # slow: not for --help

        from dpo.model.load import device_notice

        disable_progress_bar()  # type: ignore[no-untyped-call]
        if (line := device_notice()) is not None and is_main():
            say(line, err=True)
        if "RANK" not in os.environ:
            return super().invoke_installed(ctx)
        from dpo.training.distributed import one_error_of_all

        with one_error_of_all():
            return super().invoke_installed(ctx)


def is_main() -> bool:
    """Return whether this process, one of several, prints."""
    return os.environ.get("RANK", "0") == "0"


def choice(name: str, values: list[str], text: str) -> Callable[[Any], Any]:
    """Return an option with some values; the first one is its default."""
    return click.option(
        name, type=click.Choice(values), default=values[0], show_default=True, help=text
    )
