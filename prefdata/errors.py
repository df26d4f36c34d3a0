"""Errors of the user, as place, problem and remedy.

CodedError                    both packages' errors; dpo/errors.py has the other half
└── PrefdataError
    ├── UsageError      exit 2   a config, a flag, a file or a directory that cannot be used
    ├── EmptyError      exit 3   no row is left, or the whole set is refused, so nothing is built
    ├── LockedError     exit 4   another builder is at work in this directory
    └── UnexpectedError exit 70  a bug in this package (X001)
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MARK = "while working on "


class CodedError(Exception):
    """Error that is one coded line for the user: `place: problem; remedy [code]`.

    Codes are permanent. `E1..` are files and directories, `C1..` configs, `PD...` rows and sets,
    `T...` the trainer, `X...` bugs in this package.
    """

    exit_code = 2

    def __init__(self, code: str, place: str, problem: str, remedy: str) -> None:
        self.code, self.place, self.problem, self.remedy = code, place, problem, remedy
        super().__init__(f"{place}: {problem}; {remedy} [{code}]")

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the four parts to rebuild the error from, because workers pickle errors."""
        return type(self), (self.code, self.place, self.problem, self.remedy)


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception: like Ctrl-C, so that everything open is closed."""

    exit_code = 143


class PrefdataError(CodedError):
    """Error in preference data, or in a request to process it."""


class UsageError(PrefdataError):
    """Error of a file, directory, config or flag that cannot be used."""


class EmptyError(PrefdataError):
    """Error of a build that has no row left, or whose whole dataset is refused."""

    exit_code = 3
    report: Any = None
    """The report, if its findings are the reason; a command prints it before the error."""


class LockedError(PrefdataError):
    """Error of a directory that another process has locked."""

    exit_code = 4


class UnexpectedError(PrefdataError):
    """Error that is presumably a bug in this package; `report` is its traceback."""

    exit_code = 70

    def __init__(self, place: str, problem: str, report: str) -> None:
        self.report = report
        remedy = "run again with --debug to see where, and report it"
        super().__init__("X001", place, problem, remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place, self.problem, self.report)


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
    except (CodedError, OSError, MemoryError):  # the command can explain these
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
