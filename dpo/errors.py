"""Errors of training that a user can fix: place, problem, remedy.

DpoError
├── UsageError       exit 2   a config, a model or a prompts file that cannot be used
├── MismatchError    exit 2   shards, reference and model do not match
└── TrainingError    exit 1   a run cannot continue, such as at a loss of NaN
"""

from prefdata.errors import CodedError


class DpoError(CodedError):
    """An error of training or of its settings.

    `T1..` are configs and models, `T2..` mismatches, `T3..` errors of a run.
    """


class UsageError(DpoError):
    """A config, model or file that cannot be used."""


class MismatchError(DpoError):
    """Two inputs that must match and do not."""


class TrainingError(DpoError):
    """A run that cannot continue without harm."""

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
"""Exceptions that a model's code raises when it is run in a way that it does not support."""
_SAYS_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_of_memory(error: Exception) -> bool:
    """Return whether an error of torch or of Python is an OOM."""
    kind, said = type(error).__name__, str(error).lower()
    return kind in ("OutOfMemoryError", "MemoryError") or any(part in said for part in _SAYS_MEMORY)


def first_line(error: Exception) -> str:
    """Return the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
