"""The ids of a pair equal those of transformers, cut as TRL cuts them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from transformers import AutoTokenizer

from prefdata.errors import UsageError
from prefdata.read import TextRule, expand_inputs
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.pairs import encode_records
from prefdata.tokens.stage import encode_table
from prefdata.tokens.tokenizer import TokenizerSpec, load_tokenizer_spec
from tests.prefdata.read.rows import read_file

letters = st.characters(exclude_categories=["Cs"])
texts = st.text(letters, min_size=1, max_size=30).filter(lambda text: "<|" not in text)
"""Texts without control tokens, which a build encodes as plain text and transformers does not."""


def read_rows(
    folder: Path,
    rows: list[dict[str, Any]],
    text: TextRule = TextRule(),  # noqa: B008 - immutable
) -> Any:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (file,) = expand_inputs([str(path)])
    return read_file(file, text=text).records


def dialogue(*contents: str) -> list[dict[str, str]]:
    roles = ["user", "assistant"] * len(contents)
    return [{"role": role, "content": c} for role, c in zip(roles, contents, strict=False)]


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": dialogue(prompt),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def reference_ids(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """Return the ids that TRL 1.16's `tokenize_fn` computes."""
    if isinstance(row["prompt"], str):
        end = tokenizer.eos_token
        sides = [row[s] if row[s].endswith(end) else row[s] + end for s in ("chosen", "rejected")]
        alone = tokenizer(row["prompt"])["input_ids"]
        whole = [tokenizer(row["prompt"] + side)["input_ids"] for side in sides]
    else:
        alone = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, tools=row.get("tools")
        )["input_ids"]
        whole = [
            tokenizer.apply_chat_template(row["prompt"] + row[side], tools=row.get("tools"))[
                "input_ids"
            ]
            for side in ("chosen", "rejected")
        ]
    at = 0
    while at < len(alone) and all(at < len(w) and w[at] == alone[at] for w in whole):
        at += 1
    return alone[:at], whole[0][at:], whole[1][at:]


def assert_same_ids(folder: Path, tokenizer: Path, rows: list[dict[str, Any]]) -> None:
    reference = AutoTokenizer.from_pretrained(str(tokenizer))
    found = encode_table(
        read_rows(folder, rows), load_tokenizer_spec(str(tokenizer)), TokenOptions()
    )

    assert found.tokens.num_rows == len(rows)
    for ids, row in zip(found.tokens.to_pylist(), rows, strict=True):
        ours = (ids["prompt_ids"], ids["chosen_ids"], ids["rejected_ids"])
        assert ours == reference_ids(reference, row), row


def test_chat_ids_are_those_of_apply_chat_template(tmp_path: Path, tiny: Path) -> None:
    rows = [
        pair("What is the capital?", "Paris.", "Rome."),
        pair("emoji 😀 and שלום", "é\u0301 ok", "no 🇫🇷"),
        pair("ends with lines\n\n", "\n\nbegins with lines", "\nsame"),
        pair("spaces ", "  two", " one"),
        {
            "prompt": dialogue("one", "two", "three"),
            "chosen": dialogue("", "Sure")[1:],
            "rejected": dialogue("", "No")[1:],
        },
    ]

    assert_same_ids(tmp_path, tiny, rows)


def test_text_ids_are_those_of_the_tokenizer_with_eos(tmp_path: Path, tiny: Path) -> None:
    rows = [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        {"prompt": "The sky is ", "chosen": "blue.<|im_end|>", "rejected": "green."},
    ]

    assert_same_ids(tmp_path, tiny, rows)


@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=3))
def test_any_text_has_the_ids_of_apply_chat_template(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[str, str, str]]
) -> None:
    rows = [pair(*three) for three in contents if three[1] != three[2]]
    target, folder = load_tokenizer_spec(str(tiny)), tmp_path_factory.mktemp("rows")
    records = read_rows(folder, rows) if rows else None
    if records is None or records.num_rows == 0:
        return
    kept = [r for r in rows if "\0" not in json.dumps(r)]
    reference = AutoTokenizer.from_pretrained(str(tiny))
    outcome = encode_records(records, target, TokenOptions())
    by_content = {json.dumps(row): reference_ids(reference, row) for row in kept}
    for at, row in enumerate(outcome.ids.rows.tolist()):
        raw = {
            side: [{"role": m["role"], "content": m["content"]} for m in messages]
            for side, messages in records.select(["prompt", "chosen", "rejected"])
            .slice(row, 1)
            .to_pylist()[0]
            .items()
        }
        expected = by_content[json.dumps(raw)]
        sides = (outcome.ids.prompt, outcome.ids.chosen, outcome.ids.rejected)
        assert tuple(side.row(at).tolist() for side in sides) == expected


def codes_of(
    folder: Path, target: TokenizerSpec, rows: list[dict[str, Any]], **options: Any
) -> list[str]:
    found = encode_table(read_rows(folder, rows), target, TokenOptions(**options))
    return [refusal.code for refusal in found.refusals.values()]


def test_a_prompt_that_the_template_ends_differently_is_refused(tmp_path: Path, tiny: Path) -> None:
    target = load_tokenizer_spec(str(tiny))
    template = target.templates["default"].replace(
        "assistant\n{% endif", "assistant\n<think>{% endif"
    )
    thinking = TokenizerSpec(
        target.name, None, target.serialized, {"default": template}, target.special_tokens
    )
    rows = [pair("Why?", "Because.", "Dunno.")]

    assert codes_of(tmp_path, thinking, rows) == ["PD701"]
    assert codes_of(tmp_path, thinking, rows, severity={"PD701": "W"}) == []


