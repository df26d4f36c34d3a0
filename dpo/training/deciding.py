"""All that decides the steps of a run, its fingerprint, and how two runs differ in it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dpo.artifacts.summary import read_summary
from dpo.config import TrainConfig
from dpo.data.reference_store import Reference
from dpo.model.fingerprints import WeightsId
from dpo.training.checkpoint import fingerprints
from dpo.training.run_folder import checkpoints_folder
from prefdata.store.canonical import fingerprint
from prefdata.store.reader import Build

EXECUTION_ONLY = {
    "out",
    "pack_tokens",
    "gradient_checkpointing",
    "eval_split",
    "eval_splits",
    "eval_samples",
    "eval_every",
    "eval_rows",
    "save",
    "keep_best",
    "early_stopping",
    "checkpoint_every",
    "keep_checkpoints",
    "skip_nonfinite",
    "log_pairs",
    "log_every",
    "trackers",
}
"""Settings that change neither the pairs nor the loss of any step."""
SHOWN = 4
"""Most settings that a message names."""


class Deciding(NamedTuple):
    """All that decides every step of a run: settings, and hashes of what it reads."""

    settings: dict[str, Any]
    data: str
    reference: str | None
    weights: str

    @classmethod
    def of(
        cls, config: TrainConfig, build: Build, reference: Reference | None, weights: WeightsId
    ) -> "Deciding":
        """Return what decides the steps; weights by their values if an older version began it."""
        sealed = reference and reference.manifest.hash
        found = cls(deciding_settings(config), build.content_hash, sealed, weights.sha256)
        summary = read_summary(config.out)
        begun = fingerprints(checkpoints_folder(config.out))
        begun |= {summary.fingerprint} if summary is not None else set()
        if begun and found.fingerprint not in begun and weights.values is not None:
            older = found._replace(weights=weights.values)
            return older if older.fingerprint in begun else found
        return found

    @property
    def fingerprint(self) -> str:
        """Return a hash of all of it."""
        return fingerprint([self.settings, [self.data, self.reference, self.weights]])

    def flat(self) -> dict[str, Any]:
        """Return settings and hashes by dotted name."""
        hashes = {"data": self.data, "reference log-probs": self.reference, "weights": self.weights}
        return flat(self.settings) | hashes


def deciding_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that decide every step."""
    decides = config.model_dump(
        mode="json", exclude=EXECUTION_ONLY | {"model", "data", "reference"}
    )
    for name in ("weights", "quantize"):  # null means what it meant before there were such keys
        if decides[name] is None:
            del decides[name]
    if config.lora is not None:
        del decides["lora"]["start"]  # a path; its files are in `weights`
    if not config.optimizer.needs_total:  # more steps continue the same run
        del decides["steps"], decides["epochs"]
    if config.optimizer.weight_decay:  # earlier versions, without this key, decayed everything
        decides["optimizer"]["decay_all"] = config.optimizer.decay_all
    return decides


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name; a list of one is its element.

    >>> flat({"loss": [{"name": "dpo"}], "lora": None, "targets": ["a", "b"]})
    {'loss.name': 'dpo', 'lora': None, 'targets.0': 'a', 'targets.1': 'b'}
    """
    if isinstance(value, list) and len(value) == 1:
        return flat(value[0], prefix)
    if isinstance(value, list):
        value = {str(place): inner for place, inner in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else key)
    return found


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Return which settings differ, with both values; None if none is known to.

    >>> differences({"seed": 0, "lora": None}, {"seed": 1, "lora.r": 2, "lora.alpha": 4.0})
    'seed 0 there, 1 here; lora null there, set here'
    """
    found: list[str] = []
    for key in dict.fromkeys((*there, *here)):
        if any(key.startswith(f"{other}.") for other in {**there, **here}):
            continue  # named by the key above it, which is null in one of them
        ours, theirs = (_shown(key, some) for some in (here, there))
        if ours != theirs:
            found.append(f"{key} {theirs} there, {ours} here")
    more = f"; {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more if found else None


def _shown(key: str, settings: Mapping[str, Any]) -> str:
    """Return a value as a message shows it: hashes cut, null, or `set` if it has keys."""
    if key not in settings:
        return "set" if any(name.startswith(f"{key}.") for name in settings) else "unset"
    value = settings[key]
    if key in ("data", "reference log-probs", "weights") and isinstance(value, str):
        return value[:12]
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), repr(value))
