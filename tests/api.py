"""The list of docs/api.md: each public name with its signature and its docstring's first part."""

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import dpo
import prefdata


def list_api() -> Iterator[str]:
    """Yield the Markdown of all public names of both packages."""
    for package in (prefdata, dpo):
        yield f"## {package.__name__}"
        for name in sorted(package.__all__, key=str.casefold):
            yield from _entry(package.__name__, name, getattr(package, name))


def _entry(package: str, name: str, value: Any) -> Iterator[str]:
    yield ""
    yield f"### `{package}.{name}`"
    yield ""
    if inspect.isfunction(value):
        yield from ["```python", *_signature(name, value), "```", ""]
    if isinstance(value, dict):
        yield from textwrap.wrap(f"Losses by name: {', '.join(f'`{key}`' for key in value)}.", 110)
        return
    yield from _paragraph(value)
    methods = _methods(value) if inspect.isclass(value) else []
    if methods:
        yield ""
        yield from methods


def _signature(name: str, function: Any) -> list[str]:
    """Return a signature, one parameter a line if it is long; types as in the source."""
    signature = inspect.signature(function)
    bare = [
        one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()
    ]
    lambdas = [
        one.replace(default=_Shown()) if callable(one.default) and one.default is not one.empty
        else one for one in bare
    ]  # fmt: skip
    text = f"{name}{signature.replace(parameters=lambdas, return_annotation=signature.empty)}"
    return textwrap.wrap(text, 96, subsequent_indent="    ", break_long_words=False)


class _Shown:
    """Default that is a function or an object, shown as three dots."""

    def __repr__(self) -> str:
        return "…"


def _paragraph(value: Any) -> list[str]:
    text = inspect.getdoc(value) or ""
    return textwrap.wrap(" ".join(text.partition("\n\n")[0].split()), 110)


def _methods(kind: type) -> list[str]:
    """Return a line for each documented method and property of a class."""
    found = []
    for name, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else value
        is_own = inspect.isfunction(function) and not name.startswith("_")
        if is_own and inspect.getdoc(function):
            call = "" if isinstance(value, property) else "()"
            found.append(f"* `.{name}{call}`: {' '.join(_paragraph(function))}")
    return found
