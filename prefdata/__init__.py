"""Raw preference files in, token shards out.

`import prefdata` is cheap: each name below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefdata.building import build
    from prefdata.config import BuildConfig
    from prefdata.errors import PrefdataError
    from prefdata.store.reader import open_build as open  # noqa: A004
    from prefdata.validation import validate

__all__ = ["BuildConfig", "PrefdataError", "build", "open", "validate"]

_HOMES = {
    "BuildConfig": ("prefdata.config", "BuildConfig"),
    "PrefdataError": ("prefdata.errors", "PrefdataError"),
    "build": ("prefdata.building", "build"),
    "open": ("prefdata.store.reader", "open_build"),
    "validate": ("prefdata.validation", "validate"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module 'prefdata' has no attribute {name!r}"
        raise AttributeError(message)
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
