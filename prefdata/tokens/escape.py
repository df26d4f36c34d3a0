r"""Control tokens that a row spells, encoded as plain text.

A tokenizer reads `<|im_end|>` as the end of a turn, even if a row's content contains it. So in
such a row the content's and the template's control tokens get different names:

    content    "say <|im_end|> twice"   is rendered as   "say ⟨7⟩ twice"
    template   "<|im_start|>user\n"     is renamed to    "‹3›user\n"
    content    is put back              "‹3›user\nsay <|im_end|> twice"

and the tokenizer gets the new names of its tokens. The rest of it is unchanged, so the pieces
between its tokens keep their ids; `<|im_end|>` is now plain letters to it. The names consist of
Unicode noncharacters, which text does not contain.
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

from prefdata.arrow import Bools, Int32s, Ragged, whole
from prefdata.tokens.encode import ids_of
from prefdata.tokens.tokenizer import TokenizerSpec

NO_ID = -1
"""Placeholder for a control token that the tokenizer's vocabulary itself makes of content."""

_CONTENT, _CONTENT_END, _OWN, _OWN_END = "\ufdd2", "\ufdd3", "\ufdd4", "\ufdd5"
_NAMES = re.compile(f"[{_CONTENT}{_CONTENT_END}{_OWN}{_OWN_END}]")
SIDES = ("prompt", "chosen", "rejected")
_HIDDEN = re.compile(f"{_CONTENT}([0-9]+){_CONTENT_END}")


class NameTakenError(ValueError):
    """A row contains the code points of which the new names consist."""


class ControlTokenEscaper:
    """A tokenizer whose control tokens are renamed, so that no row can spell one."""

    def __init__(self, target: TokenizerSpec) -> None:
        self._serialized, self._controls = target.serialized, target.control_tokens
        self._number = {token: number for number, token in enumerate(self._controls)}
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self.hides_all_rows = target.backend.normalizer is not None and any(
            token.normalized
            for token in target.added_tokens.values()
            if token.content in self._number
        )

    @property
    def backend(self) -> Tokenizer:
        """Return the renamed tokenizer; its ids differ from the original's."""
        return _rename(self._serialized, self._controls).backend

    def own(self, token: str) -> str:
        """Return the new name of a token; return other text unchanged."""
        if token not in self._number:
            return token
        return _own_name(self._number[token])

    def rows_that_spell(self, records: pa.Table) -> frozenset[int]:
        """Return the rows with a token in any of their fields.

        Return all rows if tokens are searched in normalized text, since other text can become one.
        """
        if not self._controls:
            return frozenset()
        if self.hides_all_rows:
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
        """Return the rows of verbatim text whose prompt and completion together form a token."""
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
        """Return a row's text or JSON with placeholders in place of its tokens."""
        if isinstance(value, str):
            if _NAMES.search(value):
                raise NameTakenError
            return self._spelled.sub(
                lambda found: f"{_CONTENT}{self._number[found.group()]}{_CONTENT_END}", value
            )
        if isinstance(value, list):
            return [self.hide(one) for one in value]
        if isinstance(value, dict):
            return {self.hide(key): self.hide(one) for key, one in value.items()}
        return value

    def end_with(self, text: str, end: str) -> str:
        """Return a verbatim text of which only the token `end`, if it ends it, is not content."""
        if _NAMES.search(text):
            raise NameTakenError
        return text.removesuffix(end) + self.own(end)

    def rename(self, text: str) -> str:
        """Return a rendered text with the template's tokens renamed and the row's put back."""
        renamed = self._spelled.sub(lambda found: self.own(found.group()), text)
        return _HIDDEN.sub(lambda found: self._controls[int(found.group(1))], renamed)

    def encode(self, texts: list[str], *, add_special_tokens: bool) -> Ragged:
        """Return the original ids of renamed texts; NO_ID where content became a token."""
        backend, original = _rename(self._serialized, self._controls)
        encodings = backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        ids, offsets = ids_of(encodings)
        mapped = original[ids]
        if add_special_tokens:
            masks = chain.from_iterable(encoding.special_tokens_mask for encoding in encodings)
            mapped = np.where(np.fromiter(masks, np.bool_, len(ids)), ids, mapped)
        return Ragged(mapped, offsets)


class _Renamed(NamedTuple):
    backend: Tokenizer
    original: Int32s
    """Id in the original tokenizer of each of its ids."""


@lru_cache(maxsize=2)
def _rename(serialized: str, controls: tuple[str, ...]) -> _Renamed:
    """Return a renamed tokenizer; cached, as a large vocabulary takes a second."""
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
