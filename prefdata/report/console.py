"""Escaping of terminal output: the only control sequences are those of this package's own styles.

Data comes from three sources: lines that a command prints, tables and bars of rich, and logs of
libraries. `say` and `PlainConsole` escape the first two, `HarmlessStream` the last.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import Progress, ProgressColumn
from rich.segment import Segment

from prefdata.report.safe import plain, without_secrets

_CURSOR = re.compile(r"\n*(?:\x1b\[A)*")
"""Cursor movement of tqdm between bars, always in a separate write."""


class HarmlessStream:
    """Text stream that escapes control characters and masks secrets."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str | bytes) -> int:
        if isinstance(text, bytes):  # click completes words in bytes
            text = text.decode("utf-8", "backslashreplace")
        if _CURSOR.fullmatch(text):
            return self.raw.write(text)
        start = "\r" if text.startswith("\r") else ""  # a bar is drawn over itself
        end = "\r" if len(text) > 1 and text.endswith("\r") else ""
        inner = text[len(start) : len(text) - len(end)].replace("\r\n", "\n")
        self.raw.write(start + without_secrets(plain(inner, lines=True)) + end)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # click would write to it, without the escaping
            raise AttributeError(name)
        return getattr(self.raw, name)


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Escape stdout and stderr; characters that their encoding lacks are escaped too."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (
        one if one is None or isinstance(one, HarmlessStream) else HarmlessStream(one)
        for one in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class PlainConsole(Console):
    """Console whose own styles are the only control sequences; text is never markup."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        stream: Any = sys.stderr if stderr else sys.stdout
        stream = stream.raw if isinstance(stream, HarmlessStream) else stream
        super().__init__(file=stream, stderr=stderr, quiet=quiet, markup=False, emoji=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return the segments of a renderable, their text escaped."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable() or text == "\n":
                yield segment
            else:
                yield segment._replace(text=without_secrets(plain(text, lines=True)))


def make_bars(console: Console, *columns: ProgressColumn, **options: Any) -> Progress:
    """Return bars on a console. Other output is not redirected: rich would obey its escapes."""
    return Progress(
        *columns, console=console, redirect_stdout=False, redirect_stderr=False, **options
    )
