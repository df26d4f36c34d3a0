"""Chat templates: render messages to the text that a model sees, in a sandbox.

The environment provides what transformers' `apply_chat_template` provides, so any template of the
Hub renders to the same text. It has no clock, because a build must not depend on the day.
"""

import json
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, NoReturn

import jinja2
import orjson
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prefdata.errors import UsageError

# Exceptions that a template can raise on a row that it does not expect.
TEMPLATE_FAULTS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

REASONING = ("thinking", "reasoning", "reasoning_content")
Message = dict[str, Any]
Tools = list[Any] | None

_DICT_NAMES = frozenset(dir(dict))
_LOOP_FACTS = frozenset({"first", "last", "index", "index0", "length", "revindex", "revindex0"})


class _Generation(Extension):
    """Parser of `{% generation %}`, which marks assistant text; its body is rendered unchanged."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own attribute

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _Namespace(jinja2.utils.Namespace):
    """Namespace whose private names a template cannot set."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            message = f"a template may not set {name!r}"
            raise jinja2.exceptions.SecurityError(message)
        super().__setitem__(name, value)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a fast path for the two look-ups that templates make most.

    Keys of a plain message that are not methods of dict, and public attributes of a loop, pass
    every check of the slow path, so both paths return the same.
    """

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in _DICT_NAMES:
            return obj[attribute]
        if type(obj) is LoopContext and attribute in _LOOP_FACTS:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        """Raise at once; Jinja itself returns a value that renders as an empty text."""
        message = f"{attribute!r} of a {type(obj).__name__}"
        raise jinja2.exceptions.SecurityError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - templates call it so
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """Return a value as JSON, without the HTML escapes of Jinja's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _today(day: date | None) -> Callable[[str], str]:
    def strftime_now(form: str) -> str:
        if day is None:
            problem = "writes today's date, so a build would change from day to day"
            raise UsageError("C114", "chat template", problem, "set template_date: YYYY-MM-DD")
        return datetime.combine(day, time()).strftime(form)

    return strftime_now


def sandbox(*, day: date | None) -> jinja2.Environment:
    """Return the environment that templates run in; `day` is their date of today."""
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": _today(day),
        "dict": _new_dict,
        "namespace": _Namespace,
    }
    return environment


def compile_template(source: str, environment: jinja2.Environment) -> jinja2.Template:
    """Compile a template; raise C113 if it does not compile."""
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        problem = f"does not compile: {error}"
        raise UsageError("C113", "chat template", problem, "fix it or name another") from error


def texts_looked_for(source: str) -> set[str]:
    """Return the literals that a template compares with its input or splits its input at."""
    try:
        tree = sandbox(day=None).parse(source)
    except jinja2.TemplateError:
        return set()
    compared = [node.expr for node in tree.find_all(nodes.Compare)]
    compared += [operand.expr for operand in tree.find_all(nodes.Operand)]
    calls = [node for node in tree.find_all(nodes.Call) if isinstance(node.node, nodes.Getattr)]
    called = [part for node in calls for part in node.args]
    called += [part for node in tree.find_all(nodes.Filter) for part in node.args]
    literals = (node.value for node in compared + called if isinstance(node, nodes.Const))
    return {value for value in literals if isinstance(value, str)}


def plain_message(
    role: str,
    content: str,
    name: str | None,
    tool_calls: str | None,
    tool_call_id: str | None,
    reasoning: str | None,
) -> Message:
    """Return a message for templates: no keys without values, reasoning under its usual names."""
    message: Message = {"role": role, "content": content}
    if name is not None:
        message["name"] = name
    if tool_calls is not None:
        message["tool_calls"] = orjson.loads(tool_calls)
    if tool_call_id is not None:
        message["tool_call_id"] = tool_call_id
    if reasoning is not None:
        message |= dict.fromkeys(REASONING, reasoning)
    return message
