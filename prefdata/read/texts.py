"""Plain text as a chat or verbatim: decided for each file by evidence, reported with the reason.

`{prompt: "Add 2.", chosen: "4."}` is a question and its answer, which a chat template joins.
`{prompt: "The sky is", chosen: " blue."}` is one running text, joined unchanged. The difference is
the boundary between prompt and completion: running text has a space, a line break or a turn marker
there.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from prefdata.arrow import empty_table
from prefdata.errors import UsageError
from prefdata.read.adapt.collect import Collector, RowOptions
from prefdata.read.adapt.sides import is_wide
from prefdata.read.adapt.widened import plain_rows
from prefdata.read.files.chunks import Block, RowBlock
from prefdata.read.files.jsonl import Tally
from prefdata.read.files.source import InputFile
from prefdata.read.layouts.model import Layout
from prefdata.records.schema import RECORDS
from prefdata.records.secrets import visible
from prefdata.records.text import FORM_COLUMN

TextMode = Literal["auto", "chat", "verbatim"]
SAMPLE_ROWS = 1000  # rows of a file that are examined
SAMPLE_BLOCKS = 2
CLEAR = 0.99  # share of the sample that must agree
_PREVIEW = 80  # characters at either end of an example

# Markers between prompt and completion: speakers, headings and tokens that templates write.
_SPEAKER = "(?:Human|User|Assistant|AI|Bot|Chatbot|Agent|Model)"
_MARKER = re.compile(
    rf"(?:^|\n)[ \t]*(?:\*\*|\[)?{_SPEAKER}(?:\*\*|\])?[ \t]?:"
    rf"|(?:^|\n)[ \t]*#+[ \t]*(?:Response|Instruction|{_SPEAKER})\b"
    r"|<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|\[/?INST\]|<</?SYS>>"
    r"|<(?:start|end)_of_turn>|<bos>|<eos>|^<s>|</s>"
)
# Labels that end a prompt of either kind: not evidence unless a space follows.
_LABEL = re.compile(r"(?:^|\n)[^\n]{0,40}\b(?:Answer|Output|Response|TL;DR|A|Completion)[ \t]?:$")


class TextRule(NamedTuple):
    """Mode of reading plain text, and facts about the tokenizer."""

    mode: TextMode = "auto"
    has_template: bool | None = None
    """None: no tokenizer is given."""
    controls: tuple[str, ...] = ()
    """The tokenizer's control tokens: text that contains one was written for it."""
    preview: Callable[[pa.Table], str] | None = None
    """Function that renders the first record with the chat template, for errors that show both."""


class TextChoice(NamedTuple):
    """Reading of one file's plain text, and the reason."""

    form: Literal["chat", "text"]
    why: str

    @property
    def name(self) -> Literal["chat", "verbatim"]:
        """Return the choice as the config names it."""
        return "chat" if self.form == "chat" else "verbatim"


class Joins(NamedTuple):
    """Counts of rows by the boundary between prompt and completion."""

    rows: int
    running: int
    """Rows with a space, a line break or a marker there."""
    bare: int
    """Rows without any of these."""

    @property
    def is_running(self) -> bool:
        return self.rows > 0 and self.running >= CLEAR * self.rows

    @property
    def is_bare(self) -> bool:
        return self.rows > 0 and self.bare >= CLEAR * self.rows


def has_marker(text: str, controls: Sequence[str] = ()) -> bool:
    """Return whether a text contains a turn marker or a control token."""
    return _MARKER.search(text) is not None or any(token in text for token in controls)


def is_glued(prompt: str, completion: str) -> bool:
    """Return whether running text lacks a space between prompt and completion.

    Scripts without spaces need none, and a token or bracket ends a prompt by itself.
    """
    if not prompt or not completion:
        return False
    last, first = prompt[-1], completion[0]
    if last.isspace() or first.isspace() or last in ">]":
        return False
    return not (is_wide(last) or is_wide(first))


def count_joins(texts: Sequence[tuple[str, Sequence[str]]], controls: Sequence[str] = ()) -> Joins:
    """Count the boundaries between prompts and their completions.

    A row whose completions differ, or whose prompt only ends in a label, counts for neither; an
    empty completion is ignored.
    """
    controls = [token for token in controls if token.strip()]
    running = bare = 0
    for prompt, completions in texts:
        open_end = prompt[-1:].isspace()
        spaces = [open_end or text[:1].isspace() for text in completions if text]
        marked = has_marker(prompt, controls) or any(map(_MARKER.match, completions))
        if marked or (spaces and all(spaces)) or (open_end and not completions):
            running += 1
        elif (spaces or not completions) and not any(spaces) and not _LABEL.search(prompt):
            bare += 1
    return Joins(len(texts), running, bare)


