"""Evidence of a code in one pair: what a message says about it, and the passages that it is about.

The rules (`rules.py`) decide over whole batches. This explains one pair that broke a rule, for the
first places of a report, for `rejected/` and for `prefdata show --code`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any, NamedTuple

import orjson

from prefdata.check.catalog import catalog
from prefdata.check.limits import CheckLimits
from prefdata.check.rows.context import PARTS, ROLES
from prefdata.check.rows.language import SAMPLE_CHARS, language_of
from prefdata.check.rows.refusal import HEAD_CHARS, REFUSAL
from prefdata.check.rows.repetition import loop_of
from prefdata.check.rows.rules import (
    BROKEN_MARKER,
    COMMON_CONTROLS,
    DAMAGE,
    MEDIA_MARKS,
    SPEAKER,
    TEMPLATE_MARKS,
)
from prefdata.check.rows.slow import ends_open, fault_of_turn, mean_of_aspects, similarity
from prefdata.read.adapt.ids import shorten
from prefdata.read.texts import is_glued
from prefdata.records.secrets import describe, find_private, private_spans, quote, visible

SIDES = PARTS[1:]
_AROUND = 24  # characters of context on either side of a quoted passage
_QUOTED = 80  # characters, at most, of a quotation
_SEARCHED = 400  # characters on either side that are searched for private data
_MOST_SPANS = 100
Pair = Mapping[str, Any]
"""A row of RECORDS as Python values, or at least its prompt, chosen and rejected."""


class Span(NamedTuple):
    """Passage of a turn: characters from `start` to `end`."""

    part: str
    turn: int
    start: int
    end: int


class Evidence(NamedTuple):
    """A message, and the passages of the pair that it is about."""

    said: str
    spans: tuple[Span, ...] = ()


class Reading(NamedTuple):
    """Settings that decide what breaks a rule."""

    limits: CheckLimits = CheckLimits()
    control_tokens: Sequence[str] = ()


def evidence_of(code: str, pair: Pair, reading: Reading) -> Evidence:
    """Return the evidence of a code in a pair, or the code's meaning if nothing says more."""
    find = _FINDERS.get(code)
    found = find(pair, reading) if find else None
    return found or Evidence(catalog()[code].meaning)


def _turns(pair: Pair, parts: Sequence[str] = PARTS) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for part in parts:
        yield from ((part, at, turn) for at, turn in enumerate(pair[part] or ()))


def _place(pair: Pair, part: str, turn: int) -> str:
    """Return a turn in words: "turn 2 of chosen", or only the part if it has one turn."""
    name = "the prompt" if part == "prompt" else part
    return name if len(pair[part]) == 1 else f"turn {turn + 1} of {name}"


def _quote(text: str, start: int = 0, end: int | None = None) -> str:
    """Return a passage with its surroundings, as a JSON string without anything private."""
    end = len(text) if end is None else end
    origin = max(start - _SEARCHED, 0)
    for begin, stop in private_spans(text[origin : end + _SEARCHED]):
        if begin + origin < end + _AROUND and start - _AROUND < stop + origin:
            return '"(private)"'
    first, last = max(start - _AROUND, 0), min(end + _AROUND, len(text))
    shown = ("…" if first else "") + text[first:last] + ("…" if last < len(text) else "")
    return orjson.dumps(shorten(shown, _QUOTED)).decode()


def _whole(pair: Pair, part: str, turn: int) -> Span:
    return Span(part, turn, 0, len(pair[part][turn]["content"]))


def _by_pattern(
    pattern: re.Pattern[str], what: str, parts: Sequence[str] = PARTS
) -> Callable[[Pair, Reading], Evidence | None]:
    """Return a finder of all matches of a pattern, which quotes the first."""

    def find(pair: Pair, _: Reading) -> Evidence | None:
        return _matches(pair, pattern, what, parts)

    return find


def _matches(
    pair: Pair, pattern: re.Pattern[str], what: str, parts: Sequence[str] = PARTS
) -> Evidence | None:
    spans, said = [], ""
    for part, at, turn in _turns(pair, parts):
        for match in islice(pattern.finditer(turn["content"]), _MOST_SPANS):
            said = said or (
                f"{_place(pair, part, at)} contains {what}: "
                f"{_quote(turn['content'], match.start(), match.end())}"
            )
            spans.append(Span(part, at, match.start(), match.end()))
    return Evidence(said, tuple(spans)) if spans else None


def _any_of(marks: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))


def _python_regex(pattern: str) -> re.Pattern[str]:
    r"""Compile a pattern of polars, which writes characters as `\u{80}`."""
    return re.compile(re.sub(r"\\u\{([0-9a-f]+)\}", lambda m: chr(int(m[1], 16)), pattern))


def _controls(pair: Pair, reading: Reading) -> Evidence | None:
    spelled = [token for token in reading.control_tokens if token.strip()] or COMMON_CONTROLS
    return _matches(pair, _any_of(spelled), "the text of a control token")


def _blank_prompt(pair: Pair, _: Reading) -> Evidence:
    turns = len(pair["prompt"])
    spans = tuple(_whole(pair, "prompt", at) for at in range(turns))
    return Evidence("the prompt has no text" if turns else "the prompt has no turns", spans)


def _blank_side(pair: Pair, _: Reading) -> Evidence | None:
    for side in SIDES:
        turns = pair[side]
        if turns and (turns[-1]["content"].strip() or turns[-1].get("tool_calls")):
            continue
        if not turns:
            return Evidence(f"{side} has no turns")
        at = len(turns) - 1
        said = f"{_place(pair, side, at)} {_EMPTY[not turns[at]['content']]}"
        return Evidence(said, (_whole(pair, side, at),))
    return None


_EMPTY = {True: "is empty", False: "has only spaces or line breaks"}


def _not_assistant(pair: Pair, _: Reading) -> Evidence | None:
    for side in SIDES:
        if pair[side] and (role := pair[side][-1]["role"]) != "assistant":
            at = len(pair[side]) - 1
            return Evidence(
                f"{_place(pair, side, at)} is the last one and of the role {quote(role, 40)!r}",
                (_whole(pair, side, at),),
            )
    return None


def _unknown_role(pair: Pair, _: Reading) -> Evidence | None:
    for part, at, turn in _turns(pair):
        if turn["role"] not in ROLES:
            said = f"{_place(pair, part, at)} has the role {quote(turn['role'], 40)!r}"
            known = f"{said}, which is none of {', '.join(ROLES)}"
            return Evidence(known, (_whole(pair, part, at),))
    return None


def _repeated_role(pair: Pair, _: Reading) -> Evidence | None:
    for side in SIDES:
        before: tuple[str, int, str] | None = None
        for part, at, turn in _turns(pair, ("prompt", side)):
            role = turn["role"]
            if before and role == before[2] and role in ("user", "assistant"):
                first, second = _place(pair, *before[:2]), _place(pair, part, at)
                spans = (_whole(pair, *before[:2]), _whole(pair, part, at))
                return Evidence(f"{first} and {second} follow each other, both of {role}", spans)
            before = (part, at, role)
    return None


def _late_system(pair: Pair, _: Reading) -> Evidence | None:
    for part, at, turn in _turns(pair):
        if turn["role"] == "system" and (part, at) != ("prompt", 0):
            return Evidence(f"{_place(pair, part, at)} is a system turn", (_whole(pair, part, at),))
    return None


def _several_turns(pair: Pair, _: Reading) -> Evidence:
    chosen, rejected = (len(pair[side]) for side in SIDES)
    return Evidence(f"chosen has {chosen} turns and rejected {rejected}")


