"""Training without dropout: evaluation mode, in which models are deterministic.

Rates of dropout, jitter and noise have many names in transformers; evaluation mode switches all of
them off. Layers with gradient checkpointing need the training flag, so they keep it and clear it
while their own code runs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def train_without_dropout(model: nn.Module) -> None:
    """Put a model into evaluation mode with gradient checkpointing as in training."""
    model.train(mode=False)
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            _run_again_in_evaluation(module)


def _run_again_in_evaluation(layer: Any) -> None:
    """Keep the training flag for gradient checkpointing, but run the layer in evaluation mode."""
    layer.training = True
    checkpoint = layer._gradient_checkpointing_func
    if not (isinstance(checkpoint, partial) and checkpoint.func is _checkpoint):
        layer._gradient_checkpointing_func = partial(_checkpoint, layer, checkpoint)


def _checkpoint(
    layer: nn.Module, checkpoint: Callable[..., Any], forward: Callable[..., Any], *args: Any
) -> Any:
    return checkpoint(partial(_in_evaluation, layer, forward), *args)


def _in_evaluation(layer: nn.Module, forward: Callable[..., Any], *args: Any) -> Any:
    layer.training = False
    try:
        return forward(*args)
    finally:
        layer.training = True