def choose(joins: Joins, rule: TextRule) -> TextChoice | None:
    """Return the reading of plain texts; None if the evidence supports neither."""
    if rule.mode != "auto":
        return TextChoice("chat" if rule.mode == "chat" else "text", f"text: {rule.mode} is set")
    if rule.has_template is False:
        return TextChoice("text", "the tokenizer has no chat template")
    seen = f"of {joins.rows:,} rows examined"
    what = "a space, a line break or a marker where prompt and answer meet"
    if joins.is_running:
        return TextChoice("text", f"{joins.running:,} {seen} have {what}")
    if joins.is_bare or not joins.rows:
        template = "" if rule.has_template else ", if the tokenizer has a chat template"
        return TextChoice("chat", f"{joins.bare:,} {seen} have no space, line break or marker"
                          f" where prompt and answer meet{template}")  # fmt: skip
    return None


def choose_in_blocks(
    file: InputFile, blocks: Iterator[Block], options: RowOptions, rule: TextRule
) -> tuple[TextChoice | None, Iterator[Block]]:
    """Return how a file's plain text is read, and all its blocks; None for dialogues."""
    layout = options.layout
    if layout is None or (layout.form == "chat" and not layout.plain):
        return None, blocks
    if not layout.plain:
        return _running(file, layout, rule), blocks
    options = options._replace(plain="plain")
    seen: list[Block] = []
    records = empty_table(RECORDS)
    for block in islice(blocks, SAMPLE_BLOCKS):
        seen.append(block)
        more = _first_records(file, block, options, SAMPLE_ROWS - records.num_rows)
        records = pa.concat_tables([records, more])
        if records.num_rows >= SAMPLE_ROWS:
            break
    found = _choose_for(file, records, rule) if records.num_rows else choose(Joins(0, 0, 0), rule)
    return found, chain(seen, blocks)


def _running(file: InputFile, layout: Layout, rule: TextRule) -> TextChoice:
    """Return the choice for a layout of running text; E181 if the rule says chat."""
    if rule.mode == "chat":
        problem = f"text: chat, but rows of {layout.name} are running text without turns"
        remedy = "leave text out, or name a layout with a prompt (prefdata layouts)"
        raise UsageError("E181", file.name, problem, remedy)
    return TextChoice("text", f"{layout.name} contains running text")


def _choose_for(file: InputFile, records: pa.Table, rule: TextRule) -> TextChoice | None:
    forms = records["form"].to_pylist()
    plain = [row for row, form in enumerate(forms) if form == "plain"]
    if not plain:
        is_verbatim = set(forms) == {"text"}
        return TextChoice("text", f"its rows say so ({FORM_COLUMN})") if is_verbatim else None
    others = sum(form == "chat" for form in forms)
    columns = [_contents(records[name]) for name in ("prompt", "chosen", "rejected")]
    texts = [(columns[0][row], (columns[1][row], columns[2][row])) for row in plain]
    joins = count_joins(texts, rule.controls)
    joins = joins._replace(rows=joins.rows + others, bare=joins.bare + others)
    choice = choose(joins, rule)
    if choice is None and rule.has_template is None:
        return TextChoice("text", f"undecided: {_counted(joins)}; a tokenizer with a chat template"
                          " needs text: chat or text: verbatim")  # fmt: skip
    if choice is None:
        raise _undecided(file, records.slice(plain[0], 1), joins, rule)
    return choice


def _undecided(file: InputFile, first: pa.Table, joins: Joins, rule: TextRule) -> UsageError:
    line = first["line"][0].as_py()
    verbatim = _contents(first["prompt"])[0] + _contents(first["chosen"])[0]
    shown = f"verbatim {_shorten(verbatim)}"
    if rule.preview is not None:
        shown = f"as chat {_shorten(rule.preview(first))} or {shown}"
    problem = f"{_counted(joins)}; line {line} would be {shown}"
    remedy = "choose with text: chat or text: verbatim (--text)"
    return UsageError("E180", file.name, problem, remedy)


def _counted(joins: Joins) -> str:
    return (
        f"{joins.running:,} of {joins.rows:,} rows have a space, a line break or a marker where"
        f" prompt and answer meet, {joins.bare:,} have none"
    )


def _shorten(text: str) -> str:
    """Return a text on one line, shortened in the middle."""
    if len(text) > 2 * _PREVIEW:
        first, last = visible(text, 0, _PREVIEW), visible(text, len(text) - _PREVIEW)
        return json.dumps(f"{first} … {last}", ensure_ascii=False)
    return json.dumps(visible(text), ensure_ascii=False)


def _first_records(file: InputFile, block: Block, options: RowOptions, most: int) -> pa.Table:
    collector = Collector(file, options)
    collector.read(islice(plain_rows(block, options.limits, Tally()), most))
    for unit in islice(block.units, most) if isinstance(block, RowBlock) else ():
        collector.read_unit(unit)
    return collector.records.table()


def _contents(column: pa.ChunkedArray) -> list[str]:
    """Return each dialogue's text."""
    dialogues: list[list[dict[str, Any]]] = column.to_pylist()
    return ["".join(message["content"] for message in turns) for turns in dialogues]
