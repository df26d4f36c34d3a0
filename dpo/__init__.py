"""Direct Preference Optimization on precomputed reference log-probs.

`import dpo` is cheap: each name below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpo.artifacts.report.curves import Figure, histogram, run_figures
    from dpo.config import TrainConfig
    from dpo.errors import DpoError
    from dpo.from_dataset import train
    from dpo.loss import LOSSES as losses  # noqa: N811
    from dpo.loss import PairLogps
    from dpo.model.completions import completion_logps
    from dpo.model.load import load_model
    from dpo.model.tokenizer import encode_prompts, load_tokenizer
    from dpo.reference_pass import compute_reference as reference
    from dpo.sampling.best_of import best_of_kl, expected_best
    from dpo.sampling.sample import Completion, SampleConfig
    from dpo.sampling.sample import sample_completions as sample
    from dpo.sampling.scorer import load_scorer, score_completions

__all__ = [
    "Completion",
    "DpoError",
    "Figure",
    "PairLogps",
    "SampleConfig",
    "TrainConfig",
    "best_of_kl",
    "completion_logps",
    "encode_prompts",
    "expected_best",
    "histogram",
    "load_model",
    "load_scorer",
    "load_tokenizer",
    "losses",
    "reference",
    "run_figures",
    "sample",
    "score_completions",
    "train",
]

_HOMES = {
    "Completion": ("dpo.sampling.sample", "Completion"),
    "DpoError": ("dpo.errors", "DpoError"),
    "Figure": ("dpo.artifacts.report.curves", "Figure"),
    "PairLogps": ("dpo.loss", "PairLogps"),
    "SampleConfig": ("dpo.sampling.sample", "SampleConfig"),
    "TrainConfig": ("dpo.config", "TrainConfig"),
    "best_of_kl": ("dpo.sampling.best_of", "best_of_kl"),
    "completion_logps": ("dpo.model.completions", "completion_logps"),
    "encode_prompts": ("dpo.model.tokenizer", "encode_prompts"),
    "expected_best": ("dpo.sampling.best_of", "expected_best"),
    "histogram": ("dpo.artifacts.report.curves", "histogram"),
    "load_model": ("dpo.model.load", "load_model"),
    "load_scorer": ("dpo.sampling.scorer", "load_scorer"),
    "load_tokenizer": ("dpo.model.tokenizer", "load_tokenizer"),
    "losses": ("dpo.loss", "LOSSES"),
    "reference": ("dpo.reference_pass", "compute_reference"),
    "run_figures": ("dpo.artifacts.report.curves", "run_figures"),
    "sample": ("dpo.sampling.sample", "sample_completions"),
    "score_completions": ("dpo.sampling.scorer", "score_completions"),
    "train": ("dpo.from_dataset", "train"),
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module 'dpo' has no attribute {name!r}"
        raise AttributeError(message)
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
