"""Encoding of records to the ids of pairs: prompt, chosen, rejected.

The prompt's ids are those tokens of the prompt's text that both prompt + chosen and
prompt + rejected begin with; a completion is everything after them. So prompt + completion is
always exactly the tokenization of the whole text, as in TRL.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from prefdata.arrow import (
    Bools,
    Int64s,
    Ragged,
    common_prefix,
    cut,
    from_lengths,
    join,
    stack,
    take,
)
from prefdata.tokens.chat_template import Message
from prefdata.tokens.encode import TextPool, encode_texts
from prefdata.tokens.escape import ControlTokenEscaper, NameTakenError
from prefdata.tokens.mask import assistant_spans, mask_of, rows_with_turns
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.segments import cut_after_last, safe_cuts
from prefdata.tokens.template.checks import judge
from prefdata.tokens.template.render import Dialogues, PairTexts, Refusal, Renderer, read_pairs
from prefdata.tokens.tokenizer import TokenizerSpec

_SAMPLED_ROWS = 32
_NAME_TAKEN = Refusal(
    "PD210", "spells a control token, and contains noncharacters (U+FDD2 to U+FDD5)"
)


Encode = Callable[[list[str]], Ragged]


class Form(IntEnum):
    """Ways to encode the texts of a pair."""

    CHAT = 0
    TEXT = 1
    HIDDEN_CHAT = 2
    HIDDEN_TEXT = 3


class PairIds(NamedTuple):
    """Ids of pairs, row by row."""

    rows: Int64s
    """Row numbers of the records."""
    prompt: Ragged
    chosen: Ragged
    rejected: Ragged
    moved: Bools
    """True if a completion's first characters share a token with the prompt's last ones."""

    @property
    def sides(self) -> tuple[Ragged, Ragged, Ragged]:
        return self.prompt, self.chosen, self.rejected


Masks = dict[int, tuple[Bools, Bools]]


class Outcome(NamedTuple):
    """Ids of the encoded pairs, and the reasons why other pairs have none, by row."""

    ids: PairIds
    masks: Masks
    """Masks of chosen and rejected, by row, if a completion has a turn of another role.

    A mask without True means that the turns cannot be located.
    """
    refusals: dict[int, Refusal]
    note: str | None
    seen: dict[str, set[int]]
    """Rows for which each code is reported, including refused ones."""


class _Plan:
    """Texts to encode, and the texts of each pair."""

    def __init__(self, pools: Mapping[Form, TextPool], cuts: tuple[str, ...]) -> None:
        self._pools = pools
        self._cuts = cuts
        self.rows: list[int] = []
        self.forms: list[Form] = []
        self.places: list[tuple[int, int, int, int]] = []

    def add(self, row: int, texts: PairTexts, form: Form) -> None:
        pool = self._pools[form]
        at = cut_after_last(texts.prompt, self._cuts) if form is Form.CHAT else 0
        head = texts.prompt[:at]
        if not (texts.chosen.startswith(head) and texts.rejected.startswith(head)):
            at = 0
        head_place = pool.place(head) if at else -1
        self.rows.append(row)
        self.forms.append(form)
        prompt, chosen, rejected = (pool.place(text[at:]) for text in texts)
        self.places.append((head_place, prompt, chosen, rejected))

    def ids(self) -> PairIds:
        """Return the ids of every pair that was added."""
        nothing = from_lengths(np.zeros(0, np.int32), np.zeros(1, np.int64))
        parts = [nothing, *(pool.ids() for pool in self._pools.values())]
        pool = stack(parts, np.int32)
        starts = np.cumsum([len(part.lengths) for part in parts])
        places = np.array(self.places, np.int64).reshape(-1, 4)
        places = np.where(places < 0, 0, places + starts[self.forms, None])
        head, prompt, chosen, rejected = (take(pool, column) for column in places.T)
        shared = np.minimum(common_prefix(prompt, chosen), common_prefix(prompt, rejected))
        return PairIds(
            np.array(self.rows, np.int64),
            join(head, cut(prompt, np.zeros_like(shared), shared)),
            cut(chosen, shared, chosen.lengths),
            cut(rejected, shared, rejected.lengths),
            shared < prompt.lengths,
        )


def encode_records(records: pa.Table, target: TokenizerSpec, options: TokenOptions) -> Outcome:
    """Return the ids of every pair that the template can render.

    Texts are cut where `segments` proves that this is safe. A sample of rows is also encoded whole;
    if the two differ, everything is encoded whole and the note says so.
    """
    cuts = safe_cuts(target)
    outcome, sample = _encode(records, target, options, cuts)
    if not cuts or _agrees(target.backend, outcome.ids, sample):
        return outcome
    outcome, _ = _encode(records, target, options, ())
    note = f"{target.name}: ids of parts differ from ids of whole texts; texts are encoded whole"
    return outcome._replace(note=note)


def _encode(
    records: pa.Table, target: TokenizerSpec, options: TokenOptions, cuts: tuple[str, ...]
) -> tuple[Outcome, dict[int, PairTexts]]:
    backend = target.backend
    refusals: dict[int, Refusal] = {}
    seen: dict[str, set[int]] = {}
    sample: dict[int, PairTexts] = {}
    stride = max(1, records.num_rows // _SAMPLED_ROWS)
    masks: Masks = {}
    special = rows_with_turns(records)
    hidden = ControlTokenEscaper(target) if options.control_tokens == "encode" else None
    with ExitStack() as stack_of:
        pools = {
            form: stack_of.enter_context(TextPool(encode))
            for form, encode in _encoders(backend, hidden).items()
        }
        plan = _Plan(pools, cuts)
        renderer = Renderer(target, options)
        for row, form, (texts, codes, shown) in _rendered(records, renderer, options, hidden):
            for code in codes:
                seen.setdefault(code, set()).add(row)
            if isinstance(texts, Refusal):
                refusals[row] = texts
                continue
            if row in special:
                escaper = hidden if form is Form.HIDDEN_CHAT else None
                masks[row] = _masks(texts, shown, renderer, escaper, backend)
            plan.add(row, texts, form)
            if row % stride == 0 and form is Form.CHAT:
                sample[len(plan.rows) - 1] = texts
        ids = plan.ids()
    for row, start in zip(ids.rows.tolist(), ids.prompt.lengths.tolist(), strict=True):
        if row in masks:
            masks[row] = (masks[row][0][start:], masks[row][1][start:])
    return Outcome(ids, masks, refusals, None, seen), sample


def _encoders(backend: Tokenizer, hidden: ControlTokenEscaper | None) -> dict[Form, Encode]:
    ways: dict[Form, Encode] = {
        Form.CHAT: partial(encode_texts, backend, add_special_tokens=False),
        Form.TEXT: partial(encode_texts, backend, add_special_tokens=True),
    }
    if hidden is not None:
        ways[Form.HIDDEN_CHAT] = partial(hidden.encode, add_special_tokens=False)
        ways[Form.HIDDEN_TEXT] = partial(hidden.encode, add_special_tokens=True)
    return ways


class _Rendered(NamedTuple):
    """One rendered record, not yet encoded."""

    texts: PairTexts | Refusal
    codes: tuple[str, ...]
    """Codes that are reported for it."""
    shown: Dialogues
    """The dialogues as the template saw them."""


def _rendered(
    records: pa.Table, renderer: Renderer, options: TokenOptions, hidden: ControlTokenEscaper | None
) -> Iterator[tuple[int, Form, _Rendered]]:
    """Yield the number of each record, the way to encode it, and its texts."""
    is_text = [form == "text" for form in records.column("form").to_pylist()]
    spelled = hidden.rows_that_spell(records) if hidden is not None else frozenset()
    for row, pair in enumerate(read_pairs(records)):
        escaper = hidden if row in spelled else None
        try:
            if is_text[row]:
                made = _Rendered(renderer.text(pair, escaper), (), pair)
            else:
                made = _chat(pair, renderer, options, escaper)
        except NameTakenError:
            made = _Rendered(_NAME_TAKEN, (), pair)
        yield row, Form(is_text[row] + 2 * (escaper is not None)), made


def _chat(
    pair: Dialogues, renderer: Renderer, options: TokenOptions, escaper: ControlTokenEscaper | None
) -> _Rendered:
    shown = Dialogues(*map(escaper.hide, pair)) if escaper is not None else pair
    used = renderer.without_empty_system(shown.prompt, shown.tools)
    codes: tuple[str, ...] = ()
    if used is not shown.prompt:
        codes = ("PD716",)
        shown, pair = shown._replace(prompt=used), pair._replace(prompt=pair.prompt[1:])
    texts = renderer.chat(shown)
    if isinstance(texts, PairTexts):
        if escaper is not None:
            texts = PairTexts(*map(escaper.rename, texts))
        fault, found = judge(texts, pair, renderer, options)
        texts, codes = fault or texts, codes + found
    return _Rendered(texts, codes, shown)


def _masks(
    texts: PairTexts,
    shown: Dialogues,
    renderer: Renderer,
    escaper: ControlTokenEscaper | None,
    backend: Tokenizer,
) -> tuple[Bools, Bools]:
    """Return masks of the assistant's tokens in prompt + chosen and prompt + rejected."""

    def render(messages: list[Message], *, add_generation_prompt: bool) -> str:
        text = renderer.render(messages, shown.tools, add_generation_prompt=add_generation_prompt)
        return escaper.rename(text) if escaper is not None else text

    end = renderer.end_of_turn
    if escaper is not None:
        backend, end = escaper.backend, end and escaper.own(end)
    chosen, rejected = (
        mask_of(text, assistant_spans(text, shown.prompt, side, render, end), backend)
        for text, side in zip(texts[1:], shown.sides, strict=True)
    )
    return chosen, rejected


def _agrees(backend: Tokenizer, ids: PairIds, sample: dict[int, PairTexts]) -> bool:
    """Return whether the sampled pairs have the ids of their whole texts."""
    if not sample:
        return True
    texts = [text for pair in sample.values() for text in pair]
    whole = encode_texts(backend, texts, add_special_tokens=False)
    for number, at in enumerate(sample):
        prompt, chosen, rejected = (whole.row(3 * number + part) for part in range(3))
        ours = ids.prompt.row(at)
        same = np.array_equal(ours, prompt[: len(ours)]) and all(
            np.array_equal(np.concatenate([ours, side.row(at)]), full)
            for side, full in ((ids.chosen, chosen), (ids.rejected, rejected))
        )
        if not same:
            return False
    return True
