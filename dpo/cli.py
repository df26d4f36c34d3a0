"""The commands of dpo; their errors are one line, by prefdata's wrapper."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from dpo.display import TrainingView, bars, counted, print_scores, summary_line
from prefdata.command import Command, say
from prefdata.report.console import PlainConsole, make_bars


@click.command(cls=Command)
@click.argument("prompts", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Directory or hub name of the model.")
@click.option("-k", default=4, show_default=True, help="Completions of each prompt.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option("--scorer", help="module:function, called as f(prompts=[…], completions=[…]).")
@click.option("--temperature", default=1.0, show_default=True, help="0 is greedy decoding.")
@click.option("--top-p", default=1.0, show_default=True, help="Nucleus sampling: mass to keep.")
@click.option("--max-new-tokens", default=64, show_default=True)
@click.option("--batch-size", default=64, show_default=True, help="Completions decoded at once.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--text",
    type=click.Choice(["auto", "chat", "verbatim"]),
    default="auto",
    show_default=True,
    help="Read string prompts as chat or verbatim; auto decides by their ends, or refuses (E180).",
)
@click.option("--raw", is_flag=True, help="Same as --text verbatim.")
@click.option(
    "--control-tokens",
    type=click.Choice(["encode", "reject", "allow"]),
    default="encode",
    show_default=True,
    help="Control tokens spelled out in a prompt: plain text, an error, or tokens.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="bfloat16 is about twice as fast if the CPU has AVX512_BF16 or AMX.",
)
def sample(prompts: Path, model: str, out: Path, scorer: str, dtype: str, **options: Any) -> None:
    r"""Sample completions of the PROMPTS in a JSON Lines file, and rank them.

    \b
    A row is {"prompt": "Tell me a story."} or {"prompt": [{"role": "user", "content": "…"}]};
    its other keys are kept. A run that was killed continues where it stopped.

    \b
    Example:
      dpo-sample prompts.jsonl --model HuggingFaceTB/SmolLM2-135M-Instruct -k 4 \
          --scorer my_scorer:score -o ranked.jsonl
    """
    from dpo.sampling.run import SampleJob
    from dpo.sampling.sample import SampleConfig  # slow to import: not for --help

    sys.path.insert(0, str(Path.cwd()))  # so that a scorer here can be imported
    try:
        config = SampleConfig(**options)
    except ValidationError as error:
        fault = error.errors()[0]
        flag = "--" + str(fault["loc"][0] if fault["loc"] else "raw").replace("_", "-")
        raise click.BadParameter(fault["msg"], param_hint=flag) from error
    _sample(SampleJob(prompts, model, out, scorer, dtype), config)


def _sample(job: Any, config: Any) -> None:
    """Run a job under a progress bar and print its summary."""
    from transformers.utils.logging import disable_progress_bar

    from dpo.sampling.run import sample_file

    disable_progress_bar()  # type: ignore[no-untyped-call]
    console = PlainConsole(stderr=True)
    columns = (TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    started, sampled = time.perf_counter(), 0
    with make_bars(console, *columns, TextColumn("{task.fields[speed]}")) as progress:
        task = progress.add_task("", total=None, speed="")

        def on_prompt(done: int, total: int, tokens: int) -> None:
            nonlocal started, sampled
            if tokens == 0:
                started = time.perf_counter()  # the speed excludes loading
            sampled += tokens
            speed = sampled / (time.perf_counter() - started)
            progress.update(task, completed=done, total=total, speed=f"{speed:,.0f} tokens/s")

        summary = sample_file(job, config, on_prompt, say)
        seconds = time.perf_counter() - started
    for line in summary.readings:
        say(line)
    rate = f", {sampled / seconds:,.0f} tokens/s" if sampled else ""
    say(
        f"{job.out}: {summary.num_completions:,} completions of"
        f" {summary.num_tokens / summary.num_completions:.1f} tokens on average{rate};"
        f" {summary.num_ended / summary.num_completions:.0%} ended by the model"
        + ("" if summary.mean_score is None else f"; mean score {summary.mean_score:.4f}")
    )


@click.command(cls=Command)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Directory or hub name of the reference model.")
@click.option("--name", default="default", show_default=True, help="Directory in DATA/reference.")
@click.option(
    "--mixed-precision",
    type=click.Choice(["no", "bf16", "fp16"]),
    default="no",
    show_default=True,
    help="Must equal that of the training config.",
)
@click.option("--pack-tokens", default=2048, show_default=True, help="Tokens per forward pass.")
@click.option("--push", "shares", is_flag=True, help="Add them to DATA, a dataset on the Hub.")
@click.option("--public", is_flag=True, help="Let --push change a public repo.")
def ref(data: Path, *, shares: bool, public: bool, **options: Any) -> None:
    r"""Compute reference log-probs of the pairs in DATA, a build's directory or ORG/NAME.

    \b
    They are written next to the shards, one file per shard. A killed run continues within the
    file, at most some hundred prompts back; a finished one is not changed.

    \b
    Example:
      dpo-ref builds/hh --model HuggingFaceTB/SmolLM2-135M-Instruct
      dpo-ref ORG/hh-pairs --model HuggingFaceTB/SmolLM2-135M-Instruct --name smollm --push
    """
    from transformers.utils.logging import disable_progress_bar  # torch takes seconds

    from dpo.reference_pass import compute_reference
    from prefdata.hub.inputs import is_hub_name
    from prefdata.sharing.local import pull_cached, push_references
    from prefdata.sharing.push import say_pushed

    disable_progress_bar()  # type: ignore[no-untyped-call]
    named = str(data) if is_hub_name(str(data)) else None
    if public and not shares:
        raise click.UsageError("--public needs --push")
    if shares and named is None:
        raise click.UsageError("--push adds to a dataset on the Hub: name DATA as ORG/NAME")
    pinned = ""
    if named is not None:
        data, pinned = pull_cached(named)
    started = time.perf_counter()
    with counted("reference") as progress:
        manifest = compute_reference(data, progress=progress, **options)
    for on_message in manifest.notices:
        click.echo(on_message, err=True)
    rows, tokens = (sum(getattr(s, n) for s in manifest.shards) for n in ("rows", "tokens"))
    say(
        f"{data}/reference/{options['name']}: {rows:,} pairs of {tokens:,} tokens under"
        f" {manifest.model} in {time.perf_counter() - started:,.1f} s;"
        f" prompts {'shared' if manifest.shared_prompts else 'not shared'}"
    )
    if shares:
        for line in say_pushed(*push_references(data, pinned, public=public)):
            say(line)


def _list_losses(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    """Print every loss with its settings, and exit."""
    if not wanted or context.resilient_parsing:
        return
    from dpo.loss import LOSSES, settings  # torch takes seconds

    for name, loss in LOSSES.items():
        given = ", ".join(f"{key} {value:g}" for key, value in settings(name).items())
        say(f"{name:18}{given}")
        say(f"{'':18}{(loss.__doc__ or '').splitlines()[0]}")
    context.exit()


@click.command(cls=Command)
@click.option(
    "--list-losses",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_losses,
    help="Print every loss with its settings and their defaults, and exit.",
)
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--push", metavar="ORG/NAME", help="Publish the model on the Hub at the end.")
@click.option("--public", is_flag=True, help="Make the pushed repository public.")
@click.option("--replace", is_flag=True, help="Let --push remove files that no push made.")
def train(
    config: Path, overrides: tuple[str, ...], push: str | None, *, public: bool, replace: bool
) -> None:
    r"""Train a policy as the YAML file CONFIG says; KEY=VALUE changes a setting.

    \b
    A killed run resumes from its last checkpoint. SIGTERM and Ctrl-C end it after the current
    step, with a checkpoint and exit code 143 or 130; a second signal ends it at once.

    \b
    Examples:
      dpo-train train.yaml
      dpo-train train.yaml loss.beta=0.2 optimizer.learning_rate=5e-7 out=runs/beta-0.2
      torchrun --nproc-per-node 2 -m dpo train.yaml
      dpo-train train.yaml --push org/name
      accelerate launch --config_file pipelines/accelerate/fsdp2.yaml -m dpo train.yaml
    """
    from transformers.utils.logging import disable_progress_bar

    from dpo.artifacts.hub import check_target, push_model
    from dpo.config_file import read_config
    from dpo.training.loop import train as run

    disable_progress_bar()  # type: ignore[no-untyped-call]
    sys.path.insert(0, str(Path.cwd()))  # so that a loss here can be imported
    settings = read_config(config, overrides)
    is_main = os.environ.get("RANK", "0") == "0"  # one of several processes prints
    if (public or replace) and push is None:
        raise click.UsageError("--public and --replace need --push")
    if push is not None and is_main:
        check_target(push, public=public, replace=replace)
    view = TrainingView(settings.out, is_shown=is_main)
    with view:
        finished = run(settings, report=view.report, on_message=view.on_message)
    if finished.summary is None:
        line = f"{settings.out}: stopped after step {finished.steps:,}; run again to continue"
        if is_main:
            say(line, err=True)
        sys.exit(128 + (finished.stopped_by or 0))
    if is_main:
        say(summary_line(finished.out, finished.summary))
    if push is not None and is_main:
        model, summary = settings.out / "model", finished.summary
        say(push_model(model, push, summary, public=public, replace=replace))


@click.command(cls=Command)
@click.argument("model")
@click.argument("data", nargs=-1, required=True)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory to write."
)
@click.option("--reference", help="Reference model; default: the build's stored log-probs.")
@click.option("--reference-name", help="Name of those stored log-probs.")
@click.option("--beta", default=0.1, show_default=True, help="The β that MODEL was trained with.")
@click.option("--by", "subsets", multiple=True, metavar="KEY", help="Accuracy by a key of meta.")
@click.option(
    "--suspects",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="List at most this share of the pairs.",
)
@click.option("--mixed-precision", type=click.Choice(["no", "bf16", "fp16"]), default="no")
@click.option(
    "--text",
    type=click.Choice(["auto", "chat", "verbatim"]),
    default="auto",
    show_default=True,
    help="Read plain-text files as chat or verbatim; auto decides by evidence, or refuses (E180).",
)
def score(model: str, data: tuple[str, ...], out: Path, **options: Any) -> None:
    r"""Score the pairs of DATA, a build or preference files, by MODEL's implicit rewards.

    \b
    The reward of a completion is β·(log-prob under MODEL − log-prob under the reference). Writes
    scores.parquet, suspects.jsonl (pairs whose label MODEL contradicts) and score.json.

    \b
    Examples:
      dpo-score runs/hh/model held_out.jsonl --reference Qwen/Qwen3-0.6B -o scores
      dpo-score runs/hh/model builds/hh -o scores --by category
    """
    from transformers.utils.logging import disable_progress_bar  # torch takes seconds

    from dpo.scoring.run import ScoreOptions
    from dpo.scoring.run import score as run

    disable_progress_bar()  # type: ignore[no-untyped-call]
    with bars() as progress:
        report = run(data, out, ScoreOptions(model=model, **options), progress=progress)
    print_scores(report)
    say(f"{out}/scores.parquet, suspects.jsonl and score.json are written")