def test_the_length_policies_reject_or_cut_and_count(tmp_path: Path, tiny: Path) -> None:
    target, records = (
        load_tokenizer_spec(str(tiny)),
        read_rows(tmp_path, [pair("a " * 30, "b " * 9, "c " * 20), pair("a", "b", "c")]),
    )
    whole = encode_table(records, target, TokenOptions())
    row = whole.tokens.slice(0, 1).to_pylist()[0]
    prompt, rejected = len(row["prompt_ids"]), len(row["rejected_ids"])
    limit = prompt + rejected - 5

    found = encode_table(records, target, TokenOptions(max_length=limit))
    assert [r.code for r in found.refusals.values()] == ["PD710"]

    policy = TokenOptions(max_length=limit, length_policy="cut_prompt_start")
    found = encode_table(records, target, policy)
    assert found.findings == {"PD708": 1}
    assert found.tokens["prompt_ids"][0].as_py() == row["prompt_ids"][5:]
    assert found.tokens["rejected_ids"][0].as_py() == row["rejected_ids"]

    policy = TokenOptions(max_length=limit, length_policy="cut_completion_end")
    found = encode_table(records, target, policy)
    assert found.findings == {"PD713": 1}
    assert found.tokens["chosen_ids"][0].as_py() == row["chosen_ids"]
    assert found.tokens["rejected_ids"][0].as_py() == row["rejected_ids"][:-5]

    policy = TokenOptions(max_length=prompt, length_policy="cut_completion_end")
    found = encode_table(records, target, policy)
    assert [r.code for r in found.refusals.values()] == ["PD702"]


def test_completions_that_are_equal_after_a_cut_are_refused(tmp_path: Path, tiny: Path) -> None:
    target, rows = (
        load_tokenizer_spec(str(tiny)),
        [pair("a", "same words here x", "same words here y")],
    )
    whole = encode_table(read_rows(tmp_path, rows), target, TokenOptions()).tokens
    limit = len(whole["prompt_ids"][0]) + 3

    assert codes_of(
        tmp_path, target, rows, max_length=limit, length_policy="cut_completion_end"
    ) == ["PD703"]


def test_a_doubled_end_is_refused(tmp_path: Path, tiny: Path) -> None:
    row = {"prompt": "The sky", "chosen": " is<|im_end|><|im_end|>", "rejected": " was"}

    target = load_tokenizer_spec(str(tiny))
    assert codes_of(tmp_path, target, [row], control_tokens="allow") == ["PD704"]
    assert codes_of(tmp_path, target, [row]) == []  # the first is plain text


def test_only_the_assistants_turns_of_a_long_completion_are_in_its_mask(
    tmp_path: Path, tiny: Path
) -> None:
    turns = [
        {"role": "assistant", "content": "Let me look."},
        {"role": "user", "content": "Do."},
        {"role": "assistant", "content": "It is 4."},
    ]
    row = {**pair("2 + 2?", "", "No idea."), "chosen": turns}
    target = load_tokenizer_spec(str(tiny))
    found = encode_table(read_rows(tmp_path, [row, pair("a", "b", "c")]), target, TokenOptions())
    first, second = found.tokens.to_pylist()

    trained = [i for i, on in zip(first["chosen_ids"], first["chosen_mask"], strict=True) if on]
    shown = target.backend.decode(trained, skip_special_tokens=False)
    assert shown == "Let me look.<|im_end|>\nIt is 4.<|im_end|>\n"
    assert all(first["rejected_mask"])
    assert second["chosen_mask"] is None


def test_a_tokenizer_without_template_is_refused_for_dialogues(
    tmp_path: Path, tiny_without_template: Path
) -> None:
    with pytest.raises(UsageError, match="has no chat template") as caught:
        codes_of(tmp_path, load_tokenizer_spec(str(tiny_without_template)), [pair("a", "b", "c")])
    assert caught.value.code == "C115"


def test_a_template_that_writes_today_needs_a_date(tmp_path: Path, tiny: Path) -> None:
    target = load_tokenizer_spec(str(tiny))
    template = "{{ strftime_now('%d %b %Y') }}" + target.templates["default"]
    dated = TokenizerSpec(
        target.name, None, target.serialized, {"default": template}, target.special_tokens
    )

    with pytest.raises(UsageError, match="template_date"):
        codes_of(tmp_path, dated, [pair("a", "b", "c")])


def test_a_missing_tokenizer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_tokenizer_spec(str(tmp_path / "nothing"))
    assert str(caught.value).endswith(
        "is not a directory, and cannot be a name on the Hub; "
        "name a directory, or a Hub name such as org/model [C110]"
    )
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(UsageError, match="its tokenizer cannot be loaded"):
        load_tokenizer_spec(str(tmp_path))


def test_the_ids_of_a_pair_are_those_on_record(tmp_path: Path, tiny: Path) -> None:
    row = pair("What is the capital of France?", "Paris.", "Hello 😀")
    found = encode_table(read_rows(tmp_path, [row]), load_tokenizer_spec(str(tiny)), TokenOptions())

    ids = found.tokens.select(["prompt_ids", "chosen_ids", "rejected_ids"]).to_pylist()[0]
    assert ids == snapshot(
        {
            "prompt_ids": [
                1,
                312,
                201,
                279,
                283,
                316,
                264,
                351,
                333,
                345,
                33,
                2,
                201,
                1,
                282,
                343,
                86,
                201,
            ],
            "chosen_ids": [277, 305, 16, 2, 201],
            "rejected_ids": [276, 339, 223, 175, 256, 249, 225, 2, 201],
        }
    )
