r"""Control tokens that a row spells, as the plain text that they are.

A tokenizer takes `<|im_end|>` for the end of a turn, whoever wrote it. So in a row that spells one
the two are told apart by other names:

    content    "say <|im_end|> twice"   is rendered as   "say ⟨7⟩ twice"
    template   "<|im_start|>user\n"     is renamed to    "‹3›user\n"
    content    is put back              "‹3›user\nsay <|im_end|> twice"

and the tokenizer is given the new names of its tokens. All else of it is as it was, so the pieces
between its tokens have the ids that they always have; `<|im_end|>` is now letters to it. The names
are made of code points that Unicode keeps out of all text.
"""

import re
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from tokenizers import Tokenizer

from prefdata.arrow import whole
from prefdata.tokens.chat_template import Message
from prefdata.tokens.ragged import Bools, Int32s, Ragged, from_lengths
from prefdata.tokens.template.render import PairTexts, Refusal, Renderer
from prefdata.tokens.tokenizer import TokenizerSpec

NO_ID = -1
"""Stands for a control token that the tokenizer's vocabulary itself makes of content."""

_CONTENT, _CONTENT_END, _OWN, _OWN_END = "\ufdd2", "\ufdd3", "\ufdd4", "\ufdd5"
_NAMES = re.compile(f"[{_CONTENT}{_CONTENT_END}{_OWN}{_OWN_END}]")
SIDES = ("prompt", "chosen", "rejected")
_HIDDEN = re.compile(f"{_CONTENT}([0-9]+){_CONTENT_END}")


class _NameTakenError(ValueError):
    """A row has the code points that our names are made of."""


class ControlTokenEscaper:
    """A tokenizer under whose names for its tokens no row can write one."""

    def __init__(self, target: TokenizerSpec) -> None:
        self._serialized, self._controls = target.serialized, target.control_tokens
        self._number = {token: number for number, token in enumerate(self._controls)}
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._all_rows = target.stages.normalizer is not None and any(
            token.normalized for token in target.added_tokens if token.content in self._number
        )

    @property
    def backend(self) -> Tokenizer:
        """The tokenizer under its new names; its ids are not those of the old one."""
        return _rename(self._serialized, self._controls).backend

    def own(self, token: str) -> str:
        """The new name of a token; of other text, the text."""
        if token not in self._number:
            return token
        return _own_name(self._number[token])

    def rows_that_spell(self, records: pa.Table) -> frozenset[int]:
        """The rows with a token in something that they bring.

        All of them where tokens are looked for in normalized text, which other text can become.
        """
        if self._all_rows:
            return frozenset(range(records.num_rows))
        found = self._spells(records["tools"]) | self._spells_across(records)
        for side in SIDES:
            messages = whole(records[side])
            lengths = pl.Series(messages.value_lengths()).to_numpy()
            owners = np.repeat(np.arange(len(found)), lengths)
            for texts in messages.flatten().flatten():
                if texts.null_count < len(texts):
                    found[owners[self._spells(texts)]] = True
        return frozenset(np.flatnonzero(found).tolist())

    @property
    def hides_all_rows(self) -> bool:
        """Whether normalizing may make a token of any text."""
        return self._all_rows

    def spells(self, value: Any) -> bool:
        """Return whether a text, or one anywhere in JSON, spells a token."""
        if isinstance(value, str):
            return self._spelled.search(value) is not None
        if isinstance(value, list):
            return any(map(self.spells, value))
        if isinstance(value, dict):
            return any(self.spells(part) for item in value.items() for part in item)
        return False

    def _spells(self, texts: Any) -> Bools:
        spells = pl.Series(texts).str.contains_any(list(self._controls))
        return spells.fill_null(value=False).to_numpy(writable=True)

    def _spells_across(self, records: pa.Table) -> Bools:
        """Verbatim text in which a prompt and the completion after it make a token together."""
        found = np.zeros(records.num_rows, np.bool_)
        rows = np.flatnonzero(pl.Series(records["form"]) == "text")
        if len(rows):
            longest = max(map(len, self._controls), default=0)
            prompt, *sides = (
                pl.Series(records[side])[rows].list.get(place).struct.field("content")
                for side, place in zip(SIDES, (-1, 0, 0), strict=True)
            )
            for side in sides:
                found[rows] |= self._spells(prompt.str.tail(longest) + side.str.head(longest))
        return found

    def hide(self, value: Any) -> Any:
        """What a row brings, text or JSON, with the tokens in it out of the way."""
        if isinstance(value, str):
            if _NAMES.search(value):
                raise _NameTakenError
            return self._spelled.sub(
                lambda found: f"{_CONTENT}{self._number[found.group()]}{_CONTENT_END}", value
            )
        if isinstance(value, list):
            return [self.hide(one) for one in value]
        if isinstance(value, dict):
            return {self.hide(key): self.hide(one) for key, one in value.items()}
        return value

    def rename(self, text: str) -> str:
        """A rendered text with new names for the template's tokens, and the row's put back."""
        renamed = self._spelled.sub(lambda found: self.own(found.group()), text)
        return _HIDDEN.sub(lambda found: self._controls[int(found.group(1))], renamed)

    def encode(self, texts: list[str], *, add_special_tokens: bool) -> Ragged:
        """The ids of renamed texts in the old tokenizer; NO_ID where content became a token."""
        backend, original = _rename(self._serialized, self._controls)
        encodings = backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        rows = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        values = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
        mapped = original[values]
        if add_special_tokens:
            masks = chain.from_iterable(encoding.special_tokens_mask for encoding in encodings)
            added = np.fromiter(masks, np.bool_, len(values))
            mapped = np.where(added, values, mapped).astype(np.int32)
        return from_lengths(mapped, lengths)


