"""Trial of a chat template on a few dialogues, in a process limited to 5 s and 1 GiB.

A template is a program that came with a model. The sandbox limits what it can access, but not its
time or memory, so it is tried once in a process where that does no harm (limited.py).
"""

from datetime import date
from typing import Any

import jinja2

from prefdata.errors import UsageError
from prefdata.tokens.chat_template import TEMPLATE_FAULTS
from prefdata.tokens.template.limited import (
    Limits,
    TemplateLimitError,
    TemplateProcess,
    TemplateProcessError,
)

SECONDS = 5
BYTES = 1 << 30
_LIMITS = Limits(SECONDS, BYTES, is_per_row=False)

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
        self._processes = [
            TemplateProcess(source, day, variables, limits=_LIMITS) for source in templates.values()
        ]
        for process in self._processes:
            for messages, tools in DIALOGUES:
                process.send(messages, tools, add_generation_prompt=True)
                process.send(messages, tools, add_generation_prompt=False)

    def finish(self) -> None:
        """Raise C117 or C118 for a template that no build may run."""
        with self:
            for process in self._processes:
                for _ in range(2 * len(DIALOGUES)):
                    _require_harmless(process)

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.close()


def _require_harmless(process: TemplateProcess) -> None:
    """Receive the text of one dialogue; a template may refuse it, but not exceed its limits."""
    remedy = "name another template with chat_template: FILE"
    try:
        process.receive()
    except jinja2.exceptions.SecurityError as error:
        problem = f"accesses what a template may not access: {' '.join(str(error).split())[:200]}"
        raise UsageError("C118", "chat template", problem, remedy) from error
    except TemplateLimitError as error:
        if isinstance(error, TemplateProcessError) and error.code > 0:
            last = error.said.strip().rpartition("\n")[2]
            message = f"the trial of the chat template did not run: {last[:500]}"
            raise RuntimeError(message) from error
        problem = f"takes more than {SECONDS} s or {BYTES >> 30} GiB for a short dialogue"
        raise UsageError("C117", "chat template", problem, remedy) from error
    except (UsageError, *TEMPLATE_FAULTS):
        return  # what does not compile is reported when it is needed
