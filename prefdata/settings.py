"""Strict reader of YAML settings, for both packages, with coded errors.

YAML 1.1, which PyYAML reads, has traps that change what is trained: `no` is false, `010` is 8,
`1:30` is 90, and if a key is given twice, the last one wins. Here words such as `no` are read as
the field's type requires, and the other traps are errors.
"""

import difflib
import errno
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

AnyModel = TypeVar("AnyModel", bound=BaseModel)
Refuse = Callable[[str, str], Exception]
"""Function that makes an error from a problem and its remedy."""

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Limit on a file with its aliases expanded: five lines can expand to a billion values."""
_REMEDY = "fix the file"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if it is compiled
_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_WORDS = {"yes": True, "no": False, "on": True, "off": False, "true": True, "false": False}


class StrictModel(BaseModel):
    """Frozen model that takes no other types and no other names."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )


class Word(str):
    """Bare yes, no, on, off, true or false: a boolean or a string, as its field requires."""

    __slots__ = ()

    @property
    def truth(self) -> bool:
        """Return the word as a boolean."""
        return _WORDS[self.lower()]


class _Settings(_Loader):  # type: ignore[misc, valid-type]
    """PyYAML's safe loader; each value that it cannot construct is an error with a line number."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            kind = node.tag.rpartition(":")[2]
            shown = node.value if isinstance(node.value, str) else "this"
            problem = f"{shown[:40]!r} is not a valid {kind}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def word(self, node: Any) -> Word:
        """Return a boolean as the word in the file."""
        text = self.construct_scalar(node)
        if text.lower() not in _WORDS:
            raise ValueError(text)
        return Word(text)

    def number(self, node: Any) -> int:
        """Return an integer of at most 64 bits that YAML 1.1 and 1.2 read equally."""
        text = self.construct_scalar(node)
        if ":" in text or _OCTAL.fullmatch(text):
            value = self.construct_yaml_int(node)
            problem = f"{text} is {value} in YAML 1.1 and different in 1.2; write {value}"
            raise yaml.constructor.ConstructorError(
                None, None, f"{problem}, or quote it if it is a string", node.start_mark
            )
        value = int(self.construct_yaml_int(node))
        if not -(2**63) <= value < 2**64:
            raise ValueError(text)
        return value


_Settings.add_constructor("tag:yaml.org,2002:bool", _Settings.word)
_Settings.add_constructor("tag:yaml.org,2002:int", _Settings.number)


def read_small(path: Path, most: int) -> bytes:
    """Return a file's content. Raises OSError if it has more than `most` bytes, as a device has."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB", str(path))
    return content


def read_settings(path: Path, refuse: Refuse) -> dict[str, Any]:
    """Return the settings in a file. Raises the error that `refuse` makes if there are none."""
    try:
        text = read_small(path, MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror})", "name a YAML file") from error
    except UnicodeDecodeError as error:
        raise refuse(f"is not UTF-8 (byte {error.start:,})", "save it as UTF-8") from error
    except ValueError as error:  # a NUL in the path
        raise refuse(f"cannot be read ({error})", "name a YAML file") from error
    settings = parse_yaml(text, refuse)
    if not isinstance(settings, dict):
        raise refuse("contains no settings", "write `key: value` lines")
    return settings


def parse_yaml(text: str, refuse: Refuse) -> Any:
    """Return the value of a YAML text, bare words as `Word`. Raises the error of `refuse`."""
    try:
        _refuse_depth(text)
        loader = _Settings(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, ())
        value = loader.construct_document(node)
    except (yaml.YAMLError, _TrapError) as error:
        raise refuse(f"is not YAML: {' '.join(str(error).split())}", _REMEDY) from error
    for content in _texts(value):
        if "\0" in content or any("\ud800" <= char <= "\udfff" for char in content):
            raise refuse("a text contains U+0000 or a lone surrogate", _REMEDY)
    return value


class _TrapError(Exception):
    """Error of valid YAML that is surely not intended."""


