"""A Ctrl-C in the middle of a run."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from prefdata.progress import Advance, Silent


class CtrlC(Silent):
    """Progress that gets a Ctrl-C when a bar reaches `stop`."""

    def __init__(self, stop: int) -> None:
        self.left = stop

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        del title, total

        def advance(steps: int) -> None:
            self.left -= steps
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)

        yield advance
