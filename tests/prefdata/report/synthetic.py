"""Synthetic report and pairs with all fields set, for development and tests of the pages."""

import numpy as np

from prefdata.report.lengths import measure_parts
from prefdata.report.model import (
    Bias,
    Example,
    ExamplePair,
    Excerpt,
    Finding,
    Groups,
    Report,
    SeverityChange,
    SourceShare,
    SplitProof,
)
from prefdata.report.rows import ShownPair
from prefdata.stages.statistics import describe_code
from prefdata.store.manifest import (
    ColumnNotRead,
    FunnelStage,
    InputSeal,
    LineClasses,
    Reading,
    SplitStats,
    TokenizerIdentity,
)

NUM_PAIRS = 17_846


def line_classes(lines: int, blank: int, duplicates: int, rejected: int) -> LineClasses:
    kept = lines - blank - duplicates - rejected
    return LineClasses(
        lines=lines, blank=blank, kept=kept, duplicates=duplicates, filtered=0, rejected=rejected
    )


def excerpts(text: str) -> list[Excerpt]:
    """Return excerpts of a row with a marked passage in each; `text` is a string from data."""
    return [
        Excerpt(
            part=part, role="user" + text, text=f"is it {text} safe", marks=[(6, 6 + len(text))]
        )
        for part in ("prompt", "chosen", "rejected", "row")
    ]


def finding(code: str, severity: str, count: int, *messages: str, text: str = "") -> Finding:
    """Return a finding with examples on increasing lines; `text` is a string from data."""
    check = describe_code(code)
    examples = [
        Example(
            source=f"data/reviews-{number % 2}.jsonl{text}",
            line=17 + 391 * number,
            offset=20_480 * number,
            message=message + text,
            excerpts=excerpts(text),
        )
        for number, message in enumerate(messages)
    ]
    return Finding.model_validate(
        {
            "code": code,
            "name": check.name,
            "severity": severity,
            "count": count,
            "share": round(count / 20_310, 6),
            "meaning": check.meaning,
            "advice": check.advice,
            "examples": [example.model_dump() for example in examples],
            "numbers": {"similarity": 0.962} if code == "PD301" else {},
        }
    )


def findings(text: str = "") -> list[Finding]:
    return [
        finding("PD202", "E", 41, "chosen ends in a turn without text", text=text),
        finding(
            "PD210",
            "E",
            12,
            "the prompt contains '<|im_end|>', a control token of the tokenizer",
            "chosen contains '<|im_start|>', a control token of the tokenizer",
            text=text,
        ),
        finding("PD301", "E", 318, "chosen and rejected are equal but for spaces", text=text),
        finding("PD401", "W", 1_204, text=text),
        finding("PD403", "E", 86, "data/reviews-1.jsonl:408 prefers the other one", text=text),
        finding("PD710", "E", 711, "2,311 tokens where max_length is 2,048", text=text),
        finding("PD713", "W", 95, text=text),
        finding("PD714", "I", 40, text=text),
        finding(
            "R201",
            "E",
            87,
            "not JSON: unexpected end of data at column 1,204",
            "not JSON: expected ',' or '}' at column 33",
            "not JSON: unexpected character at column 1",
            text=text,
        ),
    ]


def funnel() -> list[FunnelStage]:
    stages = [
        ("read", 20_305, 20_218, {"R201": 87}),
        ("check", 20_218, 19_847, {"PD202": 41, "PD210": 12, "PD301": 318}),
        ("duplicates", 19_847, 18_643, {"PD401": 1_204}),
        ("contradictions", 18_643, 18_557, {"PD403": 86}),
        ("tokens", 18_557, NUM_PAIRS, {"PD710": 711}),
    ]
    return [
        FunnelStage(stage=name, rows_in=rows_in, rows_out=rows_out, dropped=dropped)
        for name, rows_in, rows_out, dropped in stages
    ]


def biases(text: str = "") -> list[Bias]:
    rows = [
        ("length", 0.571, 0.567, 0.575, "Chosen completions are longer: 57 times of 100."),
        ("list marks", 0.508, 0.499, 0.517, "Lists do not distinguish the sides."),
        (
            "model name",
            0.642,
            0.631,
            0.653,
            "The model predicts much of the label.",
        ),
    ]
    return [
        Bias(name=n + text, auc=a, low=low, high=high, pairs=NUM_PAIRS, sentence=sentence + text)
        for n, a, low, high, sentence in rows
    ]


def measured() -> dict[str, object]:
    """Return lengths and histograms of pairs, drawn from three log-normal distributions."""
    random = np.random.default_rng(7)
    scales = {"prompt": (4.6, 0.9), "chosen": (5.3, 0.7), "rejected": (5.15, 0.75)}
    drawn = {
        part: np.maximum(random.lognormal(mean, spread, NUM_PAIRS).astype(np.int64), 1)
        for part, (mean, spread) in scales.items()
    }
    found = measure_parts(drawn)
    assert found is not None
    return {
        "lengths": found.lengths,
        "histograms": found.histograms,
        "chosen_longer": found.chosen_longer,
    }


