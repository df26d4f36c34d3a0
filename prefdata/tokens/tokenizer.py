"""Tokenizer of a build, with everything that decides ids; it can be pickled."""

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from prefdata.errors import UsageError
from prefdata.settings import read_small
from prefdata.store.canonical import hash_json
from prefdata.store.manifest import TokenizerIdentity, shared_name
from prefdata.tokens.chat_template import texts_looked_for
from prefdata.tokens.load import load_tokenizer, require_model
from prefdata.tokens.tokenizer_cache import entry_of, recall, recall_place, remember

_MOST_TEMPLATE = 4 << 20

THOUGHTS = ("<think>", "</think>")


@lru_cache(maxsize=2)
def _tokenizer(serialized: str) -> Tokenizer:
    """Parse a tokenizer; cached, as a large vocabulary takes half a second."""
    return Tokenizer.from_str(serialized)


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
    def added_tokens(self) -> dict[int, AddedToken]:
        """Return the strings that are matched whole, anywhere in a text, in the order of ids."""
        return dict(sorted(self.backend.get_added_tokens_decoder().items()))

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
                for token in self.added_tokens.values()
                if token.content.strip()
                and (token.special or (is_written(token.content) and not token.content.isalnum()))
            )
        )

    def token_id(self, name: str) -> int | None:
        """Return the id of `eos_token` or a similar name; None if the tokenizer has none."""
        content = self.special_tokens.get(name)
        found = self.added_tokens.items()
        return next((number for number, token in found if token.content == content), None)

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


def load_sealed(seal: TokenizerIdentity, name: str | None = None) -> TokenizerSpec:
    """Load the tokenizer that made a build, from `name`, its last known location, or the Hub.

    Raises UsageError: E123 if it is not found or is a different one.
    """
    known = recall_place(seal.tokenizer_sha256)
    found = name or known or seal.name
    remedy = "name its directory or its model on the Hub with --tokenizer"
    if found == seal.name and "/" not in found and not Path(found).is_dir():
        problem = f"was made with the tokenizer {seal.name!a}, which is not known on this machine"
        raise UsageError("E123", "the build", problem, remedy)
    target = load_tokenizer_spec(found, revision=None if known or name else seal.revision)
    if target.seal().tokenizer_sha256 != seal.tokenizer_sha256:
        raise UsageError(
            "E123", found, f"is a different tokenizer from the build's {seal.name}", remedy
        )
    return target


def target_of(name: str, tokenizer: Any) -> TokenizerSpec:
    """Return the spec of a tokenizer that transformers has loaded."""
    return TokenizerSpec(name=name, revision=None, **_parts(name, tokenizer))


def _recall_or_load(name: str, revision: str | None) -> dict[str, Any]:
    require_model(name, partial(UsageError, "C110", name))
    if not Path(name).is_dir():
        return _load(name, revision)
    entry = entry_of(Path(name))
    parts = recall(entry)
    if parts is None:
        parts = _load(name, revision)
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


def _load(name: str, revision: str | None) -> dict[str, Any]:
    return _parts(name, load_tokenizer(name, partial(UsageError, "C110", name), revision=revision))


def _read_template(path: Path) -> str:
    try:
        return read_small(path, _MOST_TEMPLATE).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({error})"
        raise UsageError("C112", str(path), problem, "name a Jinja file") from error
