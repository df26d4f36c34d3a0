"""A user's function that says how good completions are."""

import importlib
import math
from collections.abc import Callable, Sequence

from dpo.errors import UsageError
from dpo.tokenizer import Messages

Scorer = Callable[..., Sequence[float]]


def load_scorer(name: str) -> Scorer:
    """The function `module:function`, called as scorer(prompts=[…], completions=[…])."""
    module_name, _, function_name = name.partition(":")
    remedy = "name it as module:function, importable from here"
    if not module_name or not function_name:
        raise UsageError("T135", name, "is not module:function", remedy)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError("T135", name, str(error), remedy) from error
    scorer = getattr(module, function_name, None)
    if not callable(scorer):
        raise UsageError("T135", name, f"`{module_name}` has no function of this name", remedy)
    found: Scorer = scorer
    return found


def score_completions(
    scorer: Scorer, name: str, prompt: str | Messages, texts: list[str]
) -> list[float]:
    scores = [float(s) for s in scorer(prompts=[prompt] * len(texts), completions=texts)]
    if len(scores) != len(texts) or not all(map(math.isfinite, scores)):
        problem = f"gave {scores} for {len(texts)} completions"
        raise UsageError("T136", name, problem, "return one finite number for each completion")
    return scores
