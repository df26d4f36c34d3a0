"""Unexpected errors: the place where they happened, and pickling to another process."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefdata.errors import CodedError, PrefdataError

_MARK = "while working on "
FORESEEN = (CodedError, OSError, MemoryError)
"""Errors that the command can explain; they are passed to another process unchanged."""


class UnexpectedError(PrefdataError):
    """Error that is presumably a bug in this package; `report` is its traceback."""

    exit_code = 70

    def __init__(self, place: str, problem: str, report: str) -> None:
        self.report = report
        remedy = "run again with --debug to see where, and report it"
        super().__init__("X001", place, problem, remedy)

    def __reduce__(self) -> tuple[type["UnexpectedError"], tuple[Any, ...]]:
        return UnexpectedError, (self.place, self.problem, self.report)


@contextmanager
def working_on(place: str) -> Iterator[None]:
    """Add the place to an exception that leaves the block, for the line that a user sees."""
    try:
        yield
    except Exception as error:
        error.add_note(_MARK + place)
        raise


@contextmanager
def crossing(place: str) -> Iterator[None]:
    """Turn an unexpected exception into one that can be pickled, with its traceback as text.

    Many library exceptions cannot be rebuilt from their arguments; a pool would then report a
    killed worker.
    """
    try:
        with working_on(place):
            yield
    except FORESEEN:
        raise
    except Exception as error:  # noqa: BLE001 - of any kind, and raised again
        raise unexpected(error, place) from None


def unexpected(error: BaseException, place: str) -> UnexpectedError:
    """Return the coded form of an exception; `place` is used if the exception has none."""
    if isinstance(error, UnexpectedError):
        return error
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else text[:197] + "..."
    problem = f"unexpected {type(error).__name__}" + (f": {text}" if text else "")
    report = "".join(traceback.format_exception(error))
    return UnexpectedError(place_of(error) or place, problem, report)


def place_of(error: BaseException) -> str | None:
    """Return the innermost place that `working_on` added to an exception."""
    notes = (str(note) for note in getattr(error, "__notes__", ()))
    return next((note.removeprefix(_MARK) for note in notes if note.startswith(_MARK)), None)
