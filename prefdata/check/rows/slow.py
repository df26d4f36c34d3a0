"""Slow checks: those that need more than an expression over one message or pair.

Each returns a mask over the pairs. A cheap filter selects candidates first; the expensive test
runs only on those.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
from rapidfuzz.distance import Indel

from prefdata.check.rows.contamination import overlaps, read_evaluation
from prefdata.check.rows.context import CHOSEN, PROMPT, REJECTED, CheckContext, Flags
from prefdata.check.rows.repetition import MIN_CHARS, loops
from prefdata.read.texts import is_glued
from prefdata.records.secrets import find_private, quote, suspects

CUT_END = r"[\p{L}\p{N},(]"
CUT_CHARS = 200
LAST_LINE = 40  # characters, at most, of a last line that can be an ending by itself
SHARED_LINE = 0.1  # of the long sides: this many end with a line of one shape
MIN_SHARED, MIN_SHORT = 3, 20
MAX_CELLS = 25_000_000
"""Longest texts to compare by characters, as the product of their lengths; longer ones are compared
by words, or by lines."""


class SlowCheck(NamedTuple):
    """One slow check, and the sums of `rules.SUMS` that it reads."""

    see: Callable[[CheckContext, pl.DataFrame], Flags]
    """The frame has one row per pair: `row`, turns, facts, and the sums in `needs`."""
    needs: tuple[str, ...] = ()


def normalized(text: pl.Expr) -> pl.Expr:
    """Normalize text for comparison: NFC, and runs of spaces as one space."""
    return text.str.normalize("NFC").str.replace_all(r"\s+", " ").str.strip_chars()


def side_texts(messages: pl.DataFrame, rows: pl.Series, text: pl.Expr) -> pl.DataFrame:
    """Return `row`, `chosen`, `rejected` of the given rows: the turns of each side as one text."""
    sides = messages.filter(pl.col("row").is_in(rows.implode()), pl.col("part") != PROMPT)
    named = {"chosen": CHOSEN, "rejected": REJECTED}
    return sides.group_by("row", maintain_order=True).agg(
        text.filter(pl.col("part") == part).str.join("\x1e").alias(name)
        for name, part in named.items()
    )


def _same(scene: CheckContext, pairs: pl.DataFrame) -> Flags:
    """Find pairs whose sides are equal once normalized.

    Normalizing is slow, so it is done only if the cheap counts of both sides agree: neither
    spaces nor Unicode forms change the number of commas and full stops.
    """
    close = pairs.filter(
        pl.col("turns_chosen") == pl.col("turns_rejected"),
        pl.col("more_commas") == 0,
        pl.col("more_stops") == 0,
    )["row"]
    fields = [pl.col(name).fill_null("") for name in ("role", "tool_calls", "reasoning")]
    one = pl.concat_str(normalized(pl.col("content")), *fields, separator="\x1f")
    texts = side_texts(scene.messages, close, one)
    return scene.flags(texts.filter(pl.col("chosen") == pl.col("rejected"))["row"])


def _near(scene: CheckContext, pairs: pl.DataFrame) -> Flags:
    """Find pairs with nearly equal sides; pairs whose counts differ too much are not compared."""
    least = scene.limits.min_similarity
    allowed = (1 - least) * (pl.col("chars_chosen") + pl.col("chars_rejected"))
    differ = (
        pl.col("more_commas").abs()
        + pl.col("more_stops").abs()
        + (pl.col("chars_chosen") - pl.col("chars_rejected")).abs()
    )
    # One more comma is also one more character, so up to half of `differ` is counted twice.
    close = pairs.filter(
        pl.min_horizontal("chars_chosen", "chars_rejected") > 0, differ <= 2 * allowed
    )["row"]
    texts = side_texts(scene.messages, close, pl.col("content"))
    near = [
        similarity(one, other, least=least) >= least
        for one, other in zip(texts["chosen"], texts["rejected"], strict=True)
    ]
    return scene.flags(texts.filter(pl.Series(near, dtype=pl.Boolean))["row"])


def similarity(one: str, other: str, *, least: float = 0.0) -> float:
    """Return twice the characters that two texts share in order, over all of theirs, from 0 to 1.

    This is the normalized Indel similarity of `rapidfuzz`; 0 if it is below `least`. Texts of more
    than 5,000 lines each are not compared, and have nothing in common.

    >>> round(similarity("chat", "cat"), 4)
    0.8571
    """
    if len(one) * len(other) <= MAX_CELLS:
        return _ratio(one, other, least)
    for split in (str.split, str.splitlines):
        first, second = split(one), split(other)
        if len(first) * len(second) <= MAX_CELLS:
            return _ratio(first, second, least)
    return 0.0


def _ratio(one: Sequence[str], other: Sequence[str], least: float) -> float:
    total = len(one) + len(other)
    if not total:
        return 1.0
    most = int((1 - least) * total) + 1  # one more than needed, as the product is rounded
    found = (total - Indel.distance(one, other, score_cutoff=most)) / total
    return found if found >= least else 0.0


def _malformed(scene: CheckContext, _: pl.DataFrame) -> Flags:
    """Find pairs with tool calls or a tool result that cannot be rendered."""
    special = pl.col("tool_calls").is_not_null() | (pl.col("role") == "tool")
    tools = scene.batch["tools"]
    found = [
        turn["row"]
        for turn in scene.messages.filter(special).iter_rows(named=True)
        if fault_of_turn(turn, has_tools=tools[turn["row"]].is_valid)
    ]
    return scene.flags(pl.Series(found, dtype=pl.UInt32))


def fault_of_turn(message: Mapping[str, Any], *, has_tools: bool) -> str:
    """Return what is wrong with a turn's tool calls or tool result; empty if nothing is."""
    if message["role"] == "tool" and not (message.get("tool_call_id") or message.get("name")):
        return "a tool's result names neither its call nor its tool"
    calls = message.get("tool_calls")
    if calls is None:
        return ""
    if not has_tools:
        return "it calls a tool, and the row has no tools"
    parsed = orjson.loads(calls)  # canonical JSON by construction
    if type(parsed) is not list:
        return "its tool calls are not a list"
    return next(filter(None, map(_fault_of_call, parsed)), "")


