"""What a user can get wrong: place, problem, remedy.

CodedError                    both packages' errors; dpo/errors.py has the other half
└── PrefdataError
    ├── UsageError      exit 2   a config, a flag, a file or a directory that cannot be used
    ├── EmptyError      exit 3   no row is left, or the whole set is refused, so nothing is built
    ├── LockedError     exit 4   another builder is at work in this directory
    └── UnexpectedError exit 70  a fault of ours (X001), in unexpected.py
"""

from typing import Any


class CodedError(Exception):
    """One coded line for the user: `place: problem; remedy [code]`.

    Codes are permanent. `E1..` are files and directories, `C1..` configs, `PD...` rows and sets,
    `T...` the trainer, `X...` faults of ours.
    """

    exit_code = 2

    def __init__(self, code: str, place: str, problem: str, remedy: str) -> None:
        self.code, self.place, self.problem, self.remedy = code, place, problem, remedy
        super().__init__(f"{place}: {problem}; {remedy} [{code}]")

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process borders, so they are rebuilt from their four parts."""
        return type(self), (self.code, self.place, self.problem, self.remedy)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as the commands of prefdata get it: like Ctrl-C, all that is open is closed."""

    exit_code = 143


class PrefdataError(CodedError):
    """A fault of preference data, or of what was asked of it."""


class UsageError(PrefdataError):
    """Something that the user named cannot be used."""


class EmptyError(PrefdataError):
    """No row is left, or none may be used."""

    exit_code = 3
    report: Any = None
    """The report of what was found, if that is why: a command prints it before the error."""


class LockedError(PrefdataError):
    """Another process holds the folder."""

    exit_code = 4
