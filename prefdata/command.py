"""Wrapper for every command of both packages: each error ends as one line and an exit code.

0 done or clean · 1 findings at or above --fail-on, or a run with non-finite numbers · 2 a file,
option or machine cannot be used · 3 no row is left · 4 another process has the lock · 70 a bug in
this package (X001) · 130 Ctrl-C · 141 the reader of a pipe is gone · 143 SIGTERM.
"""

import errno
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from prefdata.errors import (
    CodedError,
    Terminated,
    UnexpectedError,
    UsageError,
    place_of,
    unexpected,
)
from prefdata.report.console import harmless_streams
from prefdata.report.safe import plain, without_secrets
from prefdata.settings import RenamedKeyWarning
from prefdata.store.commit import DISK_REMEDY, disk_fault

INTERRUPTED, PIPE_CLOSED = 130, 141
_STOPPED = "stopped; run the same command again: what is done is kept"
_THREADS = ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that libraries read as a number; a wrong one can end the process."""


class Command(click.Command):
    """Command whose errors are one line on stderr, with the error's exit code."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = {"help_option_names": ["-h", "--help"]}
        kwargs["context_settings"] = names | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)
        # in a raw docstring, click's mark for lines that are not rewrapped is spelled out
        self.help = (self.help or "").replace("\\b\n", "\b\n")
        text = "Print the traceback of an unexpected error (X001)."
        self.params.append(click.Option(["--debug"], is_flag=True, expose_value=False, help=text))
        click.version_option(package_name="prefdata-dpo")(self)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command itself."""
        return _until_the_reader_leaves(super().invoke, ctx)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run and exit, as click's `main` does."""
        _run(super().main, args, options)


class Group(click.Group):
    """Group of such commands."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command itself."""
        return _until_the_reader_leaves(super().invoke, ctx)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run and exit, as click's `main` does."""
        with _clean_ends():
            _run(super().main, args, options)


@contextmanager
def _clean_ends() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that processes and their semaphores are closed.

    Only without another handler, and in the main thread, because only it gets signals.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Terminated


Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def completes(names: Callable[[], Iterable[str]]) -> Complete:
    """Return the completion of an argument or option whose values have these names."""

    def complete(_context: click.Context, _param: click.Parameter, begun: str) -> list[str]:
        return [name for name in names() if name.lower().startswith(begun.lower())]

    return complete


def _layouts() -> Iterable[str]:
    from prefdata.read import known_layouts

    return known_layouts()


def _checks() -> Iterable[str]:
    from prefdata.check.catalog import all_checks

    return all_checks()


def _codes() -> Iterable[str]:
    from prefdata.report.explain import errors

    return [*_checks(), *errors()]


def _settings() -> Iterable[str]:
    from prefdata.config import BuildConfig
    from prefdata.settings import key_paths

    return key_paths(BuildConfig)


SETTINGS = completes(_settings)
LAYOUTS, CHECKS, CODES = completes(_layouts), completes(_checks), completes(_codes)
SEVERITIES = completes(lambda: (f"{code}=" for code in _checks()))


def say(line: str, *, err: bool = False) -> None:
    """Print exactly one line, with control characters escaped and secrets removed."""
    click.echo(without_secrets(plain(line)), err=err)


def say_error(line: str) -> None:
    """Print a line to stderr, if possible; stderr may be on the same full disk."""
    with suppress(OSError, ValueError):
        say(line, err=True)


