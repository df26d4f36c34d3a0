"""Dataset card: README.md with the YAML header that the Hub reads, and the build in numbers."""

import re
from collections.abc import Iterator
from typing import Any

from prefdata.config import BuildConfig
from prefdata.records.split_names import rank_of
from prefdata.report.figures import chosen_longer_said, percent, split_statement, splits_said
from prefdata.report.lengths import PARTS, by_doubling
from prefdata.report.model import ExamplePair, Report
from prefdata.report.safe import plain, yaml_text

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MOST_INPUTS = 50  # rows of the table; the report has all
_BAR = 16  # characters of the longest bar

# Markdown's own characters, and those that make a bare address a link.
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|#!&~@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LIST = re.compile(r"^(\d+)([.)])|^([-+=])")


def write_card(report: Report, *, name: str) -> str:
    """Return the card's text; everything that comes from data or names is escaped."""
    header = yaml_text(card_header(report), sort_keys=True)
    about = (
        "Preference pairs, checked and tokenized by prefdata: `text/` has them as messages for "
        "any trainer,\n`tokens/` as token ids; `rejected/` has every dropped row, with its "
        "reason. `report.html` shows all of this\nas one page."
    )
    return f"---\n{header}---\n\n# {escape(name)}\n\n{about}\n\n{card_body(report, name)}\n"


def card_body(report: Report, name: str) -> str:
    """Return the part of a card that describes the pairs, without the header."""
    tokenizer = report.tokenizer.name if report.tokenizer else "none"
    parts = [
        *_examples(report.example_pairs),
        "## Where every line went",
        table(["input", "lines", "blank", "kept", "duplicates", "rejected"], _lines(report)),
        "## Why",
        table(["code", "what", "count", "share", "advice"], _findings(report)),
        "## Contents",
        table(["split", "pairs", "prompts", "tokens"], _splits(report)),
        table(["source of train", "weight", "pairs", "rows"], _mixture(report)),
        f"{splits_said(report)} {escape(split_statement(report.split_proof))}",
        table(["tokens of", "mean", "median", "95 %", "most"], _lengths(report)),
        _histogram(report),
        f"Tokenizer: {escape(tokenizer)}. {chosen_longer_said(report)}",
        *_command(report, name),
    ]
    return "\n\n".join(part for part in parts if part)


def escape(text: str) -> str:
    r"""Escape text for Markdown, so that no tag, table cell, link or code can begin in it.

    >>> escape("<b> www.x.y https://x")
    '\\<b\\> www\\.x.y https\\://x'
    """
    return _SPECIAL.sub(r"\\\g<0>", plain(text))


def card_header(report: Report) -> dict[str, Any]:
    """Return the header for the Hub; license and language only if known for every pair."""
    splits = report.splits or {}
    rows = sum(split.rows for split in splits.values())
    ordered = sorted(splits, key=rank_of)
    files = [{"split": name, "path": f"text/{name}-*.parquet"} for name in ordered]
    licences = {source.licence for source in report.sources}
    known = {"language": report.languages} if report.languages else {}
    if len(licences) == 1 and None not in licences:
        known["license"] = [str(next(iter(licences))).lower()]
    return {
        "configs": [{"config_name": "default", "data_files": files}],
        "size_categories": [next((size for most, size in _SIZES if rows < most), "n>1M")],
        "tags": ["preference", "dpo", "rlhf"],
        **known,
    }


def _examples(pairs: list[ExamplePair]) -> Iterator[str]:
    """Yield the first pairs, each field as a quotation."""
    if pairs:
        yield "## The first pairs"
    for pair in pairs:
        yield escape(pair.place)
        for part in PARTS:
            yield f"**{part}**\n\n{_quote(getattr(pair, part))}"


def _quote(text: str) -> str:
    """Return a text as a quotation with its lines; no line begins a list, a rule or code."""
    lines = [escape(line.strip()) for line in text.splitlines()]
    shown = [_LIST.sub(r"\1\\\2\3", line) for line in lines]
    return "\n".join(f"> {line}  " if line else ">" for line in shown)


