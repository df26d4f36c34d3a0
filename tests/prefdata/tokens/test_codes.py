"""Codes of tokens other than faults of ids: each code has rows with it and without."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from prefdata.check.catalog import catalog
from prefdata.read import TextRule, expand_inputs
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.stage import TokenRows, encode_table
from prefdata.tokens.template.checks import find_dropped
from prefdata.tokens.tokenizer import load_tokenizer_spec
from tests.prefdata.conftest import CHATML, save_tokenizer
from tests.prefdata.read.rows import read_file

CALL = {"type": "function", "function": {"name": "light", "arguments": {}}}
TOOLS = [{"type": "function", "function": {"name": "light"}}]


def encode(folder: Path, target: Path, *sides: Any, **options: Any) -> TokenRows:
    """Encode pairs of one prompt and one rejected side, whose chosen sides are given."""
    rows = [
        {
            "prompt": [{"role": "user", "content": "the quick fox"}],
            "chosen": [{"role": "assistant", "content": s}] if isinstance(s, str) else s,
            "rejected": [{"role": "assistant", "content": "the lazy dog"}],
            "tools": TOOLS if isinstance(s, list) and "tool_calls" in s[0] else None,
        }
        for s in sides
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (file,) = expand_inputs([str(path)])
    records = read_file(file).records
    assert records.num_rows == len(rows)
    return encode_table(records, load_tokenizer_spec(str(target)), TokenOptions(**options))


def test_a_call_that_the_template_drops_is_refused(tiny: Path, tmp_path: Path) -> None:
    calling = [{"role": "assistant", "content": "", "tool_calls": [CALL]}]
    made = encode(tmp_path, tiny, "brown", calling)

    assert {row: why.code for row, why in made.refusals.items()} == {1: "PD707"}
    assert "call of 'light'" in made.refusals[1].message
    off = encode(tmp_path, tiny, "brown", calling, severity={"PD707": "off"})
    assert off.refusals == {}


def test_a_template_that_keeps_a_part_of_an_answer_is_refused(tmp_path: Path) -> None:
    cutting = CHATML.replace("message['content']", "message['content'][:20]")
    made = encode(tmp_path, save_tokenizer(tmp_path / "t", template=cutting), "brown", "fox " * 9)

    assert {row: why.code for row, why in made.refusals.items()} == {1: "PD707"}


@pytest.mark.parametrize(
    ("rendered", "completion", "dropped"),
    [
        ("U: q A: yes", [{"role": "assistant", "content": " yes\n"}], None),
        (
            "U: q A: ye",
            [{"role": "assistant", "content": "yes"}],
            "content of the assistant's turn",
        ),
        (
            "<think>\nhm\n</think>\n\nyes",
            [{"role": "assistant", "content": "<think>hm</think>yes"}],
            None,
        ),
        ("yes", [{"role": "assistant", "content": "yes", "reasoning": "hm"}], "reasoning"),
        (
            "yes why no",
            [
                {"role": "assistant", "content": "<think>hm</think>yes", "reasoning": "hm"},
                {"role": "user", "content": "why"},
                {"role": "assistant", "content": "no"},
            ],
            None,
        ),
        ("", [], None),
    ],
)
def test_what_is_dropped_is_named(
    rendered: str, completion: list[dict[str, Any]], dropped: str | None
) -> None:
    assert find_dropped(rendered, completion) == dropped


def test_a_template_that_ends_no_turn_is_reported(tiny: Path, tmp_path: Path) -> None:
    endless = CHATML.replace("<|im_end|>", "")
    other = save_tokenizer(tmp_path / "t", template=endless)

    assert "PD705" not in encode(tmp_path, tiny, "brown").findings
    assert encode(tmp_path, other, "brown", "fox").findings["PD705"] == 2
    assert "PD705" not in encode(tmp_path, other, "brown", severity={"PD705": "off"}).findings
    refused = encode(tmp_path, other, "brown", severity={"PD705": "E"})
    assert [why.code for why in refused.refusals.values()] == ["PD705"]


def test_unknown_tokens_are_reported(tmp_path: Path) -> None:
    words = ["the", "quick", "brown", "fox", "lazy", "dog", "system", "user", "assistant"]
    vocabulary = {word: n for n, word in enumerate(["<unk>", "<|im_start|>", "<|im_end|>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<unk>", "<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "eos_token": "<|im_end|>",
        "chat_template": CHATML,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))

    assert "PD709" not in encode(tmp_path, tmp_path, "brown").findings
    assert encode(tmp_path, tmp_path, "brown", "zebra").findings["PD709"] == 1


def encode_texts(folder: Path, target: Path, *pairs: tuple[str, str, str]) -> TokenRows:
    """Encode pairs of verbatim text: prompt, chosen, rejected."""
    path = folder / "texts.jsonl"
    parts = ("prompt", "chosen", "rejected")
    rows = [json.dumps(dict(zip(parts, pair, strict=True))) for pair in pairs]
    path.write_text("\n".join(rows))
    (file,) = expand_inputs([str(path)])
    records = read_file(file, text=TextRule("verbatim")).records
    return encode_table(records, load_tokenizer_spec(str(target)), TokenOptions())


def test_a_prompt_without_a_token_of_its_own_is_refused(tiny: Path, tmp_path: Path) -> None:
    made = encode_texts(tmp_path, tiny, (" do", "g", "g or not"), ("The do", "g", "g or not"))

    assert {row: why.code for row, why in made.refusals.items()} == {0: "PD712"}
    assert (made.findings["PD714"], made.first["PD714"]) == (1, [1])  # of the kept one


def test_a_dialogue_that_the_template_refuses_is_refused(tmp_path: Path) -> None:
    picky = "{% if messages[-1]['content'] == 'fox' %}{{ raise_exception('no foxes') }}{% endif %}"
    made = encode(tmp_path, save_tokenizer(tmp_path / "t", template=picky + CHATML), "dog", "fox")

    assert {row: why.code for row, why in made.refusals.items()} == {1: "PD711"}
    assert "no foxes" in made.refusals[1].message


def test_a_completion_without_an_assistant_is_refused(tiny: Path, tmp_path: Path) -> None:
    answer = [{"role": "tool", "name": "light", "content": "on"}]
    made = encode(tmp_path, tiny, "dog", answer, severity={"PD701": "W"})

    assert {row: why.code for row, why in made.refusals.items()} == {1: "PD706"}


def test_the_codes_of_the_spec_exist() -> None:
    assert {f"PD70{n}" for n in range(1, 10)} <= set(catalog())
