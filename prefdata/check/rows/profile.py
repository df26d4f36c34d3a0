"""Profile of a record: one narrow row without texts, for the checks of whole sets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from blake3 import blake3

from prefdata.check.rows.context import CHOSEN, PARTS, PROMPT, REJECTED, CheckContext
from prefdata.check.rows.language import KNOWN
from prefdata.records.split_names import said_split

content = pl.col("content")
# Counts of formatting in a side; PD604 compares the two sides of each pair.
FEATURES: dict[str, pl.Expr] = {
    "headings": content.str.count_matches(r"(?m)^#{1,6} "),
    "bold": content.str.count_matches(r"\*\*[^*\n]+\*\*"),
    "items": content.str.count_matches(r"\n[ \t]*(?:[-*•]|\d{1,3}[.)]) "),
    "code": content.str.count_matches("```", literal=True) // 2,
    "tables": content.str.count_matches(r"\n[ \t]*\|.*\|[ \t]*\n"),
    "emoji": content.str.count_matches(r"[\x{2600}-\x{27bf}\x{1f300}-\x{1faff}]"),
}
SIZES: dict[str, pl.Expr] = {
    "chars": content.str.len_chars(),
    # Split at single spaces and line ends: nearly right, and 20 times as fast as \\S+.
    "words": content.str.count_matches(" ", literal=True)
    + content.str.count_matches("\n", literal=True)
    + (content != ""),
}
# Keys of a row that name its licence, its source and its thread.
LICENCE_KEYS = ("license", "licence")
ORIGIN_KEYS = ("source", "dataset", "source_dataset", "data_source", "subset", "domain")
THREAD_KEYS = (
    *("conversation_id", "conversation_hash", "thread_id", "session_id", "evaluation_session_id"),
    *("post_id", "message_tree_id", "user_id", "user"),
)
LANGUAGE = pl.Enum(["", *KNOWN])
_MOST_TURNS = 2**16 - 1
_MOST_NAMES = 1000  # licences or origins in a batch; a column with more values is not one of names
_MOST = 255  # of a feature: the largest 8-bit number

_KINDS: dict[str, Any] = {
    **{f"chars_{part}": pl.UInt32 for part in PARTS},
    **{f"words_{part}": pl.UInt32 for part in PARTS},
    **{f"turns_{part}": pl.UInt16 for part in PARTS},
    **{f"{name}_{side}": pl.UInt8 for name in FEATURES for side in PARTS[1:]},
    "chosen_refuses": pl.Boolean,
    "rejected_refuses": pl.Boolean,
    "language": LANGUAGE,  # of the prompt's last turn; "": unknown
    "score_chosen": pl.Float32,
    "score_rejected": pl.Float32,
    "margin": pl.Float32,
    "model_chosen": pl.Categorical(),
    "model_rejected": pl.Categorical(),
    "chosen_first": pl.Boolean,  # true if raters saw the chosen side as answer A
    "licence": pl.Categorical(),
    "origin": pl.Categorical(),
    "said_split": pl.Categorical(),  # the split that the row names, unchanged
    "thread": pl.UInt64,  # hash of a conversation's, user's or post's id; 0: none
}
PROFILE = pl.Schema(_KINDS)
_COPIED = ("score_chosen", "score_rejected", "margin", "model_chosen", "model_rejected")


def profile_scene(scene: CheckContext) -> pl.DataFrame:
    """Return the profile of one batch."""
    batch, height = scene.batch, scene.batch.num_rows
    columns: dict[str, Any] = {}
    for part, name in enumerate(PARTS):
        counts = SIZES if part == PROMPT else SIZES | FEATURES
        own = scene.messages.lazy().filter(pl.col("part") == part).select("row", **counts).collect()
        rows = own["row"].to_numpy()
        for what in counts:
            total = np.bincount(rows, own[what].to_numpy(), height)
            columns[f"{what}_{name}"] = np.minimum(total, _MOST) if what in FEATURES else total
        columns[f"turns_{name}"] = np.minimum(scene.lengths[part], _MOST_TURNS)
    columns["chosen_refuses"] = scene.refusals[CHOSEN]
    columns["rejected_refuses"] = scene.refusals[REJECTED]
    prompts = scene.spoken.filter(pl.col("part") == PROMPT)
    unknown = pl.Series([""]).new_from_index(0, height)
    columns["language"] = unknown.scatter(prompts["row"], prompts["language"])
    columns |= {name: pl.Series(batch[name]) for name in _COPIED}
    columns |= _from_meta(pl.Series(batch["meta"]))
    return pl.DataFrame({name: columns[name] for name in PROFILE}).cast(PROFILE)


def storable(profile: pl.DataFrame) -> pa.Table:
    """Convert a profile to Arrow, categories as text; `cast(PROFILE)` undoes it."""
    texts = [name for name, kind in PROFILE.items() if kind in (pl.Categorical, LANGUAGE)]
    return profile.cast(dict.fromkeys(texts, pl.String)).to_arrow()


def _from_meta(meta: pl.Series) -> dict[str, pl.Series]:
    """Read the profile's columns out of `meta`; rows with an empty `meta` are not parsed."""
    height = len(meta)
    found: dict[str, list[Any]] = {
        "licence": [None] * height,
        "origin": [None] * height,
        "chosen_first": [None] * height,
        "said_split": [None] * height,
        "thread": [0] * height,
    }
    for row in (meta != "{}").arg_true():
        said = orjson.loads(meta[row])
        found["licence"][row] = _text_of(said, LICENCE_KEYS)
        found["origin"][row] = _text_of(said, ORIGIN_KEYS)
        first = said.get("chosen_first")
        found["chosen_first"][row] = first if type(first) is bool else None
        found["said_split"][row] = said_split(said)
        found["thread"][row] = _thread(said)
    for name in ("licence", "origin", "said_split"):
        if len(set(found[name])) > _MOST_NAMES:
            found[name] = [value and "(various)" for value in found[name]]
    kinds: dict[str, Any] = {name: PROFILE[name] for name in found}
    return {name: pl.Series(name, values, kinds[name]) for name, values in found.items()}


def _text_of(said: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    values = (said.get(key) for key in keys)
    return next((value[:80] for value in values if isinstance(value, str) and value), None)


def _thread(said: Mapping[str, Any]) -> int:
    for key in THREAD_KEYS:
        value = said.get(key)
        if value and isinstance(value, str | int):
            digest = blake3(f"{key}={value}".encode()).digest(length=8)
            return int.from_bytes(digest, "little") | 1
    return 0
