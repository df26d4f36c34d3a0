"""What a user can get wrong when training: place, problem, remedy.

DpoError
├── UsageError       exit 2   a config, a model or a prompts file that cannot be used
├── MismatchError    exit 2   shards, reference and model do not belong together
└── TrainingError    exit 1   the numbers went wrong on the way
"""


class DpoError(Exception):
    """One coded line for the user: `place: problem; remedy [code]`.

    Codes are permanent. `T1..` are configs and models, `T2..` mismatches, `T3..` faults of a run.
    """

    exit_code = 2

    def __init__(self, code: str, place: str, problem: str, remedy: str) -> None:
        self.code, self.place, self.problem, self.remedy = code, place, problem, remedy
        super().__init__(f"{place}: {problem}; {remedy} [{code}]")


class UsageError(DpoError):
    """Something that the user named cannot be used."""


class MismatchError(DpoError):
    """Two things that must belong together do not."""


class TrainingError(DpoError):
    """A run cannot go on without doing harm."""

    exit_code = 1
