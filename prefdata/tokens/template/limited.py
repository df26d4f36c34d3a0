"""Chat templates in processes of their own: at most 5 s and 256 MiB for a dialogue.

A template is a program that came with a model, and a row can trigger its worst case. A list of
dangerous operations would never be complete (`*`, `~`, `join`, `range` in `range`, a recursion,
`%`), so time and memory are limited instead. Processes are reused: a dialogue costs one message
each way, and most dialogues are joined from a trace without any (trace.py).

It reads its requests from stdin: `python -m prefdata.tokens.template.limited`.
"""

import atexit
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from threading import Lock
from typing import IO, Any

import jinja2
import orjson

from prefdata.errors import UsageError
from prefdata.tokens.chat_template import TEMPLATE_FAULTS, compile_template, sandbox

SECONDS = 5
BYTES = 256 << 20
MOST_OUTPUT = 32 << 20  # bytes of a rendered text, in addition to four times the row's bytes
_KEPT = 4  # processes, one per template

_Head = struct.Struct("<cQ")  # the kind of a message, and its length in bytes
_TEXT, _FAULT, _USAGE, _TOO_LARGE, _TASK, _ROW = b"T", b"F", b"U", b"L", b"S", b"R"


class TemplateLimitError(jinja2.TemplateError):
    """Rendering one row exceeded the time or memory limit."""


class TemplateProcess:
    """Process of one template; it starts on first use, and again if it died."""

    def __init__(
        self, source: str, day: date | None, variables: dict[str, Any], *, seconds: int = SECONDS
    ) -> None:
        self._task = orjson.dumps(
            {"source": source, "day": day, "variables": variables, "seconds": seconds}
        )
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = Lock()

    @property
    def pid(self) -> int | None:
        """Return the id of the running process; None if there is none."""
        return self._process.pid if self._process else None

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        *,
        add_generation_prompt: bool,
    ) -> str:
        """Return the text of a dialogue.

        Raises jinja2.TemplateError if the template refuses it, and its subclass TemplateLimitError
        if a limit is exceeded.
        """
        row = {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
        with self._one_at_a_time:
            kind, data = self._ask(orjson.dumps(row))
        if kind == _TEXT:
            return data.decode()
        if kind == _FAULT:
            raise jinja2.TemplateError(data.decode())
        if kind == _USAGE:
            raise UsageError(*orjson.loads(data))
        what = data.decode() or f"it takes more than {BYTES >> 20} MiB"
        raise TemplateLimitError(what)

    def _ask(self, row: bytes) -> tuple[bytes, bytes]:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, _ROW, row)
            kind, data = _receive(process.stdout)
        except (OSError, EOFError):
            return _TOO_LARGE, self._why_it_died().encode()
        except BaseException:  # Ctrl-C in the middle of a reply: the next read would get its rest
            self.close()
            raise
        if kind == _TOO_LARGE:
            self.close()
        return kind, data

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefdata.tokens.template.limited"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        _send(self._process.stdin, _TASK, self._task)
        return self._process

    def _why_it_died(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == -signal.SIGXCPU:
            return f"it takes more than {self._seconds} s"
        return f"its process ended with exit code {code}"

    def close_when_idle(self) -> None:
        """End the process, after the dialogue that another thread may be rendering."""
        with self._one_at_a_time:
            self.close()

    def close(self) -> None:
        """End the process; the next dialogue starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    _close(pipe)
            process.wait()


_processes: dict[tuple[str, date | None, bytes], TemplateProcess] = {}


def template_process(source: str, day: date | None, variables: bytes) -> TemplateProcess:
    """Return the process of a template; the most recently used ones are kept."""
    key = (source, day, variables)
    found = _processes.pop(key, None) or TemplateProcess(source, day, orjson.loads(variables))
    _processes[key] = found
    if len(_processes) > _KEPT:
        _processes.pop(next(iter(_processes))).close_when_idle()
    return found


@atexit.register
def _close_all() -> None:
    for process in _processes.values():
        process.close()
    _processes.clear()


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:  # a dead process needs no unsent data
        return


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


class _Limits:
    """Limits of this process, on top of what it uses at its start."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115, PTH123
        self._has = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def allow(self, num_bytes: int) -> None:
        """Set the limits for one row of this many bytes."""
        most = self._has + BYTES + 16 * num_bytes
        _lower(resource.RLIMIT_AS, most)
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _lower(resource.RLIMIT_CPU, int(used) + 1 + self._seconds)


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
        return _FAULT, str(error).encode(errors="replace")[:2000]
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


def main() -> None:
    """Answer requests until their pipe is closed."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    _, task = _receive(requests)
    given = orjson.loads(task)
    day = date.fromisoformat(given["day"]) if given["day"] else None
    limits = _Limits(given["seconds"])
    limits.allow(len(task))  # compiling evaluates the constants of a template
    render = _compiled(given["source"], day, given["variables"])
    while True:
        try:
            _, row = _receive(requests, limits.allow)
            kind, data = _answer(render, row)
        except EOFError:
            return
        except MemoryError:
            kind, data = _TOO_LARGE, b""
        _send(replies, kind, data)


if __name__ == "__main__":
    main()
