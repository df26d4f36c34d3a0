"""Commands of a recipe, run in the process of a test."""

from collections.abc import Sequence

from click.testing import CliRunner

from dpo import cli as dpo
from prefdata.cli import main as prefdata


class Invoked:
    """The commands in this process, and the names of those that ran; one may get a Ctrl-C."""

    def __init__(self, fail_at: int = 10**6) -> None:
        self.names: list[str] = []
        self.fail_at = fail_at

    def __call__(self, words: Sequence[str]) -> None:
        self.names.append(words[0])
        if len(self.names) == self.fail_at:
            raise KeyboardInterrupt
        name = words[0].removeprefix("dpo-")
        command = prefdata if name == "prefdata" else getattr(dpo, name)
        done = CliRunner().invoke(command, list(words[1:]))
        if done.exit_code == 130:
            raise KeyboardInterrupt
        assert done.exit_code == 0, (words, done.output)
