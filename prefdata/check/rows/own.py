"""Checks of your own: functions of a row that a config names in `checks.own`.

    def no_links(row, *, most=0):
        '''The chosen side has links.

        Remove them, or raise `most`.
        '''
        links = sum(turn["content"].count("https://") for turn in row["chosen"])
        return f"{links} links" if links > most else None

A row is a record (`records/schema.py`) as Python values, and has passed all other checks of rows.
None means that it is fine; a text is the message of a finding. The name in the config is the code
of the finding, W by default. The docstring is its text for reports: meaning, then advice.
"""

import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from prefdata.check.catalog import Check, all_checks, catalog
from prefdata.errors import UsageError
from prefdata.store.commit import sha256_file

GROUP = "prefdata.checks"
RowCheck = Callable[..., str | None]
Messages = dict[str, dict[int, str]]
"""Messages of a batch's findings, by code and row."""
_ROWS = 1024  # converted to Python values at a time
_MOST_CHARACTERS = 500  # of a message


class OwnCheck(NamedTuple):
    """One check as plain values, from which each worker loads it."""

    name: str
    settings: Mapping[str, Any]
    sha256: str
    """Digest of the file that defines the function: a changed function is another build."""


def own_checks(settings: Mapping[str, Mapping[str, Any]]) -> tuple[OwnCheck, ...]:
    """Return the checks of `checks.own`."""
    return tuple(OwnCheck(name, own, _load(name)[1]) for name, own in settings.items())


def require_own(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ValueError if there is no such function, or it does not take the settings."""
    if name in all_checks():
        message = f"{name!r} is the code of a shipped check"
        raise ValueError(message)
    try:
        inspect.signature(_load(name)[0]).bind({}, **settings)
    except TypeError as error:
        message = f"{name!r} cannot be called with a row and these settings: {error}"
        raise ValueError(message) from error


def is_own(code: str) -> bool:
    """Return whether a code is spelled as one of a user's own checks, or is an entry point."""
    return ":" in code or bool(entry_points(group=GROUP, name=code))


def check_of(code: str) -> Check:
    """Return the texts of a shipped check, or of one of your own from its docstring."""
    if code in catalog():
        return catalog()[code]
    meaning, _, advice = (inspect.getdoc(_load(code)[0]) or "").partition("\n\n")
    meaning, advice = (" ".join(text.split()) for text in (meaning, advice))
    name = code.rpartition(":")[2]
    meaning = meaning or f"The function {name} of your own found the row."
    advice = advice or f"Fix the row, or set severity of {code} to off."
    return Check(code, name, "W", "row", "checking", meaning, advice, "")


@cache
def _load(name: str) -> tuple[RowCheck, str]:
    """Return a function and the digest of its file; modules of the working directory are found."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = _find(name)
        return found, sha256_file(Path(inspect.getfile(inspect.unwrap(found))))
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        message = f"{name!r} cannot be used ({type(error).__name__}: {error})"
        raise ValueError(message) from error


def _find(name: str) -> RowCheck:
    module, _, attribute = name.partition(":")
    points = entry_points(group=GROUP, name=name)
    if not (attribute or points):
        message = f"it is neither module:function nor one of the entry points {GROUP}"
        raise LookupError(message)
    found: RowCheck = points[name].load() if points else getattr(import_module(module), attribute)
    if not inspect.isfunction(inspect.unwrap(found)):
        raise TypeError("it is not a function")
    if inspect.iscoroutinefunction(inspect.unwrap(found)) or inspect.isgeneratorfunction(found):
        message = "it is async or a generator; write a plain function that returns a text or None"
        raise TypeError(message)
    return found


def find_own(pairs: pa.Table, rows: pl.Series, checks: Sequence[OwnCheck]) -> Messages:
    """Return what the checks find in the given rows of a table of RECORDS."""
    functions = [_function_of(check) for check in checks]
    found: Messages = {check.name: {} for check in checks}
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        for at, row in zip(some, pairs.take(some.to_arrow()).to_pylist(), strict=True):
            for check, function in zip(checks, functions, strict=True):
                said = _call(check, function, row)
                if said is not None:
                    found[check.name][at] = said
    return found


def _function_of(check: OwnCheck) -> RowCheck:
    try:
        function, sha256 = _load(check.name)
    except ValueError as error:  # on another machine, or since the build began
        remedy = "install it on every machine of the cluster"
        raise UsageError("C123", "checks.own", f"{error} in a worker", remedy) from error
    if sha256 != check.sha256:
        problem = "its file changed since the build began"
        raise UsageError("E115", check.name, problem, "run again when no process writes to it")
    return function


def _call(check: OwnCheck, function: RowCheck, row: dict[str, Any]) -> str | None:
    """Return the message of a row, or None; raise a UsageError if the function is faulty."""
    try:
        said = function(row, **check.settings)
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        at = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())
        problem = (
            f"raised {type(error).__name__}: {text:.200} ({Path(at.filename).name}:{at.lineno})"
        )
        raise _faulty(check, row, problem) from error
    if said is None:
        return None
    if not isinstance(said, str):
        raise _faulty(check, row, f"returned {said!r:.40}")
    said = " ".join(said.encode("utf-8", "replace").decode().split())
    return f"{check.name.rpartition(':')[2]}: {said:.{_MOST_CHARACTERS}}"


def _faulty(check: OwnCheck, row: dict[str, Any], problem: str) -> UsageError:
    remedy = "fix the function: it returns a text for a row that it finds, and None for others"
    return UsageError(
        "C123", f"{row['source']}:{row['line']}", f"the check {check.name} {problem}", remedy
    )
