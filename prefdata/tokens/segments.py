"""Safe cuts: positions where a text can be cut so that its parts give the ids of the whole.

A fast tokenizer first splits a text at its added tokens and then encodes each piece separately. So
a text can be cut right after such a token if the token is found there in any context, and if no
later stage depends on a piece's position in the text. Both are read from the tokenizer's JSON; a
cut that is not known to be safe is not made. The prompt up to the cut is then encoded once for
both completions instead of three times.
"""

from typing import Any

import orjson
from tokenizers import AddedToken

from prefdata.tokens.tokenizer import TokenizerSpec

_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Replace"}
_PRE_TOKENIZERS = {"ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"}


def safe_cuts(target: TokenizerSpec) -> tuple[str, ...]:
    """Return the added tokens after which a text may be cut; empty if none is provably safe."""
    backend = target.backend
    pieces_stand_alone = (
        _only(_state(backend.normalizer), _NORMALIZERS, "normalizers")
        and _only(_state(backend.pre_tokenizer), _PRE_TOKENIZERS, "pretokenizers")
        and getattr(backend.model, "dropout", None) in (None, 0.0)
    )
    if not pieces_stand_alone:
        return ()
    rivals = [token for token in target.added_tokens.values() if not token.normalized]
    return tuple(
        token.content
        for token in rivals
        if token.special
        and not (token.single_word or token.lstrip or token.rstrip)
        and _is_always_found(token.content, rivals)
    )


def _state(stage: Any) -> dict[str, Any] | None:
    """Return a stage of a fast tokenizer before its model, as in its JSON."""
    return None if stage is None else orjson.loads(stage.__getstate__())


def _only(stage: dict[str, Any] | None, known: set[str], children: str) -> bool:
    if stage is None:
        return True
    if stage["type"] == "Sequence":
        return all(_only(child, known, children) for child in stage[children])
    return stage["type"] in known and not stage.get("add_prefix_space", False)


def _is_always_found(content: str, rivals: list[AddedToken]) -> bool:
    """Return whether no other added token could match a part of this one's characters.

    The last character must not be a letter, or a whole-word token after the cut would see another
    neighbor. No whitespace may be at either end, because a token next to it could strip it.
    """
    if content != content.strip() or content[-1].isalnum() or content[-1] == "_":
        return False
    for rival in rivals:
        other = rival.content
        if other != content and content in other:
            return False
        # "<|a|>" and "|><": the end of one begins the other.
        for length in range(1, min(len(content), len(other))):
            if other.endswith(content[:length]) or content.endswith(other[:length]):
                return False
    return True


def cut_after_last(text: str, cuts: tuple[str, ...]) -> int:
    """Return the index right after the last of these tokens in a text; 0 if it contains none.

    >>> cut_after_last("<s>hi</s><s>you", ("<s>", "</s>"))
    12
    """
    ends = (text.rfind(token) + len(token) for token in cuts if token in text)
    return max(ends, default=0)
