"""A text is cut after an added token only if its parts provably give the ids of the whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefdata.tokens.segments import cut_after_last, safe_cuts
from prefdata.tokens.tokenizer import TokenizerSpec, load_tokenizer_spec


def test_a_text_is_cut_only_if_that_is_proven_safe(tiny: Path) -> None:
    target = load_tokenizer_spec(str(tiny))

    assert set(safe_cuts(target)) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}


BYTES_AFTER_A_SPACE = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}
STRIP = {"type": "Strip", "strip_left": True, "strip_right": False}


def changed(target: TokenizerSpec, **stages: Any) -> TokenizerSpec:
    """Return the same tokenizer with another stage in its JSON."""
    structure = {**json.loads(target.serialized), **stages}
    return TokenizerSpec(
        target.name, None, json.dumps(structure), target.templates, target.special_tokens
    )


@pytest.mark.parametrize(
    "stages",
    [
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}},
        {"pre_tokenizer": BYTES_AFTER_A_SPACE},
        {"normalizer": {"type": "Prepend", "prepend": "_"}},
        {"normalizer": {"type": "Sequence", "normalizers": [STRIP]}},
    ],
)
def test_no_text_is_cut_if_a_stage_depends_on_positions(tiny: Path, stages: dict[str, Any]) -> None:
    assert safe_cuts(changed(load_tokenizer_spec(str(tiny)), **stages)) == ()


def test_no_text_is_cut_after_a_token_that_another_could_swallow(tiny: Path) -> None:
    target = load_tokenizer_spec(str(tiny))
    own = json.loads(target.serialized)["added_tokens"]
    tokens = [*own, {**own[1], "id": len(own) + 999, "content": "x<|im_start|>"}]

    assert "<|im_start|>" not in safe_cuts(changed(target, added_tokens=tokens))
    assert cut_after_last("no token", ("<s>",)) == 0
