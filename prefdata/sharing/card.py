"""Card of a shared set: the build's card, its configs, and how to load it.

Text outside the marks is kept, and so are header keys that a push does not write.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pyarrow import parquet

from prefdata.errors import PrefdataError
from prefdata.hub.inputs import is_hub_name
from prefdata.hub.repo import Repo, fetch_file
from prefdata.records.split_names import rank_of
from prefdata.report.card import card_body, card_header, escape
from prefdata.report.figures import count
from prefdata.report.model import Report
from prefdata.report.safe import yaml_text
from prefdata.sharing.record import CARD, Names
from prefdata.sharing.references import StoredReference
from prefdata.store.reader import Build

BEGIN = "<!-- prefdata: what follows is written by a push; text around it stays -->"
END = "<!-- prefdata: end -->"
_HEADER = re.compile(r"\A---\r?\n(.*?)\r?\n---[ \t]*\r?\n?", re.DOTALL)
_TASK = "text-generation"
_HUB_INPUT = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)@")
DEFAULT = "default"
"""Name of the config with messages."""


class Shared(NamedTuple):
    """Facts about a set that its card shows in addition to the report."""

    build: Build
    repo: str
    names: Names
    references: list[tuple[StoredReference, str | None]]
    """Reference log-probs, and the licence of their model as its card states it."""
    licence: str | None
    info: list[dict[str, Any]]
    """`dataset_info`: columns, rows and bytes of each config."""


def write_shared_card(report: Report, shared: Shared, theirs: str | None = None) -> str:
    """Return the card's text; other people's text in the existing card, `theirs`, is kept."""
    body = "\n\n".join([*_usage(report, shared), card_body(report, shared.repo)])
    return merge_card(shared_header(report, shared), body, theirs)


def merge_card(header: dict[str, Any], body: str, theirs: str | None) -> str:
    """Return a card with a header and, between the marks, `body`; the rest of `theirs` is kept."""
    known, around = parse_card(theirs or "")
    merged = known | header
    for key in ("tags", "task_categories"):
        more = known.get(key)
        both = [*header.get(key, []), *(more if isinstance(more, list) else [])]
        merged |= {key: list(dict.fromkeys(both))} if both else {}
    ours = f"{BEGIN}\n\n{body.strip()}\n\n{END}"
    if BEGIN in around and END in around:
        before, _, rest = around.partition(BEGIN)
        around = before + ours + rest.partition(END)[2]
    else:
        around = f"{around.rstrip()}\n\n{ours}\n" if around.strip() else f"{ours}\n"
    return f"---\n{yaml_text(merged, sort_keys=True)}---\n\n{around.lstrip()}"


def parse_card(text: str) -> tuple[dict[str, Any], str]:
    """Return a card's header and the rest; a header that is not YAML is part of the rest."""
    found = _HEADER.match(text)
    if found is None:
        return {}, text
    try:
        header = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}, text
    return (header, text[found.end() :]) if isinstance(header, dict) else ({}, text)


def shared_header(report: Report, shared: Shared) -> dict[str, Any]:
    """Return the header that the Hub reads: configs, columns, sizes, sources, tags, licence."""
    splits = sorted(report.splits or {}, key=rank_of)
    licence = {} if shared.licence is None else {"license": [shared.licence]}
    return {
        **card_header(report),
        **licence,
        "pretty_name": shared.repo.rpartition("/")[2],
        "task_categories": [_TASK],
        "source_datasets": _sources(report),
        "configs": [
            {"config_name": name, "data_files": _data_files(folder, splits)}
            | ({"default": True} if name == DEFAULT else {})
            for name, folder in folders_of(shared.names).items()
        ],
        "dataset_info": shared.info,
    }


def folders_of(names: Names) -> dict[str, str]:
    """Return the directory of each config's Parquet files, by the config's name."""
    folders = [names.tokens, *names.references.values()]
    return {DEFAULT: "text", **{folder: folder for folder in folders}}


def _sources(report: Report) -> list[str]:
    """Return the sets of the Hub that a set is made from; `original` for local files."""
    found = [_HUB_INPUT.match(item.name) for item in report.inputs]
    names = ["original" if one is None else one["repo"] for one in found]
    return list(dict.fromkeys(names))


