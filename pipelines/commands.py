"""The commands of a recipe: a user's own commands, run one after the other."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from prefdata.errors import Terminated

Invoke = Callable[[Sequence[str]], None]
"""Function that runs one command, and leaves by SystemExit if it fails."""


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
