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


MODEL_ERRORS = (
    TypeError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    AttributeError,
    LookupError,
    AssertionError,
    ArithmeticError,
)
"""What the code of a model raises when it is run in a way that it does not know."""
_SAYS_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_of_memory(error: Exception) -> bool:
    """Return whether an error of torch or of Python says that memory does not suffice."""
    kind, said = type(error).__name__, str(error).lower()
    return kind in ("OutOfMemoryError", "MemoryError") or any(part in said for part in _SAYS_MEMORY)


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
