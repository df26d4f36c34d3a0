"""Trial of a chat template on a few dialogues, in a process limited to 5 s and 1 GiB.

A template is a program that came with a model. The sandbox limits what it can access, but not its
time or memory, so it is tried once in a process where that does no harm. The process reads its
task from stdin: `python -m prefdata.tokens.template.probe`.
"""

import errno
import os
import resource
import subprocess
import sys
import tempfile
from datetime import date
from types import TracebackType
from typing import Any

import jinja2
import orjson

from prefdata.errors import UsageError
from prefdata.tokens.chat_template import TEMPLATE_FAULTS, compile_template, sandbox

SECONDS = 5
BYTES = 1 << 30

_CALL = {"type": "function", "function": {"name": "search", "arguments": {"words": "tides"}}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Find pages.",
        "parameters": {"type": "object", "properties": {"words": {"type": "string"}}},
    },
}
_USER = {"role": "user", "content": "Why are there tides?"}
_ASSISTANT = {"role": "assistant", "content": "Because of the moon."}
DIALOGUES: list[tuple[list[dict[str, Any]], list[Any] | None]] = [
    ([_USER], None),
    ([{"role": "system", "content": "Be brief."}, _USER, _ASSISTANT], None),
    ([_USER, _ASSISTANT, _USER, _ASSISTANT], None),
    (
        [
            _USER,
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "content": "The moon.", "name": "search"},
            _ASSISTANT,
        ],
        [_TOOL],
    ),
]


class Probe:
    """A running trial; the caller continues with other work and calls `finish` later."""

    def __init__(self, templates: dict[str, str], variables: dict[str, Any], day: date | None):
        task = {"templates": templates, "variables": variables, "day": day}
        self._input = tempfile.TemporaryFile()  # noqa: SIM115 - the process reads it later
        self._input.write(orjson.dumps(task))
        self._input.seek(0)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefdata.tokens.template.probe"],
            stdin=self._input,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # the same packages as in this process
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def finish(self) -> None:
        """Raise C117 or C118 for a template that no build may run."""
        try:
            # a busy machine may start the process slowly; the process limits its own time
            output, said = self._process.communicate(timeout=20 * SECONDS)
        except subprocess.TimeoutExpired:
            output = said = b""
        finally:
            self.stop()
        remedy = "name another template with chat_template: FILE"
        if self._process.returncode == os.EX_IOERR:  # not the template's fault
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self._process.returncode > 0 and self._process.returncode != os.EX_UNAVAILABLE:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            message = f"the trial of the chat template did not run: {last[:500]}"
            raise RuntimeError(message)
        if self._process.returncode != 0:
            problem = f"takes more than {SECONDS} s or {BYTES >> 30} GiB for a short dialogue"
            raise UsageError("C117", "chat template", problem, remedy)
        reason = orjson.loads(output)
        if reason is not None:
            problem = f"accesses what a template may not access: {reason}"
            raise UsageError("C118", "chat template", problem, remedy)

    def __enter__(self) -> "Probe":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process, even if it has not finished."""
        self._process.kill()
        self._process.wait()
        self._input.close()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def find_trespass(
    templates: dict[str, str], variables: dict[str, Any], day: date | None
) -> str | None:
    """Return what a template tried that the sandbox forbids; None if nothing."""
    for source in templates.values():
        try:
            template = compile_template(source, sandbox(day=day))
        except UsageError:
            continue  # reported when the template is needed
        for messages, tools in DIALOGUES:
            for add_generation_prompt in (True, False):
                try:
                    template.render(
                        messages=messages,
                        tools=tools,
                        documents=None,
                        add_generation_prompt=add_generation_prompt,
                        **variables,
                    )
                except jinja2.exceptions.SecurityError as error:
                    return " ".join(str(error).split())[:200]
                except (UsageError, *TEMPLATE_FAULTS):
                    continue  # a template may refuse a dialogue
    return None


def _limit() -> None:
    """Limit this process's time and memory, on top of what it already uses."""
    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115, PTH123
    most = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS + 1))


def main() -> None:
    """Run the trial that stdin describes."""
    task = orjson.loads(sys.stdin.buffer.read())
    day = date.fromisoformat(task["day"]) if task["day"] else None
    _limit()
    try:
        answer = orjson.dumps(find_trespass(task["templates"], task["variables"], day))
    except MemoryError:
        os._exit(os.EX_UNAVAILABLE)
    try:
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
    except OSError:
        os._exit(os.EX_IOERR)  # a normal exit would write the buffer again


if __name__ == "__main__":
    main()
