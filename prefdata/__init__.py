"""Python interface: raw preference files in, token shards out.

`import prefdata` is cheap: each name below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefdata.building import build
    from prefdata.config import BuildConfig
    from prefdata.errors import PrefdataError
    from prefdata.records.sources import Source
    from prefdata.sharing.local import diff_named as diff
    from prefdata.sharing.local import pull_named as pull
    from prefdata.sharing.local import verify_named as verify
    from prefdata.sharing.push import PushOptions, push
    from prefdata.store.reader import Build
    from prefdata.store.reader import open_build as open  # noqa: A004
    from prefdata.validation import ValidateOptions, validate

__all__ = [
    "Build",
    "BuildConfig",
    "PrefdataError",
    "PushOptions",
    "Source",
    "ValidateOptions",
    "build",
    "diff",
    "open",
    "pull",
    "push",
    "validate",
    "verify",
]

_HOMES = {
    "Build": ("prefdata.store.reader", "Build"),
    "BuildConfig": ("prefdata.config", "BuildConfig"),
    "PrefdataError": ("prefdata.errors", "PrefdataError"),
    "PushOptions": ("prefdata.sharing.push", "PushOptions"),
    "Source": ("prefdata.records.sources", "Source"),
    "ValidateOptions": ("prefdata.validation", "ValidateOptions"),
    "build": ("prefdata.building", "build"),
    "diff": ("prefdata.sharing.local", "diff_named"),
    "open": ("prefdata.store.reader", "open_build"),
    "pull": ("prefdata.sharing.local", "pull_named"),
    "push": ("prefdata.sharing.push", "push"),
    "validate": ("prefdata.validation", "validate"),
    "verify": ("prefdata.sharing.local", "verify_named"),
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module 'prefdata' has no attribute {name!r}"
        raise AttributeError(message)
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
