"""How long work tells that it goes on; what that looks like is the caller's."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """A place where bars appear."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """A bar of `total` steps, and what moves it on."""
        ...

    def note(self, text: str) -> None:
        """One line that the user should see."""
        ...


class Silent:
    """For libraries and tests: nothing appears."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        del title, total
        yield lambda _: None

    def note(self, text: str) -> None:
        del text
