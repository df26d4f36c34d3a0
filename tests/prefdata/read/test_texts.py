"""Plain text is a chat or verbatim by evidence; a build says which, why, and how it looks."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tokenizers import Tokenizer

import prefdata
from prefdata.config import BuildConfig
from prefdata.errors import PrefdataError
from prefdata.store.reader import Build
from prefdata.validation import ValidateOptions
from tests.prefdata.conftest import write_rows

Rows = list[dict[str, Any]]


def plain(prompt: str, chosen: str, rejected: str, number: int = 4) -> Rows:
    """Return rows of TRL's text layout; `№` in the texts is the row's number."""
    texts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return [{k: v.replace("№", str(n)) for k, v in texts.items()} for n in range(number)]


def alpaca(instruction: str, chosen: str, rejected: str, **more: Any) -> Rows:
    return [
        {"instruction": f"{n} {instruction}", "input": "", "chosen": chosen, "rejected": rejected}
        | more
        for n in range(4)
    ]


def ranked(prompt: Any, *texts: str) -> Rows:
    return [
        {"prompt": prompt, "completions": [{"text": t, "rank": n} for n, t in enumerate(texts, 1)]}
    ]


ASK = plain("Add № to 2.", "It is more.", "It is less.")
SKY = plain("The sky over town № is", " blue.", " green.")
USER = [{"role": "user", "content": "q"}]
KTO = [
    {"prompt": "Name a bird.", "completion": text, "label": good}
    for text, good in (("A wren.", True), ("A trout.", False))
]


class Case(NamedTuple):
    """Rows, settings, and the expected result: a form, or the code of an error."""

    rows: Rows
    outcome: str
    text: str = "auto"
    finds: set[str] = set()  # noqa: RUF012 - never changed
    has_template: bool = True


CASES = {
    "questions and answers": Case(ASK, "chat"),
    "space before the answers": Case(SKY, "verbatim"),
    "line break after the prompt": Case(plain("Q№\n", "a", "b"), "verbatim"),
    "transcript": Case(plain("\n\nHuman: q№\n\nAssistant:", " a", " b"), "verbatim"),
    "transcript without a space": Case(
        plain("Human: q№\nAssistant:", "a", "b"), "verbatim", finds={"PD214"}
    ),
    "heading": Case(
        plain("### Instruction:\nq№\n\n### Response:", "a", "b"), "verbatim", finds={"PD214"}
    ),
    "llama marks": Case(plain("[INST] q№ [/INST]", "a", "b"), "verbatim"),
    "marks of the tokenizer": Case(
        plain("<|im_start|>user\nq№<|im_end|>\n<|im_start|>assistant\n", "a", "b"), "E120"
    ),
    "speaker in the answers": Case(
        plain("q№", "Assistant: a", "Assistant: b"), "verbatim", finds={"PD214"}
    ),
    "instruction": Case(alpaca("Name a river.", "The Nile.", "A lake."), "chat"),
    "instruction with a heading": Case(
        alpaca("\n### Instruction:\nName a river.\n\n### Response:\n", "The Nile.", "A lake."),
        "verbatim",
    ),
    "labels": Case(KTO, "chat"),
    "ranked": Case(ranked("Name a bird.", "A wren.", "A trout."), "chat"),
    "ranked, running": Case(ranked("The sky is", " blue.", " up."), "verbatim"),
    "no spaces in the script": Case(plain("空は何色？ №番", "青", "緑"), "chat"),
    "half and half": Case(ASK + SKY, "E180"),
    "space on one side": Case(plain("The sky № is", " blue.", "green."), "E180"),
    "label without a space": Case(plain("Question: №?\nAnswer:", "Two.", "Three."), "E180"),
    "some have a system text": Case(
        alpaca("Name:\n", "Nile.", "Lake.") + alpaca("Name:\n", "a", "b", system="Short."), "E180"
    ),
    "one in two hundred has a space": Case(plain("q№?", "a", "b", 199) + SKY[:1], "chat"),
    "one in two hundred has none": Case(
        plain("q№", " a", " b", 199) + ASK[:1], "verbatim", finds={"PD214"}
    ),
    "no template": Case(ASK, "verbatim", finds={"PD214"}, has_template=False),
    "no template, instruction": Case(
        alpaca("Name a river.", "Nile.", "A lake."),
        "verbatim", finds={"PD214"}, has_template=False,
    ),
    "forced verbatim": Case(ASK, "verbatim", text="verbatim", finds={"PD214"}),
    "forced chat": Case(SKY, "chat", text="chat"),
    "forced half and half": Case(ASK + SKY, "chat", text="chat"),
    "verbatim, some with a system text": Case(
        alpaca("Name a river.", "Nile.", "Lake.") + alpaca("Name:", "a", "b", system="Be brief."),
        "verbatim", text="verbatim", finds={"PD214", "PD215"},
    ),
    "chat of running text": Case(
        [{"chosen": "Sky:\nIt is blue.", "rejected": "Sky:\nIt is up."}], "E181", text="chat"
    ),
    "verbatim dialogues": Case(ranked(USER, "a", "b"), "E182", text="verbatim"),
}  # fmt: skip


@pytest.fixture
def tokenizers(tiny: Path, tiny_without_template: Path) -> dict[bool, Path]:
    return {True: tiny, False: tiny_without_template}


def build(folder: Path, rows: Rows | list[str], tokenizer: Path, **more: Any) -> Build:
    inputs = rows
    if rows and isinstance(rows[0], dict):
        folder.mkdir(exist_ok=True)
        inputs = [str(write_rows(folder / "rows.jsonl", rows))]  # type: ignore[arg-type]
    return prefdata.build(
        BuildConfig(
            inputs=inputs, tokenizer=str(tokenizer), out=folder / "out", test_fraction=0.0, **more
        )
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_plain_text_is_read_by_the_text_at_the_join(
    case: Case, tmp_path: Path, tokenizers: dict[bool, Path]
) -> None:
    folder = tokenizers[case.has_template]
    if case.outcome not in ("chat", "verbatim"):
        with pytest.raises(PrefdataError) as error:
            build(tmp_path, case.rows, folder, text=case.text)
        assert error.value.code == case.outcome
        return

    made = build(tmp_path, case.rows, folder, text=case.text)

    (seal,) = made.manifest.inputs
    assert seal.text is not None
    assert seal.text.form == case.outcome
    report = json.loads(made.file("report.json").read_bytes())
    codes = {found["code"] for found in report["findings"]}
    assert codes & {"PD214", "PD215"} == case.finds
    row = made.tokens("train").to_pylist()[0]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = tokenizer.decode(row["prompt_ids"], skip_special_tokens=False)
    assert prompt.startswith("<|im_start|>user\n") == (case.outcome == "chat")
    assert seal.first_pair is not None
    assert seal.first_pair.prompt == prompt


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_validate_reads_as_the_build_does(
    case: Case, tmp_path: Path, tokenizers: dict[bool, Path]
) -> None:
    if case.outcome == "E120":
        return
    path = write_rows(tmp_path / "rows.jsonl", case.rows)
    options = ValidateOptions(tokenizer=str(tokenizers[case.has_template]), text=case.text)

    if case.outcome not in ("chat", "verbatim"):
        with pytest.raises(PrefdataError, match=case.outcome):
            prefdata.validate([str(path)], options)
        return
    (seal,) = prefdata.validate([str(path)], options).inputs

    assert seal.text is not None
    assert seal.text.form == case.outcome


def test_what_cannot_be_decided_is_shown_in_both_readings(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(PrefdataError) as error:
        build(tmp_path, ASK + SKY, tiny)

    assert "4 of 8 rows have a space, a line break or a marker" in str(error.value)
    assert '"<|im_start|>user\\nAdd 0 to 2.<|im_end|>\\n<|im_start|>assistant\\nIt is' in str(
        error.value
    )
    assert '"Add 0 to 2.It is more."' in str(error.value)
    assert "--text" in str(error.value)


def test_validate_without_a_tokenizer_says_what_it_would_need(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ASK + SKY)

    (seal,) = prefdata.validate([str(path)]).inputs

    assert seal.text is not None
    assert "undecided" in seal.text.why
    assert "text: chat" in seal.text.why


def test_each_file_is_read_by_its_own_evidence(tmp_path: Path, tiny: Path) -> None:
    paths = [
        str(write_rows(tmp_path / f"{name}.jsonl", rows))
        for name, rows in (("ask", ASK), ("sky", SKY), ("ranked", ranked(USER, "a", "b")))
    ]

    made = build(tmp_path, paths, tiny)

    assert [seal.text and seal.text.form for seal in made.manifest.inputs] == [
        "chat",
        "verbatim",
        None,
    ]


@pytest.mark.parametrize("names", [("ask",), ("sky",), ("ask", "sky")])
@pytest.mark.parametrize("mode", ["auto", "verbatim"])
def test_a_build_of_a_builds_texts_has_the_same_pairs(
    tmp_path: Path, tiny: Path, names: tuple[str, ...], mode: str
) -> None:
    rows = {"ask": ASK, "sky": SKY}
    paths = [str(write_rows(tmp_path / f"{name}.jsonl", rows[name])) for name in names]
    made = build(tmp_path, paths, tiny, text=mode)
    again = build(tmp_path / "again", [str(made.path / "text" / "*.parquet")], tiny)

    columns = ["pair_id", "group_id", "prompt_ids", "chosen_ids", "rejected_ids"]
    assert again.tokens("train").select(columns) == made.tokens("train").select(columns)
    assert again.manifest.lines.rejected == 0
