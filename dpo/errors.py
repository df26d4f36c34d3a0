"""What a user can get wrong when training: place, problem, remedy.

DpoError
├── UsageError       exit 2   a config, a model or a prompts file that cannot be used
├── MismatchError    exit 2   shards, reference and model do not belong together
└── TrainingError    exit 1   the numbers went wrong on the way
"""

from prefdata.errors import CodedError


class DpoError(CodedError):
    """A fault of training, or of what was asked of it.

    `T1..` are configs and models, `T2..` mismatches, `T3..` faults of a run.
    """


class UsageError(DpoError):
    """Something that the user named cannot be used."""


class MismatchError(DpoError):
    """Two things that must belong together do not."""


class TrainingError(DpoError):
    """A run cannot go on without doing harm."""

    exit_code = 1