def _fault_of_call(call: Any) -> str:
    function = call.get("function", call) if type(call) is dict else None
    if type(function) is not dict or not isinstance(function.get("name"), str):
        return "a tool call has no function with a name"
    arguments = function.get("arguments", {})
    if type(arguments) is str:
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            return f"the arguments of {quote(function['name'], 80)!r} are not JSON"
    if type(arguments) is not dict:
        return f"the arguments of {quote(function['name'], 80)!r} are not an object"
    return ""


def _overrated(scene: CheckContext, pairs: pl.DataFrame) -> Flags:
    """Find pairs with a side whose score is more than 2 × the mean of its aspects + 1 (PD306).

    The aspects are in `meta` as `chosen_aspects` and `rejected_aspects`: numbers, or a mapping.
    """
    meta = pl.Series(scene.batch["meta"])
    found = np.zeros(len(meta), np.bool_)
    for row in meta.str.contains("_aspects", literal=True).arg_true():
        rest = orjson.loads(meta[row])
        for side in ("chosen", "rejected"):
            mean = mean_of_aspects(rest.get(f"{side}_aspects"))
            score = pairs[f"score_{side}"][row]
            found[row] |= mean is not None and score is not None and score > 2 * mean + 1
    return found


def _glued(scene: CheckContext, _: pl.DataFrame) -> Flags:
    """Find verbatim pairs whose prompt and a side join without anything between them."""
    found = np.zeros(scene.batch.num_rows, np.bool_)
    rows = (pl.Series(scene.batch["form"]) == "text").arg_true()
    if rows.is_empty():
        return found
    ends = scene.messages.filter(pl.col("row").is_in(rows.implode()))
    prompts = ends.filter("last", pl.col("part") == PROMPT).select("row", prompt="content")
    sides = ends.filter(pl.col("at") == 0, pl.col("part") != PROMPT).select("row", "content")
    for row, prompt, side in prompts.join(sides, on="row").iter_rows():
        found[row] |= is_glued(prompt, side)
    return found


def mean_of_aspects(aspects: object) -> float | None:
    """Return the mean of a side's aspects, numbers or a mapping; None if it has none."""
    values = list(aspects.values()) if isinstance(aspects, dict) else aspects
    if not isinstance(values, list):
        return None
    numbers = [value for value in values if type(value) in (int, float)]
    return sum(numbers) / len(numbers) if numbers else None


