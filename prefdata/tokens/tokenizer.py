"""Tokenizer of a build, with everything that decides ids; it can be pickled."""

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from tokenizers import Tokenizer

from prefdata.errors import UsageError
from prefdata.settings import read_small
from prefdata.store.canonical import hash_json
from prefdata.store.manifest import TokenizerIdentity, shared_name
from prefdata.tokens.chat_template import texts_looked_for
from prefdata.tokens.load import load_tokenizer, require_model
from prefdata.tokens.tokenizer_cache import entry_of, recall, remember

_MOST_TEMPLATE = 4 << 20

THOUGHTS = ("<think>", "</think>")


class Stages(NamedTuple):
    """Stages of a fast tokenizer before its model, as in its JSON; None if it has none."""

    normalizer: dict[str, Any] | None
    pre_tokenizer: dict[str, Any] | None
    dropout: float | None
    """Dropout of the model; if it is set, the same text gets different ids each time."""


class AddedToken(NamedTuple):
    """A string that the tokenizer matches whole, anywhere in a text."""

    id: int
    content: str
    special: bool
    normalized: bool
    single_word: bool
    lstrip: bool
    rstrip: bool

    @property
    def is_plain(self) -> bool:
        """Return whether it is matched by its characters only, and strips none next to it."""
        return not (self.normalized or self.single_word or self.lstrip or self.rstrip)


@lru_cache(maxsize=2)
def _tokenizer(serialized: str) -> Tokenizer:
    """Parse a tokenizer; cached, as a large vocabulary takes half a second."""
    return Tokenizer.from_str(serialized)


def _state(stage: Any) -> dict[str, Any] | None:
    if stage is None:
        return None
    value: dict[str, Any] = orjson.loads(stage.__getstate__())
    return value


@dataclass(frozen=True)
class TokenizerSpec:
    """All data of a tokenizer that decide ids."""

    name: str
    revision: str | None
    serialized: str
    """JSON of the fast tokenizer, as the library writes it, without truncation and padding."""
    templates: dict[str, str]
    """Chat templates by name; `default` is used unless a row has tools and `tool_use` exists."""
    special_tokens: dict[str, str]
    """Tokens that templates know by name: bos_token, eos_token, …"""

    @cached_property
    def backend(self) -> Tokenizer:
        return _tokenizer(self.serialized)

    def __reduce__(self) -> tuple[type["TokenizerSpec"], tuple[Any, ...]]:
        """Pickle only the fields; the other process computes the cached properties again."""
        return TokenizerSpec, tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def stages(self) -> Stages:
        """Return the stages that a text passes before the tokenizer's model sees it."""
        backend = self.backend
        return Stages(
            _state(backend.normalizer),
            _state(backend.pre_tokenizer),
            getattr(backend.model, "dropout", None),
        )

    @cached_property
    def added_tokens(self) -> list[AddedToken]:
        """Return the added tokens in the order of their ids."""
        found = sorted(self.backend.get_added_tokens_decoder().items())
        return [
            AddedToken(
                id=number,
                content=token.content,
                special=token.special,
                normalized=token.normalized,
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
            )
            for number, token in found
        ]

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """Return the strings that steer the model, which a row's content must not produce.

        These are the special tokens, and others that a template writes but does not read. With
        Qwen3's template `<tool_call>` is one, but `</think>` is not, as the template looks for it
        in its input. Nor are <think> and </think> with other templates: they begin no turn, and
        answers contain them if a generation prompt opens the thought.
        """
        sources = list(self.templates.values())
        read = {text for source in sources for text in texts_looked_for(source)}

        def is_written(token: str) -> bool:
            in_template = any(token in source for source in sources)
            return in_template and token not in THOUGHTS and not any(token in t for t in read)

        return tuple(
            sorted(
                token.content
                for token in self.added_tokens
                if token.content.strip()
                and (token.special or (is_written(token.content) and not token.content.isalnum()))
            )
        )

    def token_id(self, name: str) -> int | None:
        """Return the id of `eos_token` or a similar name; None if the tokenizer has none."""
        content = self.special_tokens.get(name)
        return next((token.id for token in self.added_tokens if token.content == content), None)

    def template(self, *, has_tools: bool) -> str | None:
        if has_tools and "tool_use" in self.templates:
            return self.templates["tool_use"]
        return self.templates.get("default")

    def seal(self) -> TokenizerIdentity:
        """Return the tokenizer's entry in the manifest."""
        return TokenizerIdentity(
            name=shared_name(self.name),
            revision=self.revision,
            tokenizer_sha256=hashlib.sha256(self.serialized.encode()).hexdigest(),
            template_sha256=hash_json(self.templates) if self.templates else None,
            vocab_size=self.backend.get_vocab_size(with_added_tokens=True),
            bos_token_id=self.token_id("bos_token"),
            eos_token_id=self.token_id("eos_token"),
            pad_token_id=self.token_id("pad_token"),
        )


def load_tokenizer_spec(
    name: str, *, revision: str | None = None, chat_template: Path | None = None
) -> TokenizerSpec:
    """Load a tokenizer from a directory or the Hub; code of a repository is never run."""
    parts = _recall_or_load(name, revision)
    if chat_template is not None:
        parts = {**parts, "templates": {"default": _read_template(chat_template)}}
    return TokenizerSpec(name=name, revision=revision, **parts)


def target_of(name: str, tokenizer: Any) -> TokenizerSpec:
    """Return the spec of a tokenizer that transformers has loaded."""
    return TokenizerSpec(name=name, revision=None, **_parts(name, tokenizer))


def _recall_or_load(name: str, revision: str | None) -> dict[str, Any]:
    require_model(name, partial(UsageError, "C110", name))
    if not Path(name).is_dir():
        return _parts(name, _load(name, revision))
    entry = entry_of(Path(name))
    parts = recall(entry)
    if parts is None:
        parts = _parts(name, _load(name, revision))
        remember(entry, parts)
    return parts


def _parts(name: str, tokenizer: Any) -> dict[str, Any]:
    """Return a loaded tokenizer as plain data: the fields of a `TokenizerSpec`."""
    if not getattr(tokenizer, "is_fast", False):
        problem = "has no fast tokenizer (tokenizer.json)"
        raise UsageError("C111", name, problem, "name a model that has one")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    templates = tokenizer.chat_template or {}
    return {
        "serialized": backend.to_str(),
        "templates": {"default": templates} if isinstance(templates, str) else templates,
        "special_tokens": {
            key: str(value)
            for key, value in sorted(tokenizer.special_tokens_map.items())
            if isinstance(value, str)
        },
    }


def _load(name: str, revision: str | None) -> Any:
    return load_tokenizer(name, partial(UsageError, "C110", name), revision=revision)


def _read_template(path: Path) -> str:
    try:
        return read_small(path, _MOST_TEMPLATE).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({error})"
        raise UsageError("C112", str(path), problem, "name a Jinja file") from error