def reading(text: str = "") -> Reading:
    column = ColumnNotRead(
        name="mood" + text, rows=7_000, kind="text", example='"calm' + text, means="system" + text
    )
    return Reading(chosen_by="columns", said=["the prompt is cut off" + text], not_read=[column])


def inputs(text: str = "") -> list[InputSeal]:
    files = [
        ("data/reviews-0.jsonl", 48_211_907, line_classes(12_400, 3, 802, 740)),
        ("data/reviews-1.jsonl.gz", 21_800_412, line_classes(7_910, 2, 402, 515)),
    ]
    return [
        InputSeal(
            name=name + text,
            bytes=size,
            sha256=f"{number}a7c" * 16,
            layout="hh" + text,
            lines=lines,
            reading=reading(text),
        )
        for number, (name, size, lines) in enumerate(files)
    ]


def tokenizer(text: str = "") -> TokenizerIdentity:
    return TokenizerIdentity(
        name="HuggingFaceTB/SmolLM2-135M-Instruct" + text,
        revision="main" + text,
        tokenizer_sha256="9f" * 32,
        template_sha256="c4" * 32,
        vocab_size=49_152,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )


def example_pair(text: str = "") -> ExamplePair:
    return ExamplePair(
        source="data/reviews-0.jsonl" + text,
        line=1,
        prompt="Is it safe to eat an avocado that is brown inside?" + text,
        chosen="Yes, if it only browned from the air: the taste is duller, that is all. Leave it "
        "if it smells sour or feels slimy." + text,
        rejected="Yes." + text,
    )


def splits() -> dict[str, SplitStats]:
    numbers = {"train": (16_958, 9_104), "test": (NUM_PAIRS - 16_958, 479)}
    return {
        name: SplitStats(
            rows=rows,
            groups=groups,
            prompt_tokens=rows * 149,
            chosen_tokens=rows * 254,
            rejected_tokens=rows * 229,
        )
        for name, (rows, groups) in numbers.items()
    }


def full_report(text: str = "") -> Report:
    """Return a report with all fields set; `text` is in every field that data can reach."""
    sealed = inputs(text)
    total = {
        name: sum(getattr(item.lines, name) for item in sealed) for name in LineClasses.model_fields
    }
    return Report.model_validate(
        {
            "tool_version": "0.1.0",
            "inputs": sealed,
            "lines": LineClasses(**total),
            "funnel": funnel(),
            "findings": findings(text),
            "splits": splits(),
            **measured(),
            "notes": ["data/reviews-1.jsonl.gz: the last line has no line break" + text],
            "biases": biases(text),
            "sources": [
                SourceShare(
                    name="reviews" + text, pairs=14_005, share=0.7848, licence="CC-BY-4.0" + text
                ),
                SourceShare(name="forum" + text, pairs=3_841, share=0.2152, licence=None),
            ],
            "groups": Groups(groups=9_583, completions=27_410, pairs=NUM_PAIRS),
            "split_proof": SplitProof(
                threshold=0.7,
                unit="word 5-grams" + text,
                leaked=0,
                clusters=9_310,
                largest=14,
            ),
            "severity_changes": [SeverityChange(code="PD713", was="W", now="I")],
            "languages": ["en", "de"],
            "example_pairs": [example_pair(text)],
            "config": {
                "inputs": ["data/reviews-0.jsonl" + text, "data/reviews-1.jsonl.gz"],
                "tokenizer": "HuggingFaceTB/SmolLM2-135M-Instruct",
                "max_length": 2048,
                "seed": 0,
            },
            "tokenizer": tokenizer(text),
            "fingerprint": "5f0c2a9be1d47730",
        }
    )


def empty_report() -> Report:
    """Return the report of a file without rows."""
    return Report(
        tool_version="0.1.0",
        inputs=[],
        lines=line_classes(0, 0, 0, 0),
        funnel=[],
        findings=[],
        splits=None,
        lengths=None,
        chosen_longer=None,
        notes=[],
    )


def shown_pair(text: str = "") -> ShownPair:
    """Return a pair of a build with the text in every field; its tokens are bytes."""
    pair = example_pair(text)
    parts = {part: getattr(pair, part) for part in ("prompt", "chosen", "rejected")}
    turns = {
        part: [{"role": "assistant" + text, "content": value, "tool_calls": text}]
        for part, value in parts.items()
    }
    ids = {
        f"{part}_ids": list(value.encode("utf-8", "surrogatepass")) for part, value in parts.items()
    }
    known = {"score_chosen": 4.5, "score_rejected": 1.0, "margin": 3.5, "weight": 0.5}
    models = {"model_chosen": "tern" + text, "model_rejected": None}
    place = {"source": pair.source, "line": pair.line, "chosen_rank": 1, "rejected_rank": 3}
    return ShownPair(
        row=7,
        split="train",
        at=7,
        tokens={"pair_id": b"\x17" * 16, **ids},
        text={**turns, **known, **models, **place},
    )
