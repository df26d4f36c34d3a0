"""Chat templates in processes of their own: at most 5 s and 256 MiB for a dialogue.

A template is a program that came with a model, and a row can trigger its worst case. A list of
dangerous operations would never be complete (`*`, `~`, `join`, `range` in `range`, a recursion,
`%`), so time and memory are limited instead. Processes are reused: a dialogue costs one message
each way, and most dialogues are joined from a trace without any (trace.py).

It reads its requests from stdin: `python -m prefdata.tokens.template.limited`.
"""

import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import date
from functools import partial
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple

import jinja2
import orjson

from prefdata.errors import UsageError
from prefdata.tokens.chat_template import TEMPLATE_FAULTS, Message, Tools, compile_template, sandbox

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SECONDS = 5
BYTES = 256 << 20
MOST_OUTPUT = 32 << 20  # bytes of a rendered text, in addition to four times the row's bytes
_NO_MEMORY, _IO_FAULT = 69, 74  # os.EX_UNAVAILABLE and os.EX_IOERR, which Windows lacks
_STATM = Path("/proc/self/statm")
_IS_LIMITED = resource is not None and _STATM.exists()
"""True on Linux: a process limits its own memory and time."""

_Head = struct.Struct("<cQ")  # the kind of a message, and its length in bytes
_TASK, _ROW = b"S", b"R"
_TEXT, _FAULT, _FORBIDDEN, _USAGE, _TOO_LARGE = b"T", b"F", b"X", b"U", b"L"


class Limits(NamedTuple):
    """Limits of a process, on top of what it uses at its start."""

    seconds: int = SECONDS
    num_bytes: int = BYTES
    is_per_row: bool = True
    """True if each row has these seconds; False if all rows have them together."""


class TemplateLimitError(jinja2.TemplateError):
    """Rendering one row exceeded the time or memory limit."""