def _other_language(scene: CheckContext, _: pl.DataFrame) -> Flags:
    """Find pairs whose last turns are in several languages, as far as these are known."""
    several = scene.spoken.group_by("row").agg(pl.col("language").n_unique() > 1)
    return scene.flags(several.filter("language")["row"])


def _turns_down(scene: CheckContext, _: pl.DataFrame) -> Flags:
    """Find pairs whose chosen side refuses and whose rejected side does not."""
    return scene.refusals[CHOSEN] & ~scene.refusals[REJECTED]


def _cut(scene: CheckContext, _: pl.DataFrame) -> Flags:
    """Find pairs with a side that ends inside a sentence or a code block, as if cut by a limit.

    They are compared with how the batch's own sides end. If short ones mostly end without a full
    stop, long ones may too; and a last line that many share, such as `#### 72`, is an ending.
    """
    text = pl.col("content")
    sides = scene.last.filter(pl.col("part") != PROMPT).select(
        "row",
        open_end=text.str.strip_chars_end().str.tail(1).str.contains(CUT_END),
        open_code=text.str.count_matches("```", literal=True) % 2 == 1,
        chars=text.str.len_chars(),
        line=text.str.strip_chars_end().str.tail(LAST_LINE + 1).str.extract(r"\n([^\n]+)$"),
    )
    long = sides.filter(pl.col("chars") > CUT_CHARS)
    short = sides.filter(pl.col("chars").is_between(1, CUT_CHARS))["open_end"]
    is_usual = len(short) >= MIN_SHORT and int(short.sum()) * 2 >= len(short)
    suspects = long.filter("open_end", ~pl.col("open_code"), pl.lit(not is_usual))
    shape = pl.col("line").str.replace_all(r"\p{N}[\p{N}.,]*", "0").str.replace_all(r"\p{L}+", "a")
    suspects = suspects.with_columns(shape=shape)
    often = pl.len().over("shape") >= max(MIN_SHARED, SHARED_LINE * len(long))
    cut = suspects.filter(pl.col("shape").is_null() | ~often)
    return scene.flags(pl.concat([cut["row"], long.filter("open_code")["row"]]))


def ends_open(text: str) -> str:
    """Return how a text ends as if it was cut; empty if it does not."""
    if text.count("```") % 2:
        return "ends inside a code block"
    last = text.rstrip()[-1:]
    return f"ends with {last!r}" if last and (last.isalnum() or last in ",(") else ""


def _loops(scene: CheckContext, _: pl.DataFrame) -> Flags:
    """Find pairs with a side that repeats the same few words."""
    said = scene.messages.filter(
        pl.col("part") != PROMPT, pl.col("content").str.len_bytes() >= MIN_CHARS
    ).select("row", "content")
    return scene.flags(said.filter(loops(said["content"]))["row"])


def _private(scene: CheckContext, _: pl.DataFrame) -> Flags:
    """Find pairs with a turn that contains what looks like a secret or personal data."""
    may = scene.messages.filter(suspects(pl.col("content"))).select("row", "content")
    holds = [next(find_private(text), None) is not None for text in may["content"]]
    return scene.flags(may.filter(pl.Series(holds, dtype=pl.Boolean))["row"])


def _overlaps(scene: CheckContext, _: pl.DataFrame) -> Flags:
    """Find pairs with a turn that contains text of a named evaluation file."""
    if not scene.evaluations:
        return np.zeros(scene.batch.num_rows, np.bool_)
    found = overlaps(scene.messages["content"], read_evaluation(scene.evaluations))
    return scene.flags(scene.messages["row"].filter(pl.Series(found)))


LOOKS: dict[str, SlowCheck] = {
    "malformed": SlowCheck(_malformed),
    "same": SlowCheck(_same, ("more_commas", "more_stops")),
    "near": SlowCheck(_near, ("more_commas", "more_stops", "chars_chosen", "chars_rejected")),
    "overrated": SlowCheck(_overrated),
    "glued": SlowCheck(_glued),
    "turns_down": SlowCheck(_turns_down),
    "other_language": SlowCheck(_other_language),
    "overlaps": SlowCheck(_overlaps),
    "cut": SlowCheck(_cut),
    "loops": SlowCheck(_loops),
    "private": SlowCheck(_private),
}
