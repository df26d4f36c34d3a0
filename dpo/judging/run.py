"""A `dpo-judge` run: candidates in, verdicts out, row by row.

The judge is a server's model with a template, or a scorer: `module:function` or a reward model,
whose scores are ratings. A killed run continues with the rows that are missing.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from dpo.errors import UsageError
from dpo.judging.candidates import CandidateRow, read_candidates
from dpo.judging.template import LABELS, Template, load_template
from dpo.judging.verdicts import Question, judged_row, questions, read_answer, verdict_of
from dpo.sampling.files import check_out, journal
from dpo.sampling.from_server import finish_rows, seed_of
from dpo.sampling.scorer import REWARD_MODEL, Scorer, load_scorer, score_all
from dpo.server.client import Client, Server
from dpo.server.generate import Answer, Decoding, Generator, choose_model
from prefdata.progress import Progress, Silent
from prefdata.read.texts import TextMode
from prefdata.store.commit import sha256_file
from prefdata.store.ownership import Read

TRIES = 3  # requests for one verdict, until it is readable
_SCORED_ROWS = 64  # rows that a reward model gets at once, to batch texts of similar length


class JudgeJob(NamedTuple):
    """Inputs and output of one run; the judge is a server or a scorer."""

    candidates: str
    out: Path
    server: Server | None = None
    template: str = "pairwise"
    """Name of a shipped template, or a YAML file."""
    scorer: str | None = None
    decoding: Decoding = Decoding(temperature=0.0, max_new_tokens=1024)
    seed: int = 0
    text: TextMode = "auto"


def judge_file(job: JudgeJob, progress: Progress | None = None) -> list[str]:
    """Judge every row and write the verdicts; return notes on how the input was read."""
    progress = progress or Silent()
    check_out(job.out, [Read("the candidates", Path(job.candidates))], "dpo-judge")
    template = load_template(job.template) if job.server else None
    found = read_candidates(job.candidates, job.text)
    check_out(job.out, [Read("the candidates", path) for path in found.paths], "dpo-judge")
    least = 1 if template is None or template.kind == "rating" else 2
    most = len(LABELS) if template is not None and template.kind == "ranking" else None
    for row in found.rows:
        _require_fit(row, least, most)
    inputs = hashlib.sha256("".join(map(sha256_file, found.paths)).encode()).hexdigest()
    decides = {"command": "dpo-judge", "candidates": inputs, "text": job.text}
    if job.server is None:
        _score(job, found.rows, decides, progress)
        return found.notes
    notes = asyncio.run(_Judging(job, found.rows, decides, progress).run())
    return [*found.notes, *notes]


def _require_fit(row: CandidateRow, least: int, most: int | None) -> None:
    num = len(row.candidates)
    if num < least:
        remedy = "sample more (-k), leave the row out, or use --template rating"
        raise UsageError("T185", row.place, f"has {num} completions to compare", remedy)
    if most is not None and num > most:
        remedy = "use --template pairwise or rating"
        raise UsageError("T185", row.place, f"has {num} completions, above {most}", remedy)


def _score(job: JudgeJob, rows: list[CandidateRow], decides: Any, progress: Progress) -> None:
    """Let a scorer rate the completions of each row."""
    name = str(job.scorer)
    scorer = load_scorer(name)
    judge = {"scorer": name}
    with (
        progress.bar("judging", len(rows)) as advance,
        journal(job.out, decides | judge, len(rows)) as kept,
    ):
        advance(len(kept.done))
        todo = sorted(set(range(len(rows))) - kept.done)
        size = _SCORED_ROWS if name.startswith(REWARD_MODEL) else 1
        for start in range(0, len(todo), size):
            places = todo[start : start + size]
            lines = _scored([rows[at] for at in places], scorer, name, judge)
            for at, line in zip(places, lines, strict=True):
                kept.keep(at, line)
                advance(1)


def _scored(
    rows: list[CandidateRow], scorer: Scorer, name: str, judge: dict[str, Any]
) -> Iterator[bytes]:
    """Yield the output's line of each row, all scored in one call."""
    pairs = [(row.prompt, candidate.text) for row in rows for candidate in row.candidates]
    prompts, texts = [prompt for prompt, _ in pairs], [text for _, text in pairs]
    scores = iter(score_all(scorer, name, prompts, texts))
    for row in rows:
        verdicts = [
            {"of": at, "verdict": score, "text": None}
            for at, score in enumerate(islice(scores, len(row.candidates)))
        ]
        yield orjson.dumps(judged_row(row, verdicts, judge))


class _Judging:
    """One run with a server, and what its judge is."""

    def __init__(
        self, job: JudgeJob, rows: list[CandidateRow], decides: dict[str, Any], progress: Progress
    ) -> None:
        self.job, self.rows, self.decides, self.progress = job, rows, decides, progress
        self.template: Template = load_template(job.template)
        self.num_cut = 0

    async def run(self) -> list[str]:
        """Write the output; return what the server did not accept."""
        job = self.job
        assert job.server is not None
        async with Client(job.server) as client:
            model = await choose_model(client)
            generator = Generator(client, model, job.decoding, logprobs=False)
            judge = {
                "model": model,
                "template": self.template.name,
                "template_sha256": self.template.sha256,
                **job.decoding._asdict(),
                "seed": job.seed,
            }

            async def work(at: int) -> bytes:
                return await self._row(at, generator, judge)

            with (
                self.progress.bar("judging", len(self.rows)) as advance,
                journal(job.out, self.decides | judge, len(self.rows)) as kept,
            ):
                await finish_rows(kept, len(self.rows), work, advance, job.server.concurrency)
        notes = [note for note in generator.dialect.notes() if "`n`" not in note]
        if self.num_cut:
            said = f"{self.num_cut:,} replies were cut at {job.decoding.max_new_tokens:,} tokens"
            notes.append(f"{said} and not read: raise --max-new-tokens")
        return notes

    async def _row(self, at: int, generator: Generator, judge: dict[str, Any]) -> bytes:
        row = self.rows[at]
        verdicts = [
            await self._verdict(at, number, question, generator)
            for number, question in enumerate(questions(row, self.template))
        ]
        return orjson.dumps(judged_row(row, verdicts, judge))

    async def _verdict(
        self, at: int, number: int, question: Question, generator: Generator
    ) -> dict[str, Any]:
        """Return the verdict on one question, asked again while it is unreadable."""
        answers: list[Answer] = []
        while len(answers) < TRIES:
            seed = seed_of(self.job.seed, at, number * TRIES + len(answers))
            place = self.rows[at].place
            answers += await generator.complete(question.messages, [seed], place)
            if read_answer(question, answers[-1]) is not None:
                break
            self.num_cut += not answers[-1].ended
        return verdict_of(question, answers)