def _data_files(folder: str, splits: list[str]) -> list[dict[str, str]]:
    return [{"split": split, "path": f"{folder}/{split}-*.parquet"} for split in splits]


def _usage(report: Report, shared: Shared) -> list[str]:
    names, repo = shared.names, shared.repo
    splits = sorted(report.splits or {}, key=rank_of)
    first = splits[0] if splits else "train"
    rows = sum(split.rows for split in (report.splits or {}).values())
    tokenizer = escape(report.tokenizer.name if report.tokenizer else "?")
    parts = [
        f"# {escape(repo)}",
        f"{count(rows, 'preference pair')}, shared with prefdata: messages for any trainer "
        f"(config `default`), token ids of {tokenizer} (`{names.tokens}`)"
        + (" and the log-probs of a reference model." if names.references else "."),
        "## Use",
        "```python\n"
        "from datasets import load_dataset\n"
        "from trl import DPOConfig, DPOTrainer\n\n"
        f'pairs = load_dataset("{repo}", split="{first}")\n'
        'trainer = DPOTrainer("MODEL", args=DPOConfig("out"), train_dataset=pairs)\n'
        "trainer.train()\n```",
    ]
    if names.references:
        name = next(iter(names.references))
        parts.append(
            f"dpo-train computes no reference log-probs for it: they are in the set.\n\n"
            f"```yaml\nmodel: {shared.references[0][0].manifest['model']}\ndata: {repo}\n"
            f"reference: {{name: {name}}}\nout: runs/dpo\n```"
        )
        rows_of = [
            f"| `{one.name}` | `{names.references[one.name]}` | {escape(one.manifest['model'])} | "
            f"{escape(licence or 'not stated')} | {one.manifest['mixed_precision']} | "
            f"`{one.manifest['weights_sha256'][:16]}` |"
            for one, licence in shared.references
        ]
        head = "| reference | config | model | its license | precision | sha256 of its weights |"
        parts.append("\n".join([head, "| - | - | - | - | - | - |", *rows_of]))
    parts.append(
        f"`prefdata pull {repo} -o FOLDER` writes the build, byte-identical. Its "
        f"manifest's hash is `{shared.build.manifest.hash[:16]}`, its content hash "
        f"`{shared.build.content_hash[:16]}`."
    )
    return parts


def describe_configs(configs: Mapping[str, str], files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the `dataset_info` of each config, given the directory of its Parquet files.

    `files` are all files of a repo, by their name there. Bytes of a split are those of its columns
    before compression; features are named as in `datasets`.
    """
    return [{"config_name": name, **_describe(folder, files)} for name, folder in configs.items()]


def _describe(folder: str, files: Mapping[str, Path]) -> dict[str, Any]:
    from datasets import Features

    splits: dict[str, list[int]] = {}
    features: Any = None
    download = 0
    for name, path in files.items():
        parent, _, file = name.rpartition("/")
        if parent != folder:
            continue
        about = parquet.read_metadata(path)
        if features is None:
            features = Features.from_arrow_schema(about.schema.to_arrow_schema())
        sizes = splits.setdefault(file.partition("-")[0], [0, 0])
        sizes[0] += sum(about.row_group(at).total_byte_size for at in range(about.num_row_groups))
        sizes[1] += about.num_rows
        download += path.stat().st_size
    return {
        "features": features._to_yaml_list(),
        "splits": [
            {"name": split, "num_bytes": splits[split][0], "num_examples": splits[split][1]}
            for split in sorted(splits, key=rank_of)
        ],
        "download_size": download,
        "dataset_size": sum(num_bytes for num_bytes, _ in splits.values()),
    }


def find_licence(model: str) -> str | None:
    """Return the licence of a model's directory or of a model on the Hub, such as `apache-2.0`.

    None if its card states none or cannot be read: a card must not stop a push.
    """
    if Path(model).is_dir():
        path = Path(model) / CARD
    elif is_hub_name(model):
        try:
            path = fetch_file(Repo(model, "model"), CARD, None)
        except PrefdataError:
            return None
    else:
        return None
    if not path.is_file():
        return None
    stated = parse_card(path.read_text(encoding="utf-8", errors="replace"))[0].get("license")
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    return stated if isinstance(stated, str) and stated else None
