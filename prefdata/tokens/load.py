"""Tokenizers from a directory or the Hub, for both packages; their own code is never run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefdata.store.commit import disk_fault

Refuse = Callable[[str, str], Exception]
"""Function that builds an error from a problem and its remedy."""

_HUB_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*/)?[A-Za-z0-9][A-Za-z0-9_.-]*")
_MOST_LETTERS = 96  # of a name on the Hub
VOCABULARIES = ("tokenizer.json", "vocab*", "*.model", "*.tiktoken", "tekken.json", "*.vocab")
"""Vocabulary files; without one, transformers makes up a tokenizer without the model's tokens."""
_NEWER = ("untagged enum", "unknown variant", "missing field", "invalid type")


def is_hub_name(name: str) -> bool:
    """Return whether a name can be one on the Hub: `gpt2`, `org/model`; not a path or a URL.

    >>> [is_hub_name(name) for name in ("gpt2", "org/model", "./gpt2", "a/b/c", "~/m", "")]
    [True, True, False, False, False, False]
    """
    is_spelled = _HUB_NAME.fullmatch(name) and len(name) <= _MOST_LETTERS
    return bool(is_spelled) and ".." not in name and "--" not in name


def require_model(name: str, refuse: Refuse) -> None:
    """Raise what `refuse` makes if a name is not a directory and cannot be a name on the Hub."""
    remedy = "name a directory, or a Hub name such as org/model"
    if "://" in name:
        raise refuse("is a URL", remedy)
    if is_hub_name(name):
        if Path(name).is_file():
            raise refuse("is a file", "name the directory that it is in")
        return
    try:
        is_directory = bool(name) and Path(name).is_dir()
    except (OSError, ValueError):  # a name of 500 letters, a NUL
        is_directory = False
    if not is_directory:
        raise refuse("is not a directory, and cannot be a name on the Hub", remedy)


def load_tokenizer(name: str, refuse: Refuse, *, revision: str | None = None) -> Any:
    """Load a tokenizer with transformers; raise the error of `refuse` if that fails."""
    require_model(name, refuse)
    if Path(name).is_dir() and not any(next(Path(name).glob(one), None) for one in VOCABULARIES):
        raise refuse("has no tokenizer.json", "name a directory that has one")
    from transformers import AutoTokenizer  # takes seconds, and only a build needs it

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:
        if isinstance(error, MemoryError) or disk_fault(error) is not None:
            raise
        raise refuse(*_fault(name, error)) from error
    template = tokenizer.chat_template
    texts = list(template.values()) if isinstance(template, dict) else [template or ""]
    if not all(isinstance(text, str) for text in texts):
        raise refuse("its chat_template is not a text", "fix its tokenizer_config.json")
    return tokenizer


def _fault(name: str, error: Exception) -> tuple[str, str]:
    """Return the problem and its remedy."""
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    kind = "" if type(error) is Exception else f"{type(error).__name__}: "
    if not Path(name).is_dir():
        remedy = "check the name, and that the Hub can be reached; or name a directory"
        return f"is neither a directory here nor on the Hub ({kind}{first})", remedy
    problem = f"its tokenizer cannot be loaded ({kind}{first})"
    if any(word in first for word in _NEWER):
        remedy = "it may be from a newer version: `pip install -U tokenizers transformers`"
        return problem, f"{remedy}, or fetch its tokenizer.json again"
    return problem, "fetch its tokenizer.json and tokenizer_config.json again"
