"""The dataset card: README.md with the YAML header that the Hub reads, and the build in numbers."""

import re
from typing import Any

import yaml

from prefdata.report.model import Report
from prefdata.report.safe import plain

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(report: Report, *, name: str, tokenizer: str) -> str:
    """The card's text; everything that comes from data or names is escaped."""
    parts = [
        f"---\n{yaml.safe_dump(_header(report), sort_keys=True, allow_unicode=True)}---",
        f"# {escape(name)}",
        "Preference pairs, checked and tokenized by prefdata: `text/` holds them as messages for "
        "any trainer,\n`tokens/` as token ids, `rejected/` every row that was left out, with its "
        "reason.",
        "## Where every line went",
        _table(["input", "lines", "blank", "kept", "duplicates", "rejected"], _lines(report)),
        "## Why",
        _table(["code", "what", "count", "advice"], _findings(report)),
        "## What is in it",
        _table(["split", "pairs", "prompts", "tokens"], _splits(report)),
        _table(["tokens of", "mean", "median", "95 %", "most"], _lengths(report)),
        f"Tokenizer: `{escape(tokenizer)}`. The chosen side is the longer one in "
        f"{report.chosen_longer or 0:.1%} of the pairs.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Text as Markdown shows it: no tag, table cell, link or code can begin in it."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&])", r"\\\1", plain(text))


def _header(report: Report) -> dict[str, Any]:
    splits = report.splits or {}
    rows = sum(split.rows for split in splits.values())
    files = [{"split": name, "path": f"text/{name}-*.parquet"} for name in sorted(splits)]
    return {
        "configs": [{"config_name": "default", "data_files": files}],
        "size_categories": [next((size for most, size in _SIZES if rows < most), "n>1M")],
        "tags": ["preference", "dpo", "rlhf"],
    }


def _lines(report: Report) -> list[list[str]]:
    rows = [(escape(item.name), item.lines) for item in report.inputs]
    if len(rows) > 1:
        rows.append(("all", report.lines))
    return [
        [name, *(f"{n:,}" for n in (c.lines, c.blank, c.kept, c.duplicates, c.rejected))]
        for name, c in rows
    ]


def _findings(report: Report) -> list[list[str]]:
    return [[f.code, f.name, f"{f.count:,}", escape(f.advice)] for f in report.findings]


def _splits(report: Report) -> list[list[str]]:
    return [
        [
            name,
            f"{split.rows:,}",
            f"{split.groups:,}",
            f"{split.prompt_tokens + split.chosen_tokens + split.rejected_tokens:,}",
        ]
        for name, split in sorted((report.splits or {}).items())
    ]


def _lengths(report: Report) -> list[list[str]]:
    return [
        [part, f"{x.mean:.1f}", f"{x.median:.0f}", f"{x.p95:.0f}", str(x.max)]
        for part, x in sorted((report.lengths or {}).items())
    ]


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
