"""The model card: README.md next to the weights, with the header that the Hub reads."""

import json
import re
from pathlib import Path
from typing import Any

from dpo.artifacts.summary import RunSummary
from dpo.loss import find_loss
from prefdata.hub.inputs import SCHEME, is_hub_name
from prefdata.report.card import escape, table
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
    results = [
        [label, f"{summary.final[name]:.4f}"]
        for name, label in _SHOWN.items()
        if name in summary.final
    ]
    base = config.model if _is_hub_name(config.model) else Path(config.model).name
    parts = [
        f"---\n{yaml_text(_header(summary), sort_keys=True)}---",
        f"# {escape(name)}",
        f"{escape(base)}, fitted to preferences by direct preference optimization "
        "([Rafailov et al. 2023](https://arxiv.org/abs/2305.18290)) with prefdata + dpo.",
        "## Results",
        table(["", ""], [["loss before step 1", f"{summary.first_loss:.4f}"], *results]),
        "## Training",
        table(["setting", "value"], _settings(summary)),
        f"{summary.steps:,} steps of {config.global_batch_size:,} {config.batch_unit}, "
        f"{summary.pairs:,} pairs in all. "
        f"Data: the prefdata build `{summary.build_hash[:16]}`; reference log-probs: "
        f"`{(summary.reference_hash or 'none')[:16]}`. The same build, reference and settings give "
        "the same model, bit by bit on one kind of machine.",
        "## Use",
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("PATH")\n'
        'tokenizer = AutoTokenizer.from_pretrained("PATH")\n```',
    ]
    return "\n\n".join(parts) + "\n"


def _header(summary: RunSummary) -> dict[str, Any]:
    data = str(summary.config.data)
    known = {
        "base_model": summary.config.model if _is_hub_name(summary.config.model) else None,
        "datasets": is_hub_name(data) and [split_revision(data.removeprefix(SCHEME))[0]],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["dpo", "preference"],
    }
    return {key: value for key, value in known.items() if value}


def _is_hub_name(model: str) -> bool:
    return _HUB_NAME.fullmatch(model) is not None and not Path(model).exists()


def _settings(summary: RunSummary) -> list[list[str]]:
    """Return the settings that decide the steps, named as in the config, without defaults."""
    config = summary.config
    rows = []
    for loss in config.loss:
        paper = (find_loss(loss.name).__doc__ or loss.name).strip().splitlines()[0]
        values = json.dumps(loss.settings | {"weight": loss.weight})
        rows.append([f"loss: {loss.name}", f"{escape(paper)} {escape(values)}"])
    more = config.model_dump(
        mode="json",
        exclude_defaults=True,
        include={"optimizer", "lora", "mixed_precision", "dropout", "seed", "global_batch_size"},
    )
    return rows + [[name, escape(json.dumps(value))] for name, value in more.items()]
