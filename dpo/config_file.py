"""Training configs from YAML files; an error in one is reported as one line."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dpo.config import LoraSettings, LossConfig, ReferenceConfig, TrainConfig
from dpo.errors import UsageError
from dpo.saving_config import EarlyStopping, SampleSettings
from prefdata.settings import parse_yaml, read_settings


def read_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML config with `key=value` overrides (dots reach nested keys: `loss.beta=0.2`)."""
    value = read_settings(path, partial(UsageError, "T120", str(path)))
    for override in overrides:
        _override(value, override)
    return parse_config(value, place=str(path))


def parse_config(value: dict[str, Any], *, place: str) -> TrainConfig:
    """Return the config of parsed YAML. Raises UsageError with its first error, as one line."""
    try:
        return TrainConfig.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        location = first["loc"]
        if location[:2] == ("loss", 0) and isinstance(value["loss"], dict):
            location = ("loss", *location[2:])
        where = ".".join(map(str, location))
        if first["type"] == "extra_forbidden":
            raise _unknown_key(place, location) from error
        message = first["msg"].removeprefix("Value error, ")
        problem = f"{where}: {message[:1].lower()}{message[1:]}" if where else message
        raise UsageError("T122", place, problem, "see schemas/dpo-train.json") from error


_NESTED = {
    "loss": LossConfig,
    "lora": LoraSettings,
    "reference": ReferenceConfig,
    "eval_samples": SampleSettings,
    "early_stopping": EarlyStopping,
}


def _unknown_key(place: str, location: tuple[int | str, ...]) -> UsageError:
    fields = TrainConfig.model_fields
    for part in location[:-1]:
        if isinstance(part, str):
            kind: Any = _NESTED.get(part, fields[part].annotation)
            is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
            fields = kind.model_fields if is_model else {}
    close = get_close_matches(str(location[-1]), fields, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(fields)}"
    return UsageError("T121", place, f"{'.'.join(map(str, location))}: no such key", remedy)


def _override(value: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UsageError("T123", override, "is not an override", "write key=value, such as seed=1")
    *parents, last = key.split(".")
    for parent in parents:
        inner = value.setdefault(parent, {})
        if not isinstance(inner, dict):
            remedy = "change it in the file" if isinstance(inner, list) else "name its own key"
            what = "is a list" if isinstance(inner, list) else "has no settings"
            raise UsageError("T123", override, f"{parent} {what}", remedy)
        value = inner

    def refuse(problem: str, _remedy: str) -> UsageError:
        return UsageError("T123", override, problem, "write a YAML value; quote it if it is text")

    value[last] = parse_yaml(text, refuse)
