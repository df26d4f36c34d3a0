"""A YAML file of settings, for both packages, whose errors have codes of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Refuse = Callable[[str, str], Exception]
"""Makes an error of a problem and its remedy."""


def read_settings(path: Path, refuse: Refuse) -> dict[str, Any]:
    """The settings in a file. Raises what `refuse` makes where there are none."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror})", "name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise refuse(f"is not YAML: {' '.join(str(error).split())}", "mend the file") from error
    if not isinstance(settings, dict):
        raise refuse("holds no settings", "write `key: value` lines")
    return settings
