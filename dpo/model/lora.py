"""Low-rank adapters, trained instead of a model's own weights.

LoRA, https://arxiv.org/abs/2106.09685, and DoRA, https://arxiv.org/abs/2402.09353, by peft. A fresh
adapter changes nothing, so the policy starts as its reference, which is the model without it.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from dpo.config import LoraSettings
from dpo.errors import UsageError
from dpo.model.load import load_model


def add_lora(model: PreTrainedModel, settings: LoraSettings, *, seed: int) -> None:
    """Freeze the model and add an adapter, initialised by `seed`."""
    peft = _peft()
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    try:
        model.add_adapter(config)
    except ValueError as error:
        problem = " ".join(str(error).split())[:200]
        remedy = "name layers of the model, or all-linear"
        raise UsageError("T127", "lora.targets", problem, remedy) from error


def save_adapter(model: PreTrainedModel, path: Path, weights: dict[str, Any] | None) -> None:
    """Write only the adapter, as peft loads it; from `weights` if the model is sharded."""
    model.save_pretrained(path, state_dict=weights)


def merged(base: str, adapter: Path) -> PreTrainedModel:
    """Return the model with the adapter merged into its weights: an ordinary checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft calls a renamed function
        tuned: Any = _peft().PeftModel.from_pretrained(load_model(base), adapter)
        model: PreTrainedModel = tuned.merge_and_unload()
    return model


def _peft() -> Any:
    try:
        import peft  # optional, and the import takes a second
    except ImportError as error:
        remedy = "pip install 'prefdata-dpo[lora]'"
        raise UsageError("T128", "lora", "needs peft, which is not installed", remedy) from error
    return peft
