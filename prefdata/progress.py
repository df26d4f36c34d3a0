"""Progress reporting; the caller decides how it is displayed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Display of progress bars and notes."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """Open a bar of `total` steps; the context gives the function that advances it."""
        ...

    def note(self, text: str) -> None:
        """Show one line to the user."""
        ...


class Silent:
    """Progress without any output, for libraries and tests."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        del title, total
        yield lambda _: None

    def note(self, text: str) -> None:
        del text
