"""The best evaluation of a run, which `keep_best` keeps, and the end by `early_stopping`.

Both depend on the evaluations so far alone, and checkpoints store them, so that a run that died
ends as one that did not.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dpo.config import TrainConfig
from dpo.data.reference_store import Reference
from dpo.errors import UsageError
from dpo.saving_config import EarlyStopping, grows_better
from dpo.training.metrics import METRICS, OF_REFERENCE, rounded

WORST = 1e300
"""Value, up to its sign, that stands for no evaluation; JSON holds it."""


class Best(NamedTuple):
    """Best evaluation so far."""

    metric: str
    step: int
    found: dict[str, float]
    """All metrics of that evaluation."""

    @property
    def value(self) -> float:
        """Return the value of its metric."""
        return self.found[self.metric]


class Patience(NamedTuple):
    """Last evaluation that improved, and the number of those since."""

    metric: str
    min_delta: float
    step: int
    value: float
    waited: int = 0


def check_watched(
    config: TrainConfig, reference: Reference | None, splits: Mapping[str, Sequence[str]]
) -> None:
    """Raise UsageError (T149) if evaluations will not have a metric that the run watches.

    `splits` are the names of the evaluation splits, with those of their files.
    """
    known: list[str] = []
    for split, sources in splits.items():
        prefix = "eval/" if split == config.eval_split else f"eval/{split}/"
        of_files = [f"rewards/accuracies/{name}" for name in sources]
        names = [*METRICS, "kl_estimate", *of_files]
        is_there = reference is not None
        known += [prefix + n for n in names if is_there or not n.startswith(OF_REFERENCE)]
    stop = config.early_stopping
    for key, metric in (("keep_best", config.keep_best), ("early_stopping", stop and stop.metric)):
        if metric is not None and metric not in known:
            remedy = f"name one of {', '.join(known)}" if known else "evaluate a split with rows"
            raise UsageError("T149", key, f"no evaluation of this run has {metric}", remedy)


class Watch:
    """Evaluations of a run as `keep_best` and `early_stopping` see them."""

    def __init__(self, config: TrainConfig) -> None:
        self._keep, self._stop = config.keep_best, config.early_stopping
        self.best: Best | None = None
        self.patience: Patience | None = None

    def resume(self, best: Best | None, patience: Patience | None) -> bool:
        """Continue with what a checkpoint stored; return False if that is of other settings."""
        stop = self._stop
        fits = {
            "best": (best and best.metric) == self._keep,
            "patience": (patience and patience[:2]) == (stop and (stop.metric, stop.min_delta)),
        }
        self.best = best if self._keep and fits["best"] else None
        self.patience = patience if stop and fits["patience"] else None
        return not ((self._keep and not fits["best"]) or (stop and not fits["patience"]))

    def sees(self, step: int, found: Mapping[str, float]) -> bool:
        """Record an evaluation; return whether its step is now the best."""
        found = rounded(found)
        if self._stop is not None:
            self.patience = _waits(self.patience, self._stop, step, found[self._stop.metric])
        if self._keep is None or not _is_better(
            self._keep, found[self._keep], self.best and self.best.value
        ):
            return False
        self.best = Best(self._keep, step, found)
        return True

    @property
    def is_over(self) -> bool:
        """Return whether `early_stopping` ends the run."""
        waits, stop = self.patience, self._stop
        return waits is not None and stop is not None and waits.waited >= stop.patience

    @property
    def why(self) -> str | None:
        """Return why the run ends before its last step, as a clause; None if it continues."""
        if not self.is_over or self.patience is None:
            return None
        name, _, step, value, waited = self.patience
        return f"{name} has not improved on {value:.6g} of step {step:,} in {waited:,} evaluations"


def _waits(before: Patience | None, stop: EarlyStopping, step: int, value: float) -> Patience:
    if _is_better(stop.metric, value, before and before.value, by=stop.min_delta):
        return Patience(stop.metric, stop.min_delta, step, value)
    if before is None:  # the first one is not a number
        worst = -WORST if grows_better(stop.metric) else WORST
        before = Patience(stop.metric, stop.min_delta, step, worst)
    return before._replace(waited=before.waited + 1)


def _is_better(metric: str, value: float, than: float | None, *, by: float = 0.0) -> bool:
    """Return whether a value is better than another; NaN is never.

    >>> _is_better("eval/loss", 0.5, 0.6), _is_better("eval/rewards/margins", 0.5, 0.6)
    (True, False)
    """
    if than is None:
        return math.isfinite(value)
    return value > than + by if grows_better(metric) else value < than - by
