"""A whole `dpo-sample` run: prompts in, a ranked file out, and a summary of it."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import torch
import transformers

from dpo.model.fingerprints import WeightsId
from dpo.model.load import best_device, check_model, load_model
from dpo.model.source import ModelSource, find_parts
from dpo.model.tokenizer import encode_prompt, load_tokenizer, prompt_encoder, short_name
from dpo.precision import Weights
from dpo.sampling.best_of import keep_best
from dpo.sampling.files import (
    PromptRow,
    append,
    check_out,
    output_items,
    output_row,
    partial_file,
    read_prompts,
)
from dpo.sampling.sample import (
    Completion,
    ReadPrompts,
    SampleConfig,
    check_prompts,
    choose_sampling,
    read_as,
    sample_completions,
)
from dpo.sampling.scorer import Scorer, load_scorer, score_completions
from prefdata.progress import Advance, Progress, Silent
from prefdata.store.ownership import Read
from prefdata.tokens.preview import show_ids
from prefdata.tokens.prompts import PromptEncoder


class SampleJob(NamedTuple):
    """Inputs and output of one run."""

    prompts: Path
    model: str
    out: Path
    scorer: str | None = None
    dtype: Weights = "float32"
    adapter: str | None = None
    best_of: int = 1
    """Completions drawn for each of `k`, of which the one with the highest score is written."""

    @property
    def source(self) -> ModelSource:
        return ModelSource(self.model, self.adapter, self.dtype)


class SampleSummary(NamedTuple):
    """Summary of the finished file."""

    num_completions: int
    num_tokens: int
    num_ended: int
    mean_score: float | None
    tokens_per_second: float | None = None
    """Of this run, without loading; None if an earlier one had sampled everything."""
    readings: list[str] = []  # noqa: RUF012 - never changed
    """Messages about how the prompts were read."""


def sample_file(
    job: SampleJob, config: SampleConfig, progress: Progress | None = None
) -> SampleSummary:
    """Sample, score and write; the bar counts prompts."""
    progress = progress or Silent()
    named = (("the prompts", job.prompts), ("the model", Path(job.model)))
    check_out(job.out, [Read(role, path) for role, path in named if path.exists()])
    scorer = load_scorer(job.scorer) if job.scorer else None
    check_model(job.source)
    config = config.model_copy(update={"k": config.k * job.best_of})
    rows = read_prompts(job.prompts)
    with progress.bar("sampling", len(rows)) as advance:
        model = load_model(job.source, device=best_device())
        tokenizer = load_tokenizer(find_parts(job.source).tokenizer)
        encoder = prompt_encoder(tokenizer, control_tokens=config.control_tokens)
        read = read_as([row.prompt for row in rows], encoder, config, str(job.prompts))
        if read.choice is not None:  # each window uses the same reading
            config = config.model_copy(update={"text": read.choice.name, "raw": False})
        rows = [row._replace(prompt=prompt) for row, prompt in zip(rows, read.prompts, strict=True)]
        check_prompts(
            [f"{job.prompts}:{row.line}" for row in rows], read.prompts, model, encoder, config
        )
        reader, why = choose_sampling(read.prompts, model, encoder, config)
        if why is not None:
            meaning = "the model's cache cannot be used, so every token runs the whole text"
            progress.note(f"{meaning}: {why}")
        decides, size = _what_decides(job, config, tokenizer), config.prompts_per_window
        started = time.perf_counter()
        with partial_file(job.out, decides, size) as (file, first):
            advance(first)
            sampled = sample_completions(
                read.prompts, model, tokenizer, config, first=first, reader=reader
            )
            lines = _output_lines(job, scorer, rows[first:], sampled, advance)
            while window := b"".join(islice(lines, size)):
                append(file, window)
    summary = _summarize_file(job, first, time.perf_counter() - started)
    return summary._replace(readings=_readings(str(job.prompts), read, encoder))


def _summarize_file(job: SampleJob, first: int, seconds: float) -> SampleSummary:
    """Return the summary of the output, whose rows from `first` on took these seconds."""
    written = [orjson.loads(line) for line in job.out.read_bytes().splitlines()]
    # of the tokens that best-of-N drew, the file holds only some
    drawn = summarize(written[first:]).num_tokens if job.best_of == 1 else 0
    return summarize(written)._replace(tokens_per_second=drawn / seconds or None)


def _output_lines(
    job: SampleJob,
    scorer: Scorer | None,
    rows: Iterable[PromptRow],
    sampled: Iterable[list[Completion]],
    advance: Advance,
) -> Iterator[bytes]:
    """Yield the output's line of each prompt."""
    for row, completions in zip(rows, sampled, strict=True):
        texts = [completion.text for completion in completions]
        scores = scorer and score_completions(scorer, str(job.scorer), row.prompt, texts)
        if scores is not None and job.best_of > 1:
            completions, scores = keep_best(completions, scores, job.best_of)
        items = output_items(completions, short_name(job.model))
        line = orjson.dumps(output_row(row, items, scores)) + b"\n"
        advance(1)
        yield line


def _readings(place: str, read: ReadPrompts, encoder: PromptEncoder) -> list[str]:
    """Return how prompts were read, and the first of them as the model sees it."""
    said = []
    if read.choice is not None:
        said.append(f"{place}: string prompts as {read.choice.name}: {read.choice.why}")
    spelled = sum(map(encoder.spells_token, read.prompts))
    if spelled:
        what = "steer the model" if encoder.options.control_tokens == "allow" else "are plain text"
        said.append(f"{place}: {spelled:,} prompts contain control tokens, which {what}")
    ids = encode_prompt(read.prompts[0], encoder, place)
    first = json.dumps(show_ids(encoder.target, ids), ensure_ascii=False)
    return [*said, f"The first prompt as the model sees it: {first}"]


def summarize(rows: Iterable[dict[str, Any]]) -> SampleSummary:
    completions = [completion for row in rows for completion in row["completions"]]
    scores = [completion["score"] for completion in completions if "score" in completion]
    return SampleSummary(
        num_completions=len(completions),
        num_tokens=sum(completion["num_tokens"] or 0 for completion in completions),
        num_ended=sum(completion["ended"] for completion in completions),
        mean_score=sum(scores) / len(scores) if scores else None,
    )


def _what_decides(job: SampleJob, config: SampleConfig, tokenizer: Any) -> dict[str, Any]:
    """Return all that determines the output's bytes, by the name that a mismatch reports."""
    template = orjson.dumps(tokenizer.chat_template).decode()
    day = {"date": date.today().isoformat()} if "strftime_now" in template else {}
    vocabulary = tokenizer.get_vocab() | {"chat_template": tokenizer.chat_template}
    return {
        "weights": WeightsId(job.source, None).sha256,
        "tokenizer": _sha256(orjson.dumps(vocabulary, option=orjson.OPT_SORT_KEYS)),
        "prompts": _sha256(job.prompts.read_bytes()),
        "model": short_name(job.model),
        "scorer": job.scorer,
        "best_of": job.best_of,
        "dtype": job.dtype,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **day,
        **config.model_dump(exclude={"raw"}),
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
