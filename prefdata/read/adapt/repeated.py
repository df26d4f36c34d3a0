"""Answers that begin with their prompt: trained unchanged, the prompt would count twice.

    {"prompt": "2 + 2 =", "chosen": "2 + 2 = 4", "rejected": "2 + 2 = 5"}

One such row may be chance ("Hi" and "Hi, how are you?"), but a file of them is not. So the first
rows decide for a file (`fit.py`), and each row is then cut or refused.
"""

import re
from collections.abc import Sequence

from prefdata.read.adapt.ids import CONTENT, ROLE, Messages, changed
from prefdata.read.adapt.messages import SYSTEM
from prefdata.read.faults import RowError
from prefdata.records.secrets import quote

LONG_CHARACTERS = 16  # two answers do not begin with so long a prompt by chance
LONG_WORDS = 3
SHOWN = 40
LABELLED = re.compile(r"[:>\]][ \t\n]*$")  # "Human: ", "<|user|>", "[INST] "


def cut_prompt(prompt: Messages, completion: Messages) -> Messages | None:
    """Return the completion without the prompt at its start; None if it does not begin with it."""
    if not prompt or not completion:
        return None
    turns = _num_repeated(prompt, completion)
    if turns:
        return completion[turns:]
    first = completion[0]
    rest = _text_after(prompt[-1][CONTENT], first[CONTENT]) if first[ROLE] == "assistant" else None
    return None if rest is None else [changed(first, CONTENT, rest), *completion[1:]]


def read_repeated(
    prompt: Messages, completions: Sequence[Messages], how: str
) -> Sequence[Messages]:
    """Return the completions, the prompt cut off if `how` is `cut`; raise R220, R221 or R226."""
    if how == "keep" or (how == "refuse" and _is_plain(prompt, completions)):
        return completions
    for completion in completions:
        _refuse_other_dialogue(prompt, completion)
    rests = [cut_prompt(prompt, completion) for completion in completions]
    some = [rest for rest in rests if rest is not None]
    if how == "cut":
        if len(some) < len(rests):
            raise RowError("R221", "the answers do not begin with the prompt, as in other rows")
        return some
    if len(some) < len(rests) and any(_num_repeated(prompt, one) for one in completions):
        raise RowError("R220", "one side begins with the prompt's turns, and the other does not")
    if len(some) == len(rests) and is_long(prompt, completions):
        start = quote(prompt[-1][CONTENT], SHOWN)
        raise RowError(
            "R220", f"both answers begin with the prompt {start!r}; it would count twice"
        )
    if _is_wrapped(prompt, completions):
        raise RowError("R220", "both answers contain the prompt before they differ")
    return completions


def _is_plain(prompt: Messages, completions: Sequence[Messages]) -> bool:
    """Return whether one-turn answers do not contain the prompt: a fast test that most pass."""
    for completion in completions:
        if len(completion) != 1 or completion[0][ROLE] != "assistant":
            return False
    text = prompt[-1][CONTENT].strip() if prompt else ""
    return text != "" and text not in completions[0][0][CONTENT]


def is_long(prompt: Messages, completions: Sequence[Messages]) -> bool:
    """Return whether a prompt is too long to begin every answer by chance; whole turns are."""
    text = prompt[-1][CONTENT].strip()
    as_turns = all(_num_repeated(prompt, completion) for completion in completions)
    return as_turns or len(text) >= LONG_CHARACTERS or len(text.split()) >= LONG_WORDS


def _num_repeated(prompt: Messages, completion: Messages) -> int:
    """Count the turns of the prompt that begin a completion: all, all but the system's, or one."""
    spoken = [turn for turn in prompt if turn[ROLE] not in SYSTEM]
    for turns in (prompt, spoken, spoken[-1:]):
        is_users = bool(turns) and turns[-1][ROLE] != "assistant"
        if is_users and completion[: len(turns)] == turns:
            return len(turns)
    return 0


def refuse_dialogue(prompt: Messages, completion: Messages) -> None:
    """Raise R220 or R226 if a side that should be an answer is a whole dialogue."""
    if _num_repeated(prompt, completion):
        raise RowError("R220", "the rejected side begins with the prompt; it would count twice")
    _refuse_other_dialogue(prompt, completion)


def _refuse_other_dialogue(prompt: Messages, completion: Messages) -> None:
    """Raise R226 if a side is another dialogue: it begins with another user turn or system text."""
    is_asked = bool(prompt) and prompt[-1][ROLE] == "user"
    if not (is_asked and completion) or _num_repeated(prompt, completion):
        return
    spoken = [turn[ROLE] for turn in completion if turn[ROLE] not in SYSTEM]
    if completion[0][ROLE] in ("user", *SYSTEM) and "assistant" in spoken:
        raise RowError(
            "R226", "a side begins with another user turn or system text than the prompt"
        )


def _text_after(prompt: str, answer: str) -> str | None:
    text = prompt.strip()
    if not text or not answer.lstrip().startswith(text):
        return None
    if answer.startswith(prompt):
        rest = answer[len(prompt) :]
    else:
        rest = answer.lstrip()[len(text) :]
        rest = rest.lstrip() if prompt[-1:].isspace() else rest
    goes_on = prompt[-1:].isalnum() and rest[:1].isalnum() and rest[:1].isascii()
    return None if goes_on else rest


def _is_wrapped(prompt: Messages, completions: Sequence[Messages]) -> bool:
    """Return whether a long prompt is in the answers' shared text, after a marker or a greeting."""
    text = prompt[-1][CONTENT].strip() if prompt else ""
    if not text or prompt[-1][ROLE] != "user":
        return False
    starts = [completion[0][CONTENT][: len(text) + 200] for completion in completions if completion]
    if len(starts) < 2 or any(text not in start for start in starts):
        return False
    before, *others = {start[: start.index(text)] for start in starts}
    is_long_text = len(text) >= LONG_CHARACTERS and len(text.split()) >= LONG_WORDS
    return not others and before != "" and (is_long_text or LABELLED.search(before) is not None)