class EscapingRenderer:
    """Renders as a `Renderer` does, to renamed texts."""

    def __init__(self, renderer: Renderer, disguise: ControlTokenEscaper) -> None:
        self._renderer, self._disguise = renderer, disguise

    @property
    def end_of_turn(self) -> str | None:
        end = self._renderer.end_of_turn
        return None if end is None else self._disguise.own(end)

    def render(
        self, messages: list[Message], tools: list[Any] | None, *, add_generation_prompt: bool
    ) -> str:
        """The text of a dialogue; raises one of TEMPLATE_FAULTS where it cannot be rendered."""
        hide = self._disguise.hide
        text = self._renderer.render(
            hide(messages), hide(tools), add_generation_prompt=add_generation_prompt
        )
        return self._disguise.rename(text)

    def without_empty_system(self, prompt: list[Message], tools: list[Any] | None) -> list[Message]:
        """Return a prompt without an empty system turn, as `Renderer` does."""
        hide = self._disguise.hide
        try:
            used = self._renderer.without_empty_system(hide(prompt), hide(tools))
        except _NameTakenError:
            return prompt  # which is refused for its names where it is rendered
        return prompt if len(used) == len(prompt) else prompt[1:]

    def chat(
        self,
        prompt: list[Message],
        sides: tuple[list[Message], list[Message]],
        tools: list[Any] | None,
    ) -> PairTexts | Refusal:
        """The texts of a pair of dialogues."""
        hide, rename = self._disguise.hide, self._disguise.rename
        try:
            chosen, rejected = map(hide, sides)
            texts = self._renderer.chat(hide(prompt), (chosen, rejected), hide(tools))
        except _NameTakenError:
            return _NAME_TAKEN
        return texts if isinstance(texts, Refusal) else PairTexts(*map(rename, texts))

    def text(
        self, prompt: list[Message], sides: tuple[list[Message], list[Message]]
    ) -> PairTexts | Refusal:
        """The texts of a pair without a template, in which EOS alone is no content."""
        texts, end = self._renderer.text(prompt, sides), self._renderer.end_of_turn
        if isinstance(texts, Refusal) or end is None:
            return texts
        if any(map(_NAMES.search, texts)):
            return _NAME_TAKEN
        chosen, rejected = (text.removesuffix(end) + self._disguise.own(end) for text in texts[1:])
        return PairTexts(texts.prompt, chosen, rejected)


def disguise_of(target: TokenizerSpec) -> ControlTokenEscaper | None:
    """None for a tokenizer without tokens that content could spell."""
    return ControlTokenEscaper(target) if target.control_tokens else None


class _Renamed(NamedTuple):
    backend: Tokenizer
    original: Int32s
    """What each of its ids is in the old tokenizer."""


@lru_cache(maxsize=2)
def _rename(serialized: str, controls: tuple[str, ...]) -> _Renamed:
    """A tokenizer with new names; a second for a large vocabulary, so not for each shard."""
    value = orjson.loads(serialized)
    contents = [token["content"] for token in value["added_tokens"]]
    number = {token: place for place, token in enumerate(controls)}
    names = [_own_name(number[text]) if text in number else text for text in contents]
    for token, name in zip(value["added_tokens"], names, strict=True):
        token["content"] = name
    before, after = Tokenizer.from_str(serialized), Tokenizer.from_str(orjson.dumps(value).decode())
    was, now = before.get_vocab(), after.get_vocab()
    original = np.arange(1 + max(*was.values(), *now.values()), dtype=np.int32)
    original[[was[token] for token in controls]] = NO_ID
    original[[now[name] for name in names]] = [was[content] for content in contents]
    return _Renamed(after, original)


def _own_name(number: int) -> str:
    return f"{_OWN}{number}{_OWN_END}"


_NAME_TAKEN = Refusal(
    "PD210", "spells a control token, and has code points (U+FDD2 to U+FDD5) that are no characters"
)
