"""The model card: README.md next to the weights, with the header that the Hub reads."""

import json
import re
from pathlib import Path
from typing import Any

from dpo.artifacts.summary import RunSummary
from dpo.config import TrainConfig
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
    config, best = summary.config, summary.best
    final = {k: v for k, v in summary.final.items() if best is None or k.startswith("eval")}
    final |= best or {}
    results = [[label, f"{final[name]:.4f}"] for name, label in _SHOWN.items() if name in final]
    base = _base(config)
    kept = (
        ""
        if best is None
        else (
            f" Its weights are those of step {best['step']:,.0f}, the best by {config.keep_best}."
        )
    )
    parts = [
        f"---\n{yaml_text(_header(config), sort_keys=True)}---",
        f"# {escape(name)}",
        f"{escape(base)}, fitted to preferences by direct preference optimization "
        "([Rafailov et al. 2023](https://arxiv.org/abs/2305.18290)) with prefdata + dpo.",
        "## Results",
        table(["", ""], [["loss before step 1", f"{summary.first_loss:.4f}"], *results]),
        "## Training",
        table(["setting", "value"], _settings(config)),
        f"{summary.steps:,} steps of {config.global_batch_size:,} {config.batch_unit}, "
        f"{summary.pairs:,} pairs in all.{kept} "
        f"Data: the prefdata build `{summary.build_hash[:16]}`; reference log-probs: "
        f"`{(summary.reference_hash or 'none')[:16]}`. The same build, reference and settings give "
        "the same model, bit by bit on one kind of machine.",
        "## Use",
        f"```python\n{_use(base, is_adapter=not config.save.merged)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _use(base: str, *, is_adapter: bool) -> str:
    """Return Python code that loads the model."""
    load = 'AutoModelForCausalLM.from_pretrained("PATH")'
    imports = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if is_adapter:
        load = f'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "PATH")'
        imports.insert(0, "from peft import PeftModel")
    tokenizer = 'tokenizer = AutoTokenizer.from_pretrained("PATH")'
    return "\n".join([*imports, f"model = {load}", tokenizer])


def write_export_card(config: TrainConfig, *, name: str, run: str, step: int) -> str:
    """Return the text of the card of a checkpoint that was exported."""
    base = _base(config)
    parts = [
        f"---\n{yaml_text(_header(config), sort_keys=True)}---",
        f"# {escape(name)}",
        f"{escape(base)}, fitted to preferences: step {step:,} of the run {escape(run)}, exported "
        "by dpo-export from prefdata + dpo.",
        "## Training",
        table(["setting", "value"], _settings(config)),
        "## Use",
        f"```python\n{_use(base, is_adapter=not config.save.merged)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _base(config: TrainConfig) -> str:
    """Return the name of the base model, of a directory the last part."""
    return config.model if _is_hub_name(config.model) else Path(config.model).name


def _header(config: TrainConfig) -> dict[str, Any]:
    data = str(config.data)
    known = {
        "base_model": config.model if _is_hub_name(config.model) else None,
        "datasets": is_hub_name(data) and [split_revision(data.removeprefix(SCHEME))[0]],
        "library_name": "transformers" if config.save.merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["dpo", "preference"],
    }
    return {key: value for key, value in known.items() if value}


def _is_hub_name(model: str) -> bool:
    return _HUB_NAME.fullmatch(model) is not None and not Path(model).exists()


def _settings(config: TrainConfig) -> list[list[str]]:
    """Return the settings that decide the steps, named as in the config, without defaults."""
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