def _refuse_depth(text: str) -> None:
    """Check the nesting depth without recursion, before any recursive function runs."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.events.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                message = f"nested deeper than {MAX_DEPTH} levels,{event.start_mark}"
                raise _TrapError(message)
        elif isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1


class _Size(NamedTuple):
    """Size of a node with its aliases expanded."""

    values: int
    depth: int


def _size(node: Any, seen: dict[int, _Size], above: tuple[int, ...]) -> _Size:
    """Measure a tree; raise an error if it is too large or has a key twice."""
    if id(node) in above:
        message = f"an alias is inside the value that it names,{node.start_mark}"
        raise _TrapError(message)
    if id(node) not in seen:
        inner = [_size(child, seen, (*above, id(node))) for child in _children(node)]
        size = _Size(
            1 + sum(each.values for each in inner), 1 + max((0, *(i.depth for i in inner)))
        )
        if size.values > MAX_NODES or size.depth > MAX_DEPTH + 1:
            message = f"more than {MAX_NODES:,} values or {MAX_DEPTH} levels, aliases expanded"
            raise _TrapError(message)
        seen[id(node)] = size
    return seen[id(node)]


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    message = f"the key {key.value!r} is given twice,{key.start_mark}"
                    raise _TrapError(message)
                keys.add(key.value)
            yield key
            yield value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _texts(key)
            yield from _texts(child)
    elif isinstance(value, list | tuple | set):
        for child in value:
            yield from _texts(child)


def load_model(
    model: type[AnyModel], value: Any, refuse: Callable[[str, ErrorDetails], Exception]
) -> AnyModel:
    """Return the model of a parsed file.

    Raises the error that `refuse` makes of the first fault and its place, such as `limits.rows`. An
    unknown key comes before a missing one.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise refuse(".".join(str(part) for part in fault["loc"]), fault) from error