def _run(main: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> NoReturn:
    """Run click's `main`, report what it raises, and exit."""
    given = args[0] if args else options.get("args")
    words = sys.argv[1:] if given is None else list(given)

    def work() -> Any:
        _require_sound_start(words)
        return _flush(main(*args, **{**options, "standalone_mode": False}))

    with harmless_streams(), _renamed_keys_in_one_line():
        name = options.get("prog_name") or Path(sys.argv[0]).stem
        code = _guarded(work, name, debug="--debug" in words)
    sys.exit(code)


@contextmanager
def _renamed_keys_in_one_line() -> Iterator[None]:
    """Show the warning of a renamed setting as one line, without the location in the code."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, RenamedKeyWarning):
            say_error(f"note: {message}")
        else:
            usual(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def _until_the_reader_leaves(invoke: Callable[[click.Context], Any], ctx: click.Context) -> Any:
    """Exit with 141 if the output's reader is gone; click would exit with 1, which is findings."""
    try:
        return invoke(ctx)
    except BrokenPipeError:
        _drop_output()
        return ctx.exit(PIPE_CLOSED)


def _guarded(work: Callable[[], Any], name: str, *, debug: bool) -> Any:
    """Run `work`; return its exit code, or that of its error."""
    try:
        return work()
    except SystemExit as ended:
        return _guarded(partial(_flush, ended.code), name, debug=debug)
    except BaseException as error:  # noqa: BLE001 - the only handler for all exceptions
        return _report(error, name, debug=debug)


def _flush(code: Any) -> Any:
    """Return the code after writing all output, so that a full disk is an error too."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    return code


def _require_sound_start(words: Sequence[str]) -> None:
    """Check arguments and environment, which would otherwise fail deep inside a library."""
    for word in words:
        try:
            word.encode("utf-8")
        except UnicodeEncodeError:
            problem = f"is not text in {sys.getfilesystemencoding()}"
            raise UsageError("E190", word, problem, _LOCALE_REMEDY) from None
    for name in _THREADS:
        value = os.environ.get(name)
        numbers = (value or "1").split(",")  # OpenMP takes one number per nesting level
        if not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
            problem = "is not a number of threads"
            raise UsageError("E193", f"{name}={value}", problem, "unset it, or set 1 or more")


def _report(error: BaseException, name: str, *, debug: bool) -> int:
    """Print a command's error as one line; return the exit code."""
    if isinstance(error, click.Abort) and error.__cause__ is not None:
        error = error.__cause__  # click raises Abort for Ctrl-C and for end of file
    error = _interrupt_under(error) or error
    if isinstance(error, KeyboardInterrupt | click.Abort):
        say_error(_STOPPED)
        return error.exit_code if isinstance(error, Terminated) else INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return PIPE_CLOSED
    coded = error if isinstance(error, CodedError) else _coded(error, name)
    if isinstance(coded, UnexpectedError):
        _say_unexpected(coded, debug=debug)
    else:
        say_error(str(coded))
    with suppress(OSError, ValueError):
        return _flush(coded.exit_code)  # type: ignore[no-any-return]
    _drop_output()
    return coded.exit_code


def _interrupt_under(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the Ctrl-C that an import wrapped in an error of its own; None if there is none."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error


def _coded(error: BaseException, name: str) -> CodedError:
    """Return the coded form of an exception of the system, click or a library."""
    place = str(getattr(error, "filename", None) or place_of(error) or name)
    if isinstance(error, click.ClickException):
        return _click_error(error, name)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        remedy = "lower workers, limits or the tokens of a pack, or use a larger machine"
        return UsageError("E191", place, "memory ran out", remedy)
    if (fault := disk_fault(error)) is not None:
        is_limit = fault == os.strerror(errno.EFBIG)
        return UsageError("E151", place, fault, _LIMIT_REMEDY if is_limit else DISK_REMEDY)
    return _of_system(error, place) or unexpected(error, place)


def _of_system(error: BaseException, place: str) -> CodedError | None:
    """Return the coded form of an error of the operating system or the locale."""
    if isinstance(error, UnicodeEncodeError):  # a name: contents are checked when they are read
        shown = error.object if len(error.object) <= 80 else error.object[:77] + "..."
        return UsageError("E190", shown, f"cannot be written in {error.encoding}", _LOCALE_REMEDY)
    if isinstance(error, OSError) and (error.filename or error.errno in _OF_THE_MACHINE):
        remedy = _REMEDIES.get(error.errno or 0, "check the path and its permissions")
        return UsageError("E192", place, f"cannot be used ({error.strerror})", remedy)
    return None


_LOCALE_REMEDY = "rename it, or set LC_ALL=C.UTF-8 if the name is right"
_LIMIT_REMEDY = "raise `ulimit -f` and run again: what is done is kept"
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_REMEDIES = {
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "close other programs: the machine has no file handles left",
    errno.ENOMEM: "lower workers, or use a larger machine",
    errno.EAGAIN: "raise `ulimit -u`, or lower workers",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "name the file itself: its links form a cycle",
}


def _click_error(error: click.ClickException, name: str) -> UsageError:
    context = getattr(error, "ctx", None)
    name = context.command_path if context else name
    problem = error.format_message().rstrip(".")
    return UsageError("C121", name, problem[:1].lower() + problem[1:], f"see `{name} --help`")


def _say_unexpected(error: UnexpectedError, *, debug: bool) -> None:
    """Print the line of an unexpected error, and write its traceback to a temporary file."""
    report = without_secrets(error.report)
    if debug:
        with suppress(OSError, ValueError):
            click.echo(plain(report, lines=True), err=True)
    remedy = error.remedy
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", prefix="prefdata-error-",
            suffix=".txt", delete=False,
        ) as file:  # fmt: skip
            file.write(report)
        remedy = f"the traceback is in {file.name}; report it with the command"
    except OSError:
        pass  # no place to write to: --debug still prints it
    say_error(f"{error.place}: {error.problem}; {remedy} [{error.code}]")


def _drop_output() -> None:
    """Redirect closed output to the null device, so that the interpreter's own flush is quiet."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
                continue
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(nothing, stream.fileno())
        os.close(nothing)