def _lines(report: Report) -> list[list[str]]:
    rows = [(escape(item.name), item.lines) for item in report.inputs[:_MOST_INPUTS]]
    if len(report.inputs) > 1:
        rows.append((f"all {len(report.inputs):,}", report.lines))
    return [
        [name, *(f"{n:,}" for n in (c.lines, c.blank, c.kept, c.duplicates, c.rejected))]
        for name, c in rows
    ]


def _findings(report: Report) -> list[list[str]]:
    return [
        [f.code, escape(f.name), f"{f.count:,}", percent(f.share), escape(f.advice)]
        for f in report.findings
    ]


def _splits(report: Report) -> list[list[str]]:
    return [
        [name, f"{split.rows:,}", f"{split.groups:,}", f"{split.tokens:,}"]
        for name, split in sorted((report.splits or {}).items(), key=lambda of: rank_of(of[0]))
    ]


def _mixture(report: Report) -> list[list[str]]:
    return [
        [escape(one.name), f"{one.weight:g}", f"{one.pairs:,}", f"{one.rows:,}"]
        for one in report.mixture
    ]


def _lengths(report: Report) -> list[list[str]]:
    found = report.lengths or {}
    return [
        [part, f"{x.mean:.1f}", f"{x.median:.0f}", f"{x.p95:.0f}", str(x.max)]
        for part, x in ((part, found[part]) for part in PARTS if part in found)
    ]


def _histogram(report: Report) -> str:
    """Return a histogram of lengths in doublings, with a bar for each field."""
    shapes = report.histograms or {}
    bins = {part: dict(by_doubling(shapes[part])) for part in PARTS if part in shapes}
    labels = {label: None for part in bins.values() for label in part}
    if not labels:
        return ""
    most = max(count for part in bins.values() for count in part.values()) or 1
    low = {label: int(label.split("–")[0].replace(",", "")) for label in labels}
    width = max(len(label) for label in (*labels, report.length_unit))
    rows = [[report.length_unit.rjust(width), *(part.ljust(_BAR + 7) for part in bins)]]
    for label in sorted(labels, key=lambda label: low[label]):
        bars = [_bar(part.get(label, 0), most, sum(part.values())) for part in bins.values()]
        rows.append([label.rjust(width), *bars])
    return _fenced("\n".join("  ".join(row).rstrip() for row in rows), "text")


def _bar(count: int, most: int, total: int) -> str:
    """Return a bar and its share of the pairs; spaces if there are none."""
    if not count:
        return " " * (_BAR + 7)
    return f"{'█' * round(count / most * _BAR):{_BAR}}{percent(count / (total or 1)):>7}"


def _command(report: Report, name: str) -> Iterator[str]:
    """Yield the config without default values, and the command that builds it again."""
    if report.config is None:
        return
    fields = BuildConfig.model_fields
    asked = {
        key: _in_order(report.config[key])
        for key, field in fields.items()
        if key in report.config and (field.is_required() or report.config[key] != _default(key))
    }
    safe_name = re.sub(r"[^\w.-]", "-", plain(name), flags=re.ASCII).lstrip("-") or "build"
    yield "## Build it again"
    yield "The same inputs and this `build.yaml` give the same bytes:"
    yield _fenced(yaml_text(asked, sort_keys=False).rstrip(), "yaml")
    yield _fenced(f"prefdata build build.yaml -o {safe_name}", "sh")


def _in_order(value: Any) -> Any:
    """Return a value with sorted keys, so that a card is the same from any report."""
    return {key: value[key] for key in sorted(value)} if isinstance(value, dict) else value


def _default(key: str) -> Any:
    """Return a setting's default, as JSON."""
    value = BuildConfig.model_fields[key].get_default(call_default_factory=True)
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _fenced(text: str, language: str) -> str:
    """Return a code block whose fence is longer than any run of backticks in it."""
    runs = re.findall(r"`+", text)
    fence = "`" * max(3, *(len(run) + 1 for run in runs), 3)
    return f"{fence}{language}\n{text}\n{fence}"


def table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
