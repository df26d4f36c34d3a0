"""Scorers of completions: a user's function, or a reward model."""

import importlib
import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from dpo.errors import DpoError, UsageError
from dpo.model.tokenizer import Messages
from dpo.sampling.reward_model import RewardModel

REWARD_MODEL = "reward-model:"
Scorer = Callable[..., Sequence[float]]


def load_scorer(name: str) -> Scorer:
    """Return the function `module:function`, called as scorer(prompts=[…], completions=[…]).

    `reward-model:NAME` is a checkpoint, a directory or a name on the Hub.
    """
    if name.startswith(REWARD_MODEL):
        return RewardModel(name.removeprefix(REWARD_MODEL))
    module_name, _, function_name = name.partition(":")
    remedy = "name it as module:function, importable from here, or reward-model:NAME"
    if not module_name or not function_name:
        raise UsageError("T135", name, "is not module:function", remedy)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's code may raise anything
        problem = f"cannot be imported ({type(error).__name__}: {error})"
        raise UsageError("T135", name, problem, remedy) from error
    scorer: Scorer | None = getattr(module, function_name, None)
    if not callable(scorer):
        raise UsageError("T135", name, f"`{module_name}` has no function of this name", remedy)
    return scorer


def score_completions(
    scorer: Scorer, name: str, prompt: str | Messages, texts: list[str]
) -> list[float]:
    """Return the scores of a prompt's completions; raise T136 unless all are finite numbers."""
    return score_all(scorer, name, [prompt] * len(texts), texts)


def score_all(
    scorer: Scorer, name: str, prompts: Sequence[str | Messages], texts: list[str]
) -> list[float]:
    """Return the scores of completions of several prompts, as `score_completions` does."""
    remedy = "return one finite number for each completion"
    try:
        found = scorer(prompts=prompts, completions=texts)
        is_ordered = not isinstance(found, str | bytes | dict | set | frozenset)
        given = list(islice(found, len(texts) + 1)) if is_ordered else found
    except DpoError:
        raise
    except Exception as error:  # a user's code may raise anything
        problem = f"raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UsageError("T136", name, problem, remedy) from error
    scores = [_number(value) for value in given] if isinstance(given, list) else []
    if len(scores) != len(texts) or not all(map(math.isfinite, scores)):
        problem = f"returned {str(given)[:100]} for {len(texts)} completions"
        raise UsageError("T136", name, problem, remedy)
    return scores


def _number(value: Any) -> float:
    """Return a number of Python, numpy or torch; NaN if it is not a number, such as a text."""
    if isinstance(value, str | bytes) or value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan
