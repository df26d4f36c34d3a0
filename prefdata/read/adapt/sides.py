"""Splits of two whole dialogues or texts into the shared prompt and the two completions."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import takewhile
from os.path import commonprefix
from typing import NamedTuple

from prefdata.read.adapt.ids import CONTENT, ROLE, Messages
from prefdata.read.adapt.messages import text_message
from prefdata.read.faults import RowError
from prefdata.records.secrets import quote

# Only these are markers. `\n\nAssistants ...`, a dangling `\n\nHuman` and `Human:` inside a line
# are text.
MARKER = re.compile(r"\n\n(Human|Assistant):")
MARKERS = HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
# Where a prompt can end, in the shared beginning of two texts.
_CONTROL = r"<\|[^|<>\n]{1,40}\|>|</?(?:s|bos|eos|start_of_turn|end_of_turn)>|\[/?[A-Z_]{2,20}\]"
_SPEAKER = r"(?:(?:system|user|assistant|model|tool|bot|gpt)\b)?"  # as in <|im_start|>assistant
_LABEL = r"(?:^|(?<=\n))[#* ]{0,5}(?:[\w.-]{1,20} ?){1,3}:(?=[ \t\n*]|$)"  # opens a line: "Bob:"
_KNOWN = r"(?<!\S)(?:Assistant|Answer|Response|Output|Completion|Summary|TL;DR|AI|Bot|A):"
TURN = re.compile(rf"(?:(?:{_CONTROL}){_SPEAKER}|{_LABEL}|{_KNOWN})\n*")
LINE = re.compile(r"\n+")

SHOWN = 40  # characters of a text in a message


class Split(NamedTuple):
    """A prompt and its two completions."""

    prompt: Messages
    chosen: Messages
    rejected: Messages


def read_transcript(place: str, text: str, roles: Mapping[str, str]) -> Messages:
    """Split an HH transcript into turns at its markers Human and Assistant.

    One space after a marker belongs to the marker; everything after it is text.
    """
    if not text.startswith(MARKERS):
        raise RowError("R210", f"`{place}` does not begin with a Human or an Assistant turn")
    parts = MARKER.split(text)  # "", role, text, role, text ...
    return [
        (roles[who], said[1:] if said[:1] == " " else said, None, None, None, None)
        for who, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def split_transcripts(chosen: str, rejected: str, roles: Mapping[str, str]) -> Split:
    """Split two HH transcripts; parse the shared beginning once if it is the same text."""
    start = chosen.rfind(ASSISTANT)
    if start > 0 and rejected.startswith(ASSISTANT, start) and chosen[:start] == rejected[:start]:
        first, second = chosen[start + len(ASSISTANT) :], rejected[start + len(ASSISTANT) :]
        if HUMAN not in first and HUMAN not in second and ASSISTANT not in second:
            role = roles["Assistant"]
            return Split(
                read_transcript("chosen", chosen[:start], roles),
                [(role, first.removeprefix(" "), None, None, None, None)],
                [(role, second.removeprefix(" "), None, None, None, None)],
            )
    return split_last_turn(
        read_transcript("chosen", chosen, roles), read_transcript("rejected", rejected, roles)
    )


def split_last_turn(chosen: Messages, rejected: Messages) -> Split:
    """Split before the last turn, the completion; raise PD207 if the turns before it differ."""
    if chosen[:-1] != rejected[:-1]:
        raise RowError("PD207", how_they_differ(chosen[:-1], rejected[:-1]))
    return Split(chosen[:-1], chosen[-1:], rejected[-1:])


def how_they_differ(chosen: Messages, rejected: Messages) -> str:
    """Return at which turn two prompts begin to differ, and how."""
    agreed = _num_common(chosen, rejected)
    start = f"the prompts of chosen and rejected differ from turn {agreed + 1} on"
    if agreed in (len(chosen), len(rejected)):
        return f"{start}: one has {len(chosen)} turns before the answer, the other {len(rejected)}"
    one, other = chosen[agreed], rejected[agreed]
    if one[ROLE] != other[ROLE]:
        roles = [quote(turn[ROLE], SHOWN) for turn in (one, other)]
        return f"{start}: it is of {roles[0]} in one, of {roles[1]} in the other"
    if one[CONTENT] == other[CONTENT]:
        return f"{start}: its name, tool calls or reasoning differ"
    return f"{start}: {_difference(one[CONTENT], other[CONTENT])}"


def _difference(first: str, second: str) -> str:
    """Return where two texts begin to differ, with what is there."""
    at = len(commonprefix([first, second]))  # noqa: RUF071 - characters are meant
    begin = max(at - 12, 0)
    shown = [json.dumps(quote(text, SHOWN, begin), ensure_ascii=False) for text in (first, second)]
    return f"{shown[0]} against {shown[1]}"


def split_common_turns(chosen: Messages, rejected: Messages) -> Split:
    """Split after the last common turn; a side may have several turns after it."""
    if chosen == rejected:
        raise RowError("PD301", "chosen and rejected are the same dialogue")
    agreed = _num_common(chosen, rejected)
    return _with_rests(Split(chosen[:agreed], chosen[agreed:], rejected[agreed:]), "dialogue")


def split_chosen_dialogue(dialogue: Messages, rejected: Messages, *, is_text: bool) -> Split:
    """Split a dialogue that ends in the chosen completion; the rejected one is given separately.

    A rejected text replaces the last turn; rejected turns replace all after the user's last turn.
    """
    users = [place for place, turn in enumerate(dialogue) if turn[ROLE] == "user"]
    start = len(dialogue) - 1 if is_text or not users else users[-1] + 1
    return Split(dialogue[:start], dialogue[start:], rejected)


def part_dialogues(dialogues: Sequence[Messages], *, last_turn: bool) -> list[Messages]:
    """Return the prompt that whole dialogues share, then the rest of each."""
    agreed = min(_num_common(dialogues[0], other) for other in dialogues[1:])
    if last_turn and any(len(dialogue) != agreed + 1 for dialogue in dialogues):
        agreed = min(agreed, *(len(dialogue) - 1 for dialogue in dialogues))
        if any(len(dialogue) != agreed + 1 for dialogue in dialogues):
            other = next(
                one for one in dialogues if one[: agreed + 1] != dialogues[0][: agreed + 1]
            )
            raise RowError("PD207", how_they_differ(dialogues[0][:-1], other[:-1]))
    if all(len(dialogue) == agreed for dialogue in dialogues):
        raise RowError("PD301", "all completions are the same dialogue")
    return [dialogues[0][:agreed], *(dialogue[agreed:] for dialogue in dialogues)]


def drop_open_turn(turns: Messages) -> Messages:
    """Remove the empty assistant turn at the end of a transcript."""
    return (
        turns[:-1] if turns and turns[-1][ROLE] == "assistant" and not turns[-1][CONTENT] else turns
    )


def split_after_prompt(prompt: Messages, chosen: Messages, rejected: Messages) -> Split:
    """Split dialogues whose first user turn is the prompt column's text; else raise PD207."""
    if not any(turn[ROLE] == "user" for turn in (*chosen, *rejected)):
        return Split(prompt, chosen, rejected)  # the sides are answers without the prompt
    for side, turns in (("chosen", chosen), ("rejected", rejected)):
        first = next((turn[CONTENT] for turn in turns if turn[ROLE] == "user"), None)
        if first != prompt[-1][CONTENT]:
            said = "it has none" if first is None else _difference(prompt[-1][CONTENT], first)
            raise RowError("PD207", f"the first user turn of {side} is not the prompt: {said}")
    return split_common_turns(chosen, rejected)


def shared_beginning(first: str, second: str) -> int:
    r"""Return the length of the common prefix up to the last line, turn or marker, or 0.

    Common words end later, but "It is" begins both answers and is not a part of the prompt.

    >>> shared_beginning("Q: a\nA: It is b", "Q: a\nA: It is c")
    7
    >>> shared_beginning("The sky is blue", "The sky is black")
    0
    """
    common = commonprefix([first, second])  # noqa: RUF071 - characters are meant
    for ends in (TURN, LINE):  # lines after the last turn's marker belong to the answers
        places = [one for one in ends.finditer(common) if common[: one.start()].strip()]
        if places:
            return places[-1].end()
    return 0


def split_common_lines(chosen: str, rejected: str) -> Split:
    """Split texts at the end of the last line, turn or marker in their shared beginning."""
    if chosen == rejected:
        raise RowError("PD301", "chosen and rejected are the same text")
    at = shared_beginning(chosen, rejected)
    if not at:
        problem = "chosen and rejected share no beginning that ends at a line, a turn or a marker"
        raise RowError("R225", problem)
    return _split_at(at, chosen, rejected)


def split_common_text(chosen: str, rejected: str) -> Split:
    """Split texts after their common beginning, between words.

    "The sky is blue." and "The sky is black." share "The sky is bl", so the prompt is "The sky is"
    and the completions keep their space: " blue.", " black.".
    """
    if chosen == rejected:
        raise RowError("PD301", "chosen and rejected are the same text")
    at = len(commonprefix([chosen, rejected]))  # noqa: RUF071 - characters are meant
    while at > 0 and not (_parts_here(chosen, at) and _parts_here(rejected, at)):
        at -= 1
    if at and chosen[at - 1] == " ":
        at -= 1  # tokenizers join a space to the word after it
    return _split_at(at, chosen, rejected)


def _split_at(at: int, chosen: str, rejected: str) -> Split:
    rests = [
        [text_message("assistant", text[at:])] if text[at:] else [] for text in (chosen, rejected)
    ]
    return _with_rests(Split([text_message("user", chosen[:at])], *rests), "text")


def _with_rests(split: Split, what: str) -> Split:
    """Return the split; raise PD202 if one side is the beginning of the other."""
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        if not getattr(split, side):
            problem = f"the {what} of {side} is the beginning of that of {other}"
            raise RowError("PD202", f"{problem}, so nothing is left of {side} as an answer")
    return split


def _parts_here(text: str, at: int) -> bool:
    """Return whether a cut here splits no word; scripts without spaces may be cut anywhere."""
    around = text[at - 1 : at + 1]
    return at == len(text) or any(c.isspace() or is_wide(c) for c in around)


def is_wide(character: str) -> bool:
    """Return whether a character is of a script without spaces."""
    return unicodedata.east_asian_width(character) in "WF"


def _num_common(first: Messages, second: Messages) -> int:
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
