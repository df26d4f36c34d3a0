"""A `dpo-sample` run with a model on a server: prompts in, a ranked file out.

Prompts are asked for concurrently, and each row is kept as soon as it is finished. The server
decides how a chat becomes tokens, so the same seed may give other completions on another server.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from dpo.sampling.best_of import keep_best
from dpo.sampling.files import Journal, PromptRow, check_out, journal, output_row, read_prompts
from dpo.sampling.run import SampleSummary, summarize
from dpo.sampling.sample import ReadPrompts, SampleConfig, read_by
from dpo.sampling.scorer import load_scorer, score_completions
from dpo.server.client import Client, Server
from dpo.server.generate import Answer, Decoding, Generator, choose_model
from prefdata.progress import Progress, Silent
from prefdata.read.texts import TextRule
from prefdata.store.commit import sha256_file
from prefdata.store.ownership import Read

_NOT_OF_A_SERVER = {"raw", "batch_size", "control_tokens"}


class ServerJob(NamedTuple):
    """Inputs and output of one run."""

    prompts: Path
    server: Server
    out: Path
    scorer: str | None = None
    best_of: int = 1
    """Completions asked for for each of `k`, of which the one with the highest score is kept."""


def sample_from_server(
    job: ServerJob, config: SampleConfig, progress: Progress | None = None
) -> SampleSummary:
    """Ask for completions, score and write them; the bar counts prompts."""
    check_out(job.out, [Read("the prompts", job.prompts)])
    rows = read_prompts(job.prompts)
    rule = TextRule(config.mode, has_template=True)
    read = read_by([row.prompt for row in rows], rule, str(job.prompts))
    rows = [row._replace(prompt=prompt) for row, prompt in zip(rows, read.prompts, strict=True)]
    if read.choice is not None:
        config = config.model_copy(update={"text": read.choice.name, "raw": False})
    notes = asyncio.run(_Sampling(job, config, rows).run(progress or Silent()))
    written = [orjson.loads(line) for line in job.out.read_bytes().splitlines()]
    said = [*_readings(str(job.prompts), read), *notes, *_not_given(written)]
    said += _equal(written, config.temperature)
    return summarize(written)._replace(readings=said)


class _Sampling:
    """One run: its scorer, and its model once the server has named it."""

    def __init__(self, job: ServerJob, config: SampleConfig, rows: Sequence[PromptRow]) -> None:
        self.job, self.config, self.rows = job, config, rows
        self.scorer = load_scorer(job.scorer) if job.scorer else None
        self._scoring = ThreadPoolExecutor(1)  # requests go on meanwhile

    async def run(self, progress: Progress) -> list[str]:
        """Write the output; return what the server did not accept."""
        config = self.config
        async with Client(self.job.server) as client:
            model = await choose_model(client)
            settings = {"model": model, **config.model_dump(exclude=_NOT_OF_A_SERVER)}
            decides = {
                "command": "dpo-sample --server",
                "prompts": sha256_file(self.job.prompts),
                "scorer": self.job.scorer,
                "best_of": self.job.best_of,
                **settings,
            }
            decoding = Decoding(config.temperature, config.top_p, config.max_new_tokens)
            generator = Generator(client, model, decoding)

            async def work(at: int) -> bytes:
                return await self._row(at, generator, settings)

            with (
                self._scoring,
                progress.bar("sampling", len(self.rows)) as advance,
                journal(self.job.out, decides, len(self.rows)) as kept,
            ):
                await finish_rows(kept, len(self.rows), work, advance, self.job.server.concurrency)
        return generator.dialect.notes()

    async def _row(self, at: int, generator: Generator, settings: dict[str, Any]) -> bytes:
        row, place = self.rows[at], f"{self.job.prompts}:{self.rows[at].line}"
        num = self.config.k * self.job.best_of
        seeds = [seed_of(self.config.seed, at, number) for number in range(num)]
        answers = await generator.complete(row.prompt, seeds, place)
        scores = None
        if self.scorer is not None:
            texts = [answer.text for answer in answers]
            scores = await asyncio.get_running_loop().run_in_executor(
                self._scoring, score_completions,
                self.scorer, str(self.job.scorer), row.prompt, texts,
            )  # fmt: skip
            if self.job.best_of > 1:
                answers, scores = keep_best(answers, scores, self.job.best_of)
        line = output_row(row, [_item(answer) for answer in answers], scores)
        return orjson.dumps({**line, "sampled_with": settings})


async def finish_rows(
    kept: Journal,
    num_rows: int,
    work: Callable[[int], Awaitable[bytes]],
    advance: Callable[[int], None],
    concurrency: int,
) -> None:
    """Make every row that is not in the journal; the first alone, to fail or learn only once."""
    todo = iter(sorted(set(range(num_rows)) - kept.done))
    advance(len(kept.done))

    async def make(places: Iterator[int]) -> None:
        for at in places:
            kept.keep(at, await work(at))
            advance(1)

    if (first := next(todo, None)) is not None:
        await make(iter([first]))
    workers = [asyncio.create_task(make(todo)) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def seed_of(seed: int, row: int, completion: int) -> int:
    """Return the seed of a completion: 31 bits of a hash of seed, row and completion."""
    digest = hashlib.blake2b(b"%d %d %d" % (seed, row, completion), digest_size=4).digest()
    return int.from_bytes(digest) >> 1


def _item(answer: Answer) -> dict[str, Any]:
    item = {
        "text": answer.text,
        "model": answer.model,
        "logp": None if answer.logp is None else round(answer.logp, 4),
        "num_tokens": answer.num_tokens,
        "ended": answer.ended,
    }
    return item if answer.reasoning is None else {**item, "reasoning": answer.reasoning}


def _readings(place: str, read: ReadPrompts) -> list[str]:
    if read.choice is None:
        return []
    return [f"{place}: string prompts as {read.choice.name}: {read.choice.why}"]


def _not_given(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return lines about values that the server did not give."""
    completions = [completion for row in rows for completion in row["completions"]]
    said = []
    for name, what in (("logp", "no log-probs"), ("num_tokens", "no number of tokens")):
        missing = sum(completion[name] is None for completion in completions)
        if missing:
            share = f"{missing:,} of {len(completions):,} completions"
            said.append(f"`{name}` is null in {share}: the server gives {what}")
    return said


def _equal(rows: Sequence[dict[str, Any]], temperature: float) -> list[str]:
    """Return a line if most prompts have equal completions that should differ."""
    several = [row["completions"] for row in rows if len(row["completions"]) > 1]
    equal = sum(len({one["text"] for one in some}) == 1 for some in several)
    if temperature == 0 or 2 * equal <= len(several):
        return []
    return [
        f"all completions of {equal:,} of {len(several):,} prompts are equal at temperature"
        f" {temperature:g}: the server may ignore `temperature` or `seed`"
    ]