def _malformed(pair: Pair, _: Reading) -> Evidence | None:
    for part, at, turn in _turns(pair):
        fault = fault_of_turn(turn, has_tools=pair.get("tools") is not None)
        if fault:
            return Evidence(f"{_place(pair, part, at)}: {fault}", (_whole(pair, part, at),))
    return None


def _glued(pair: Pair, _: Reading) -> Evidence | None:
    prompt = pair["prompt"][-1]["content"]
    for side in SIDES:
        text = pair[side][0]["content"] if pair[side] else ""
        if is_glued(prompt, text):
            ends, begins = len(prompt), min(len(text), 12)
            joined = f"…{visible(prompt, max(ends - 12, 0))}{visible(text, 0, begins)}…"
            spans = (
                Span("prompt", len(pair["prompt"]) - 1, max(ends - 12, 0), ends),
                Span(side, 0, 0, begins),
            )
            return Evidence(f"prompt and {side} join as {orjson.dumps(joined).decode()}", spans)
    return None


def _same(pair: Pair, _: Reading) -> Evidence:
    contents = [[turn["content"] for turn in pair[side]] for side in SIDES]
    exact = contents[0] == contents[1]
    more = "" if exact else ", but for spaces or Unicode forms"
    spans = tuple(_whole(pair, part, at) for part, at, _ in _turns(pair, SIDES))
    return Evidence(f"chosen and rejected are the same{more}", spans)


def _near(pair: Pair, _: Reading) -> Evidence:
    chosen, rejected = ("\x1e".join(turn["content"] for turn in pair[side]) for side in SIDES)
    said = f"the similarity of chosen and rejected is {similarity(chosen, rejected):.3f}"
    if any(len(pair[side]) != 1 for side in SIDES):
        return Evidence(said)
    before = _num_shared(chosen, rejected)
    after = _num_shared(chosen[before:][::-1], rejected[before:][::-1])
    return Evidence(
        said,
        (
            Span("chosen", 0, before, len(chosen) - after),
            Span("rejected", 0, before, len(rejected) - after),
        ),
    )


def _num_shared(first: str, second: str) -> int:
    """Return the number of characters that both begin with."""
    return sum(
        1 for _ in takewhile(lambda both: both[0] == both[1], zip(first, second, strict=False))
    )


def _scores(pair: Pair, _: Reading) -> Evidence:
    chosen, rejected = pair.get("score_chosen"), pair.get("score_rejected")
    if chosen is not None and rejected is not None and rejected > chosen:
        return Evidence(f"chosen has the score {chosen:g}, and rejected {rejected:g}")
    return Evidence(f"the margin is {pair.get('margin') or 0:g}")


def _out_of_range(pair: Pair, reading: Reading) -> Evidence | None:
    low, high = reading.limits.score_range or (0.0, 0.0)
    for side in SIDES:
        score = pair.get(f"score_{side}")
        if score is not None and not low <= score <= high:
            return Evidence(f"{side} has the score {score:g}, outside of {low:g} to {high:g}")
    return None


def _overrated(pair: Pair, _: Reading) -> Evidence | None:
    meta = orjson.loads(pair.get("meta") or "{}")
    for side in SIDES:
        mean, score = mean_of_aspects(meta.get(f"{side}_aspects")), pair.get(f"score_{side}")
        if mean is not None and score is not None and score > 2 * mean + 1:
            return Evidence(f"{side} has the score {score:g}, and its aspects a mean of {mean:g}")
    return None


def _ranks(pair: Pair, _: Reading) -> Evidence:
    return Evidence(
        f"chosen has the rank {pair.get('chosen_rank')}, and rejected {pair.get('rejected_rank')}"
    )


def _margin(pair: Pair, reading: Reading) -> Evidence:
    margin = pair.get("margin")
    if margin is None:
        margin = (pair.get("score_chosen") or 0) - (pair.get("score_rejected") or 0)
    return Evidence(f"the margin is {margin:g}, below {reading.limits.min_margin or 0:g}")