def nearest_key(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """Return a remedy for an unknown key: the nearest name, or all names."""
    for part in location[:-1]:
        if field := model.model_fields.get(str(part)):
            model = next(_models_in(field.annotation), model)
    known = list(model.model_fields)
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"


class RenamedKeyWarning(FutureWarning):
    """Warning that a setting has its old name, which 1.0 will not accept."""


def accept_old_keys(value: Any, renamed: Mapping[str, str]) -> Any:
    """Return settings with old keys under their new names, and warn about each.

    Raises ValueError if both names are given.
    """
    if not isinstance(value, Mapping):
        return value
    found = dict(value)
    for old, new in renamed.items():
        if old not in found:
            continue
        if new in found:
            message = f"{old} is the old name of {new}; give only {new}"
            raise ValueError(message)
        found[new] = found.pop(old)
        message = f"`{old}` is now `{new}`; the old name is not accepted from 1.0 on"
        warnings.warn(message, RenamedKeyWarning, stacklevel=2)
    return found


def settle_words(value: Any, model: type[BaseModel]) -> Any:
    """Return the settings, each `Word` as its field requires: `dropout: no`, `mixed_precision: no`.

    The first is then a boolean, the second one of a field's choices. Booleans, which PyYAML makes
    of these words, are read in the same way.
    """
    return _settled(value, [model])


def _settled(value: Any, kinds: list[Any]) -> Any:
    if isinstance(value, Word | bool):
        return _settled_word(value if isinstance(value, Word) else Word(str(value).lower()), kinds)
    if isinstance(value, Mapping):
        return {
            _settled_word(key, [str]) if isinstance(key, Word) else key: _settled(
                child, _kinds_under(key, kinds)
            )
            for key, child in value.items()
        }
    if isinstance(value, list):
        inner = [kind for each in kinds for kind in _elements(each)]
        return [_settled(child, inner) for child in value]
    return value


def _settled_word(word: Word, kinds: list[Any]) -> bool | str:
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if bool in kinds:
        return word.truth
    same = [choice for choice in choices if _WORDS.get(str(choice)) is word.truth]
    if len(same) == 1:  # `off`, `no` and `false` are one value of YAML 1.1
        return str(same[0])
    is_text = word.lower() not in ("true", "false")
    if str in kinds:
        return str(word) if is_text else word.truth
    return word.truth if not kinds or Any in kinds or object in kinds else str(word)


def _kinds_under(key: Any, kinds: list[Any]) -> list[Any]:
    """Return the types that a mapping's value may have, by its key."""
    found: list[Any] = []
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                if key in (name, field.alias):
                    found += _leaves(field.annotation)
        elif get_origin(kind) in (dict, Mapping):
            found += _leaves(get_args(kind)[1])
        elif get_origin(kind) in (list, tuple):  # a single item is read as a list of one
            found += _kinds_under(key, list(_elements(kind)))
    return found


def _elements(kind: Any) -> Iterator[Any]:
    if get_origin(kind) in (list, tuple, set, frozenset):
        for inner in get_args(kind):
            if inner is not Ellipsis:
                yield from _leaves(inner)


def _leaves(kind: Any) -> list[Any]:
    """Return the types of a union, without their annotations."""
    if get_origin(kind) is Annotated:
        return _leaves(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [leaf for each in get_args(kind) for leaf in _leaves(each)]
    if hasattr(kind, "__value__"):  # a `type` alias
        return _leaves(kind.__value__)
    return [kind]


def settings_table(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the rows of a Markdown table of a config's keys: key, default and description.

    Keys of nested models follow their parent, with a dot.
    """
    if not prefix:
        yield "| key | default | what |"
        yield "| --- | --- | --- |"
    for name, field in model.model_fields.items():
        nested = next((k for k in _models_in(field.annotation)), None)
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        if not text and nested is not None:
            text = " ".join((nested.__doc__ or "").split()).replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_default_text(field, nested)} | {text} |"
        if nested is not None:
            yield from settings_table(nested, f"{prefix}{name}.")


def describe_key(model: type[BaseModel], key: str) -> Iterator[str]:
    """Yield the lines on one key of a config, and the keys below it.

    Raises KeyError with a remedy if there is no such key.
    """
    *above, last = key.split(".")
    for at, part in enumerate(above):
        field = model.model_fields.get(part)
        inner = next(_models_in(field.annotation), None) if field else None
        if inner is None:
            raise KeyError(nearest_key(model, tuple(key.split(".")[: at + 1][-1:])))
        model = inner
    field = model.model_fields.get(last)
    if field is None:
        raise KeyError(nearest_key(model, (last,)))
    nested = next(_models_in(field.annotation), None)
    text = " ".join((field.description or (nested.__doc__ if nested else "") or "").split())
    default = _default_text(field, nested).strip("`")
    yield key
    yield from textwrap.wrap(text, 96, initial_indent="  ", subsequent_indent="  ")
    yield f"  {'required' if field.is_required() else f'default: {default or chr(0x2014)}'}"
    choices = [c for leaf in _leaves(field.annotation) if get_origin(leaf) is Literal
               for c in get_args(leaf)]  # fmt: skip
    if choices:
        yield f"  one of: {', '.join(map(str, choices))}"
    if nested is not None:
        yield f"  keys: {', '.join(f'{key}.{name}' for name in nested.model_fields)}"


def key_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every key of a config that has a value, those of nested models with a dot."""
    for name, field in model.model_fields.items():
        nested = next(_models_in(field.annotation), None)
        if nested is None:
            yield f"{prefix}{name}"
        else:
            yield from key_paths(nested, f"{prefix}{name}.")


def _models_in(kind: Any) -> Iterator[type[BaseModel]]:
    for leaf in _leaves(kind):
        if isinstance(leaf, type) and issubclass(leaf, BaseModel):
            yield leaf
        elif get_origin(leaf) in (list, tuple):
            yield from (one for inner in get_args(leaf) for one in _models_in(inner))


def _default_text(field: FieldInfo, nested: type[BaseModel] | None) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if nested is not None or value in ({}, [], ()):
        return "" if value is not None else "none"
    if value is None or isinstance(value, bool):
        value = {None: "none", True: "true", False: "false"}[value]
    return f"`{value}`"
