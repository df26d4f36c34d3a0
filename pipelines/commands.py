"""The commands of a recipe: a user's own commands, run one after the other."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pydantic_core import ErrorDetails

from prefdata.errors import CodedError, Terminated
from prefdata.settings import AnyModel, load_model, nearest_key, read_settings, settle_words

Invoke = Callable[[Sequence[str]], None]
"""Function that runs one command, and leaves by SystemExit if it fails."""


class RecipeError(Exception):
    """Error of the recipe's user: `place: problem; remedy`."""

    def __init__(self, place: object, problem: str, remedy: str) -> None:
        super().__init__(f"{place}: {problem}; {remedy}")


def read_config(model: type[AnyModel], path: Path, schema: str) -> AnyModel:
    """Return the settings in a YAML file; `schema` is where a user reads what they may be.

    Raises RecipeError.
    """
    content = read_settings(path, partial(RecipeError, path))

    def refuse(where: str, fault: ErrorDetails) -> RecipeError:
        if fault["type"] == "extra_forbidden":
            return RecipeError(path, f"{where}: no such key", nearest_key(model, fault["loc"]))
        reason = fault["msg"].removeprefix("Value error, ")
        return RecipeError(path, f"{where}: {reason[:1].lower()}{reason[1:]}", f"see {schema}")

    return load_model(model, settle_words(content, model), refuse)


@contextmanager
def clean_exit() -> Iterator[None]:
    """Leave a recipe with a line and an exit code after an error of its user, Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except (RecipeError, CodedError) as error:
        print(error, file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt as stop:
        print("stopped; run the same command again: what is done is kept", file=sys.stderr)
        sys.exit(getattr(stop, "exit_code", 130))


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Terminated


def in_a_process(words: Sequence[str]) -> None:
    """Run a command of this environment; stop if it fails.

    A terminal sends Ctrl-C to the command too; SIGTERM is passed on, so that it ends cleanly.
    """
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    with subprocess.Popen(words, env=environment) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt as stop:
            if isinstance(stop, Terminated):
                process.send_signal(signal.SIGTERM)
            process.wait()
            raise
    if code != 0:
        sys.exit(code)


def show(words: Sequence[str]) -> None:
    """Print a command as a user would type it."""
    print(f"\n$ {shlex.join(words)}", flush=True)