def _turns_down(pair: Pair, _: Reading) -> Evidence | None:
    at = len(pair["chosen"]) - 1
    text = pair["chosen"][at]["content"]
    match = re.search(REFUSAL, text[:HEAD_CHARS])
    if match is None:
        return None
    said = f"chosen refuses, and rejected does not: {_quote(text, *match.span())}"
    return Evidence(said, (Span("chosen", at, *match.span()),))


def _lengths(pair: Pair, _: Reading) -> Evidence:
    sizes = {part: sum(len(turn["content"]) for turn in pair[part]) for part in PARTS}
    said = ", ".join(f"{part} has {num:,}" for part, num in sizes.items())
    longest = max(PARTS, key=lambda part: sizes[part])
    spans = tuple(_whole(pair, longest, at) for at in range(len(pair[longest])))
    return Evidence(f"{said} characters", spans)


def _cut(pair: Pair, _: Reading) -> Evidence | None:
    for side in SIDES:
        at = len(pair[side]) - 1
        text = pair[side][at]["content"]
        reason = ends_open(text)
        if reason:
            start = max(len(text.rstrip()) - 30, 0)
            spans = (Span(side, at, start, len(text)),)
            return Evidence(f"{side} {reason}: {_quote(text, start)}", spans)
    return None


def _other_language(pair: Pair, _: Reading) -> Evidence:
    known = {
        part: language_of(pair[part][-1]["content"][:SAMPLE_CHARS]) for part in PARTS if pair[part]
    }
    said = ", ".join(f"{part} is {name}" for part, name in known.items() if name)
    others = [side for side in SIDES if known.get(side) != known.get("prompt")]
    spans = tuple(_whole(pair, side, len(pair[side]) - 1) for side in others if pair[side])
    return Evidence(said or catalog()["PD312"].meaning, spans)


def _loops(pair: Pair, _: Reading) -> Evidence | None:
    for part, at, turn in _turns(pair, SIDES):
        loop = loop_of(turn["content"])
        if loop is not None:
            said = f"{_place(pair, part, at)} repeats {_quote(turn['content'][slice(*loop)])}"
            return Evidence(said, (Span(part, at, loop[0], len(turn["content"])),))
    return None


def _private(pair: Pair, _: Reading) -> Evidence:
    """Show private data only by class and last characters."""
    found = [match for *_, turn in _turns(pair) for match in find_private(turn["content"])]
    spans = tuple(
        Span(part, at, *span)
        for part, at, turn in _turns(pair)
        for span in private_spans(turn["content"])
    )
    return Evidence(describe(found), spans)


_FINDERS: dict[str, Callable[[Pair, Reading], Evidence | None]] = {
    "PD106": _by_pattern(_python_regex(DAMAGE), "damaged text"),
    "PD107": _by_pattern(re.compile(BROKEN_MARKER), "what may be a broken marker"),
    "PD201": _blank_prompt,
    "PD202": _blank_side,
    "PD203": _not_assistant,
    "PD204": _unknown_role,
    "PD205": _repeated_role,
    "PD206": _late_system,
    "PD208": _several_turns,
    "PD209": _by_pattern(re.compile(SPEAKER), "a marker of a speaker", SIDES),
    "PD210": _controls,
    "PD211": _malformed,
    "PD212": _by_pattern(_any_of(MEDIA_MARKS), "a mark of media"),
    "PD213": _by_pattern(_any_of(TEMPLATE_MARKS), "the markup of a chat template"),
    "PD214": _glued,
    "PD301": _same,
    "PD302": _near,
    "PD304": _scores,
    "PD305": _out_of_range,
    "PD306": _overrated,
    "PD307": _ranks,
    "PD308": _margin,
    "PD309": _turns_down,
    "PD310": _lengths,
    "PD311": _cut,
    "PD312": _other_language,
    "PD313": _loops,
    "PD607": _private,
}
