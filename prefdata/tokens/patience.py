"""A limit to the time that one row may keep a chat template busy."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import jinja2

SECONDS = 5.0


class _TooLongError(jinja2.TemplateError):
    """A template refuses a row that it cannot be done with."""


class Patience:
    """While it is open, `run` raises a `jinja2.TemplateError` when its time is over.

    It needs the alarm of the process, so in other threads than the main one there is no limit.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._before: Any = None
        self._is_armed = False

    def __enter__(self) -> "Patience":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGALRM, self._end)
            self._is_armed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_armed:
            signal.signal(signal.SIGALRM, self._before)
            self._is_armed = False

    def run(self, work: Callable[[], str]) -> str:
        """What `work` returns, if it does in time."""
        if not self._is_armed:
            return work()
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            return work()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        message = f"it is not done after {self._seconds:g} s"
        raise _TooLongError(message)
