"""Errors of the user, as place, problem and remedy.

CodedError                    both packages' errors; dpo/errors.py has the other half
└── PrefdataError
    ├── UsageError      exit 2   a config, a flag, a file or a directory that cannot be used
    ├── EmptyError      exit 3   no row is left, or the whole set is refused, so nothing is built
    ├── LockedError     exit 4   another builder is at work in this directory
    └── UnexpectedError exit 70  a bug in this package (X001), in unexpected.py
"""

from typing import Any


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