class TemplateProcessError(TemplateLimitError):
    """The process ended by itself, with this exit code and text on stderr."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"its process ended with exit code {code}")
        self.code, self.said = code, said


class TemplateProcess:
    """Process of one template; it starts on first use, and again if it died."""

    def __init__(
        self,
        source: str,
        day: date | None,
        variables: dict[str, Any],
        *,
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        self._limits = limits
        self._task = orjson.dumps([source, day, variables, list(limits)])
        self._process: subprocess.Popen[bytes] | None = None
        self._row_bytes, self._exceeded = 0, ""
        self._one_at_a_time = Lock()

    @property
    def pid(self) -> int | None:
        """Return the id of the running process; None if there is none."""
        return self._process.pid if self._process else None

    def render(self, messages: list[Message], tools: Tools, *, add_generation_prompt: bool) -> str:
        """Return the text of a dialogue.

        Raises jinja2.TemplateError if the template refuses it, and its subclass TemplateLimitError
        if a limit is exceeded.
        """
        with self._one_at_a_time:
            try:
                self.send(messages, tools, add_generation_prompt=add_generation_prompt)
                return self.receive()
            except (jinja2.TemplateError, UsageError):
                raise
            except BaseException:  # Ctrl-C in the middle of a reply: the next would get its rest
                self.close()
                raise

    def send(self, messages: list[Message], tools: Tools, *, add_generation_prompt: bool) -> None:
        """Ask for the text of a dialogue; `receive` returns the texts in the order of requests."""
        row = {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
        data = orjson.dumps(row)
        self._row_bytes = max(self._row_bytes, len(data))
        with suppress(BrokenPipeError):  # `receive` finds out why it died
            process = self._process or self._start()
            assert process.stdin is not None
            _send(process.stdin, _ROW, data)

    def receive(self) -> str:
        """Return the text of the next dialogue that was sent; raise as `render` does."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            with nullcontext() if _IS_LIMITED else self._watched(self._process):
                kind, data = _receive(self._process.stdout)
        except EOFError:
            raise self._why_it_died() from None
        if kind == _TEXT:
            return data.decode()
        if kind == _FAULT:
            raise jinja2.TemplateError(data.decode())
        if kind == _FORBIDDEN:
            raise jinja2.exceptions.SecurityError(data.decode())
        if kind == _USAGE:
            raise UsageError(*orjson.loads(data))
        self.close()
        raise TemplateLimitError(data.decode())

    def _watched(self, process: subprocess.Popen[bytes]) -> AbstractContextManager[None]:
        from prefdata.tokens.template.watch import watched

        def say(reason: str) -> None:
            self._exceeded = reason

        num_bytes = self._limits.num_bytes + 16 * self._row_bytes
        return watched(process, seconds=self._limits.seconds, num_bytes=num_bytes, say=say)

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            # -P: no file of the working directory may stand for a module
            [sys.executable, "-P", "-m", "prefdata.tokens.template.limited"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # the same packages as in this process
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._process.stdin is not None
        _send(self._process.stdin, _TASK, self._task)
        return self._process

    def _why_it_died(self) -> Exception:
        assert self._process is not None
        process, self._process = self._process, None
        _, said = process.communicate()
        reason, self._exceeded = self._exceeded, ""
        if not reason and process.returncode == -getattr(signal, "SIGXCPU", 0) != 0:
            reason = f"it takes more than {self._limits.seconds} s"
        if not reason and process.returncode == _NO_MEMORY:
            reason = f"it takes more than {self._limits.num_bytes >> 20} MiB"
        if reason:
            return TemplateLimitError(reason)
        if process.returncode == _IO_FAULT:  # not the template's fault
            return OSError(errno.EIO, os.strerror(errno.EIO))
        return TemplateProcessError(process.returncode, said.decode(errors="replace"))

    def close_when_idle(self) -> None:
        """End the process, after the dialogue that another thread may be rendering."""
        with self._one_at_a_time:
            self.close()

    def close(self) -> None:
        """End the process; the next dialogue starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _send(pipe: IO[bytes], kind: bytes, data: bytes) -> None:
    pipe.write(_Head.pack(kind, len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(
    pipe: IO[bytes], prepare: Callable[[int], None] = lambda _: None
) -> tuple[bytes, bytes]:
    """Return the next message; `prepare` is called with its length before it is read."""
    head = pipe.read(_Head.size)
    if len(head) < _Head.size:
        raise EOFError
    kind, length = _Head.unpack(head)
    prepare(length)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return kind, data


def _limiter(limits: Limits) -> Callable[[int], None]:
    """Return a function that limits this process for one row of this many bytes."""
    if not _IS_LIMITED:  # the parent watches
        return lambda _: None
    pages = int(_STATM.read_text(encoding="utf-8").split()[0])
    has = pages * resource.getpagesize()
    start = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def allow(row_bytes: int) -> None:
        _lower(resource.RLIMIT_AS, has + limits.num_bytes + 16 * row_bytes)
        used = 1 + sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) if limits.is_per_row else start
        _lower(resource.RLIMIT_CPU, int(used) + limits.seconds)

    return allow


def _lower(which: int, most: int) -> None:
    """Set a soft limit, which can be raised again; a lower hard limit still applies."""
    _, hard = resource.getrlimit(which)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (soft, hard))


def _answer(render: Callable[..., str], row: bytes) -> tuple[bytes, bytes]:
    try:
        data = render(**orjson.loads(row)).encode()
    except UsageError as error:
        return _USAGE, orjson.dumps([error.code, error.place, error.problem, error.remedy])
    except TEMPLATE_FAULTS as error:
        kind = _FORBIDDEN if isinstance(error, jinja2.exceptions.SecurityError) else _FAULT
        return kind, str(error).encode(errors="replace")[:2000]
    if len(data) > MOST_OUTPUT + 4 * len(row):
        return _TOO_LARGE, f"it writes {len(data):,} bytes for a row of {len(row):,}".encode()
    return _TEXT, data


def _compiled(source: str, day: date | None, variables: dict[str, Any]) -> Callable[..., str]:
    try:
        template = compile_template(source, sandbox(day=day))
    except UsageError as error:
        return partial(_refuse, error)
    return partial(template.render, documents=None, **variables)


def _refuse(error: UsageError, **_: Any) -> str:
    raise error


def _serve() -> None:
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    _, task = _receive(requests)
    source, day, variables, limits = orjson.loads(task)
    allow = _limiter(Limits(*limits))
    allow(len(task))  # compiling evaluates the constants of a template
    render = _compiled(source, day and date.fromisoformat(day), variables)
    while True:
        _, row = _receive(requests, allow)
        _send(replies, *_answer(render, row))


def main() -> None:
    """Answer requests until their pipe is closed."""
    try:
        _serve()
    except EOFError:
        return
    except MemoryError:
        os._exit(_NO_MEMORY)
    except OSError:
        os._exit(_IO_FAULT)  # a normal exit would write the buffer again


if __name__ == "__main__":
    main()
