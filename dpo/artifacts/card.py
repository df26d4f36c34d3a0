"""The model card: README.md next to the weights, with the header that the Hub reads."""

import json
import re
from pathlib import Path
from typing import Any

from dpo.artifacts.summary import RunSummary
from dpo.loss import find_loss
from prefdata.hub.inputs import SCHEME, is_hub_name
from prefdata.report.card import escape
from prefdata.report.safe import yaml_text
from prefdata.sharing.pull import split_revision

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SHOWN = {
    "eval/rewards/accuracies": "held-out pairs whose chosen side has the higher reward",
    "eval/rewards/margins": "mean held-out reward of chosen minus rejected",
    "eval/loss": "held-out loss",
    "rewards/accuracies": "pairs of the last step whose chosen side has the higher reward",
    "loss": "loss of the last step",
}


def write_card(summary: RunSummary, *, name: str) -> str:
    """Return the card's text; directories are shown by their last name only."""
    config = summary.config
    base = config.model if _is_hub_name(config.model) else Path(config.model).name
    parts = [
        f"---\n{yaml_text(_header(summary), sort_keys=True)}---",
        f"# {escape(name)}",
        f"{escape(base)}, fitted to preferences by direct preference optimization "
        "([Rafailov et al. 2023](https://arxiv.org/abs/2305.18290)) with prefdata + dpo.",
        "## Results",
        _table(["", ""], [["loss before step 1", f"{summary.first_loss:.4f}"], *_results(summary)]),
        "## Training",
        _table(["setting", "value"], _settings(summary)),
        f"{summary.steps:,} steps of {config.global_batch_size:,} {config.batch_unit}, "
        f"{summary.pairs:,} pairs in all. "
        f"Data: the prefdata build `{summary.build_hash[:16]}`; reference log-probs: "
        f"`{summary.reference_hash[:16]}`. The same build, reference and settings give the same "
        "model, bit by bit on one kind of machine.",
        "## Use",
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("PATH")\n'
        'tokenizer = AutoTokenizer.from_pretrained("PATH")\n```',
    ]
    return "\n\n".join(parts) + "\n"


def _header(summary: RunSummary) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if _is_hub_name(summary.config.model):
        known["base_model"] = summary.config.model
    data = str(summary.config.data)
    if is_hub_name(data):
        known["datasets"] = [split_revision(data.removeprefix(SCHEME))[0]]
    return {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["dpo", "preference"],
        **known,
    }


def _is_hub_name(model: str) -> bool:
    return _HUB_NAME.fullmatch(model) is not None and not Path(model).exists()


def _results(summary: RunSummary) -> list[list[str]]:
    found = summary.final
    return [[said, f"{found[name]:.4f}"] for name, said in _SHOWN.items() if name in found]


def _settings(summary: RunSummary) -> list[list[str]]:
    """Return the settings that decide the steps, named as in the config, without defaults."""
    config = summary.config
    losses = [
        (f"loss: {loss.name}", _about(loss.name), loss.settings | {"weight": loss.weight})
        for loss in config.loss
    ]
    rows = [
        [title, f"{about} {escape(json.dumps(values))}".strip()] for title, about, values in losses
    ]
    more = config.model_dump(
        mode="json",
        exclude_defaults=True,
        include={"optimizer", "lora", "mixed_precision", "dropout", "seed", "global_batch_size"},
    )
    return rows + [[name, escape(json.dumps(value))] for name, value in more.items()]


def _about(name: str) -> str:
    """Return the first line of a loss's docstring, which names its paper."""
    return escape((find_loss(name).__doc__ or name).strip().splitlines()[0])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
