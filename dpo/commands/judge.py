"""`dpo-judge`: verdicts on completions, and how they agree with labels and with each other."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpo.commands.command import PATH, ModelCommand, choice
from dpo.commands.server import SERVER_OPTIONS, require_not_given, server_from, server_options
from dpo.display import Bars
from prefdata.command import say

if TYPE_CHECKING:
    from dpo.judging.agreement import Agreement, VerdictCounts
    from prefdata.check.sets.statistics import Estimate

_OF_A_MODEL = ("template", "temperature", "max_new_tokens", "seed")


@click.command(cls=ModelCommand)
@click.argument("file", required=False)
@server_options
@click.option(
    "--template",
    default="pairwise",
    show_default=True,
    metavar="NAME",
    help="pairwise, rating or ranking, or a YAML file of your own.",
)
@click.option("--scorer", help="Judge by module:function or reward-model:NAME, not by a server.")
@click.option("-o", "--out", type=PATH, help="File of verdicts to write.")
@click.option("--validate", metavar="FILE", help="Compare the verdicts with the labels of a file.")
@click.option("--compare", metavar="FILE", help="Compare the verdicts with those of another file.")
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy decoding.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=1024, show_default=True,
    help="Longest reply; one that is cut is not read.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@choice(
    "--text",
    ["auto", "chat", "verbatim"],
    "Read pairs of plain text as chat or verbatim; auto decides by evidence, or refuses (E180).",
)
def judge(file: str | None, *, out: Path | None, **options: Any) -> None:
    r"""Judge the completions in FILE, or compare the verdicts that FILE has.

    \b
    FILE has candidates, as dpo-sample writes them, or preferences in any layout, whose labels are
    kept and not shown to the judge. Pairs are judged in both orders; two different verdicts are a
    tie. `prefdata build` reads the verdicts. A run that was killed continues where it stopped.

    \b
    Examples:
      dpo-judge samples.jsonl --server http://localhost:8000 -o verdicts.jsonl
      dpo-judge --validate labelled.jsonl --server http://localhost:8000 -o verdicts.jsonl
      dpo-judge verdicts.jsonl --compare others.jsonl
    """
    from dpo.training.distributed import require_one_process

    require_one_process("dpo-judge")
    sys.path.insert(0, str(Path.cwd()))  # so that a scorer here can be imported
    validate, compare, text = (options.pop(name) for name in ("validate", "compare", "text"))
    verdicts = _judged(file or validate, out, text, options)
    if verdicts is None:
        if file is None or (validate is None and compare is None):
            raise click.UsageError("give FILE and a judge, or FILE and --validate or --compare")
        verdicts = file
    for line in _lines(verdicts, validate, compare, text):
        say(line)


def _judged(file: str | None, out: Path | None, text: Any, options: dict[str, Any]) -> str | None:
    """Judge a file; return the name of the verdicts, or None if no judge is given."""
    server, scorer = server_from(options), options.pop("scorer")
    if server is None:
        require_not_given(SERVER_OPTIONS, "has no effect without --server")
        require_not_given(_OF_A_MODEL, "has no effect without --server")
    if server is None and scorer is None:
        require_not_given(["out"], "has no effect without --server or --scorer")
        return None
    if server is not None and scorer is not None:
        raise click.UsageError("give one of --server and --scorer")
    if file is None or out is None:
        raise click.UsageError("give a file to judge and --out")
    from dpo.judging.run import JudgeJob, judge_file
    from dpo.server.generate import Decoding

    decoding = Decoding(options["temperature"], max_new_tokens=options["max_new_tokens"])
    job = JudgeJob(file, out, server, options["template"], scorer, decoding, options["seed"], text)
    with Bars() as progress:
        notes = judge_file(job, progress)
    for note in notes:
        say(note)
    return str(out)


def _lines(verdicts: str, validate: str | None, compare: str | None, text: Any) -> Iterator[str]:
    """Yield the summary of a file of verdicts, and its agreement with others."""
    from dpo.judging.agreement import agree, count_verdicts, preferences
    from dpo.judging.candidates import read_candidates

    rows = read_candidates(verdicts, text).rows
    yield from _summary(verdicts, count_verdicts(rows))
    for name, what in ((validate, "labels"), (compare, "verdicts")):
        if name is not None:
            others = preferences(read_candidates(name, text).rows)
            found = agree(preferences(rows), others, (verdicts, name))
            found = found if what == "labels" else found._replace(accuracy=None)
            yield from _agreement(f"against the {what} of {name}", found)


def _summary(name: str, counts: "VerdictCounts") -> Iterator[str]:
    decided = counts.num_pairs - counts.num_ties
    flips = f" ({counts.num_flips:,} as the orders disagree)" if counts.bias is not None else ""
    yield (
        f"{name}: {counts.num_rows:,} rows, {counts.num_verdicts:,} verdicts; of"
        f" {counts.num_pairs:,} readable pairs {decided:,} are decided,"
        f" {counts.num_ties:,} are ties{flips}"
    )
    yield (
        f"unreadable: {counts.num_unreadable:,} verdicts, which leave"
        f" {counts.num_unreadable_rows:,} rows without ranks"
    )
    if counts.bias is not None:
        yield (
            f"position bias: the answer shown first wins {_percent(counts.bias)} of the verdicts"
            " without ties; 50 % is none (bootstrap over prompts)"
        )


def _agreement(what: str, found: "Agreement") -> Iterator[str]:
    missing = f"; {found.num_missing:,} are in only one file" if found.num_missing else ""
    yield f"{what}: {found.num_pairs:,} pairs of {found.num_prompts:,} prompts{missing}"
    if found.accuracy is not None:
        yield f"  accuracy {_percent(found.accuracy)}, ties count half (Wilson, over prompts)"
    yield f"  same outcome {_percent(found.agreement)}, ties are an outcome (Wilson, over prompts)"
    kappa = found.kappa
    if kappa.value == kappa.value:
        interval = f"{kappa.low:.3f} to {kappa.high:.3f}"
        yield f"  Cohen's κ {kappa.value:.3f} (95 %: {interval}; bootstrap over prompts)"
    else:
        yield "  Cohen's κ is not defined: both have one and the same outcome throughout"


def _percent(found: "Estimate") -> str:
    return f"{found.value:.1%} (95 %: {found.low:.1%} to {found.high:.1%})"
