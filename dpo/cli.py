"""The commands of dpo; their errors are one line, by prefdata's wrapper."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dpo.commands.command import PATH, ModelCommand, TrainCommand, choice, is_main
from dpo.commands.judge import judge
from dpo.commands.sample import sample
from dpo.display import Bars, TrainingBar, print_scores, summary_line
from prefdata.command import completes, say
from prefdata.settings import key_paths

__all__ = ["export", "judge", "ref", "report", "sample", "score", "train"]


@click.command(cls=ModelCommand)
@click.argument("data", type=PATH)
@click.option("--model", required=True, help="Directory or hub name of the reference model.")
@click.option("--adapter", help="LoRA adapter on it: a directory or hub name.")
@click.option("--name", default="default", show_default=True, help="Directory in DATA/reference.")
@click.option(
    "--weights",
    type=click.Choice(["float32", "bfloat16"]),
    help="Dtype that holds the weights; must equal that of the training.  [default: float32]",
)
@click.option(
    "--quantize",
    type=click.Choice(["nf4", "int8"]),
    help="Form that holds linear layers; must equal that of the training config.",
)
@click.option(
    "--mixed-precision",
    type=click.Choice(["no", "bf16", "fp16"]),
    help="Must equal that of the training.  [default: bf16 on a GPU that has it, else no]",
)
@click.option(
    "--pack-tokens",
    type=click.IntRange(min=1),
    help="Tokens per forward pass.  [default: 2048 on a CPU, 16384 on a GPU]",
)
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
      torchrun --nproc-per-node 2 --no-python dpo-ref builds/hh --model ./llama
    """
    from dpo.model.source import ModelSource
    from dpo.reference_pass import compute_reference
    from dpo.training.distributed import join_processes
    from prefdata.hub.inputs import is_hub_name
    from prefdata.sharing.local import pull_cached, push_references
    from prefdata.sharing.push import say_pushed

    named = str(data) if is_hub_name(str(data)) else None
    if public and not shares:
        raise click.UsageError("--public needs --push")
    if shares and named is None:
        raise click.UsageError("--push adds to a dataset on the Hub: name DATA as ORG/NAME")
    pinned = ""
    if named is not None:
        with join_processes().main_process_first():  # one process fetches it
            data, pinned = pull_cached(named)
    names = ("model", "adapter", "weights", "quantize")
    model = ModelSource(*(options.pop(name) for name in names))
    started = time.perf_counter()
    with Bars() as progress:
        manifest = compute_reference(data, model=model, progress=progress, **options)
    if not is_main():
        return
    rows, tokens = (sum(getattr(s, n) for s in manifest.shards) for n in ("rows", "tokens"))
    say(
        f"{data}/reference/{options['name']}: {rows:,} pairs of {tokens:,} tokens under"
        f" {manifest.model} in {time.perf_counter() - started:,.1f} s;"
        f" prompts {'shared' if manifest.shared_prompts else 'not shared'}"
    )
    if shares:
        for line in say_pushed(*push_references(data, pinned, public=public)):
            say(line)


def _setting_names() -> Iterator[str]:
    """Yield every setting of a run as the beginning of KEY=VALUE, those of groups with dots."""
    from dpo.config import TrainConfig

    yield from (f"{name}=" for name in key_paths(TrainConfig))


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


@click.command(cls=ModelCommand)
@click.option(
    "--list-losses",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_losses,
    help="Print every loss with its settings and their defaults, and exit.",
)
@click.argument("config", type=PATH)
@click.argument(
    "overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=completes(_setting_names)
)
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
    from dpo.artifacts.hub import check_target, push_model
    from dpo.config_file import read_config
    from dpo.training.loop import train as run

    sys.path.insert(0, str(Path.cwd()))  # so that a loss here can be imported
    settings = read_config(config, overrides)
    is_first = is_main()
    if (public or replace) and push is None:
        raise click.UsageError("--public and --replace need --push")
    if push is not None and is_first:
        check_target(push, public=public, replace=replace)
    with TrainingBar(settings.out, is_shown=is_first) as bar:
        finished = run(settings, report=bar.report, on_message=bar.note)
    if finished.summary is None:
        line = f"{settings.out}: stopped after step {finished.steps:,}; run again to continue"
        if is_first:
            say(line, err=True)
        sys.exit(128 + (finished.stopped_by or 0))
    if is_first:
        say(summary_line(finished.out, finished.summary))
    if push is not None and is_first:
        what, summary = "model" if settings.save.merged else "adapter", finished.summary
        model = settings.out / what
        say(push_model(model, push, summary, public=public, replace=replace))


def _step(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """Return a step as a number, or `best`."""
    if value in (None, "best"):
        return value
    if not (value or "").isdecimal():
        raise click.BadParameter("is a number of steps, or best")
    return int(value or "")


@click.command(cls=ModelCommand)
@click.argument("run", type=PATH)
@click.option("-o", "--out", required=True, type=PATH, metavar="DIR", help="Directory to write.")
@click.option("--step", callback=_step, help="A step, or best (keep_best); default: the newest.")
@click.option(
    "--merged/--adapter",
    default=True,
    show_default=True,
    help="A whole model, or only the adapter of a run with lora.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Dtype of the model; default: that of its base.",
)
def export(run: Path, out: Path, *, merged: bool, **options: Any) -> None:
    r"""Write a checkpoint of RUN, the output of dpo-train, as a model.

    \b
    RUN may be finished, stopped or still running. The model has the files, names and dtypes of
    its base; it is read back and compared before DIR appears.

    \b
    Examples:
      dpo-export runs/hh -o models/hh-newest
      dpo-export runs/hh --step best -o models/hh --dtype bfloat16
      dpo-export runs/lora --step 200 --adapter -o models/lora-200
    """
    from dpo.training.export import export as write

    if options["dtype"] is not None and not merged:
        raise click.UsageError("--dtype is that of a whole model, not of --adapter")
    done = write(run, out, form="merged" if merged else "adapter", **options)
    for line in done.notices:
        say(line)
    say(f"{out}: the {'model' if merged else 'adapter'} of step {done.step:,} of {run}")


@click.command(cls=ModelCommand)
@click.argument("model")
@click.argument("data", nargs=-1, required=True)
@click.option("-o", "--out", required=True, type=PATH, metavar="DIR", help="Directory to write.")
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
@choice("--mixed-precision", ["no", "bf16", "fp16"], "Precision of the forward passes.")
@choice(
    "--text",
    ["auto", "chat", "verbatim"],
    "Read plain-text files as chat or verbatim; auto decides by evidence, or refuses (E180).",
)
def score(model: str, data: tuple[str, ...], out: Path, **options: Any) -> None:
    r"""Score the pairs of DATA by MODEL's implicit rewards.

    \b
    DATA is one build, or what `prefdata` reads: files, globs, directories, sets of the Hub, URLs.
    The reward of a completion is β·(log-prob under MODEL − log-prob under the reference). Writes
    scores.parquet, suspects.jsonl (pairs whose label MODEL contradicts) and score.json.

    \b
    Examples:
      dpo-score runs/hh/model held_out.jsonl --reference Qwen/Qwen3-0.6B -o scores
      dpo-score runs/hh/model builds/hh -o scores --by category
    """
    from dpo.scoring.run import ScoreOptions
    from dpo.scoring.run import score as run
    from dpo.training.distributed import require_one_process

    require_one_process("dpo-score")
    with Bars() as progress:
        report = run(data, out, ScoreOptions(model=model, **options), progress=progress)
    print_scores(report)
    say(f"{out}/scores.parquet, suspects.jsonl and score.json are written")


@click.command(cls=TrainCommand)
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN RUN...")
@click.option(
    "-o", "--out", type=PATH, default="comparison.html", show_default=True, help="Page to write."
)
def report(runs: tuple[Path, ...], out: Path) -> None:
    r"""Compare runs of dpo-train on one page: final metrics, settings that differ, curves.

    \b
    A RUN is the `out` of a run: finished, or stopped or running with a checkpoint. Each run has a
    page of its own, report.html.

    \b
    Examples:
      dpo-report runs/beta-0.1 runs/beta-0.5
      dpo-report runs/* -o pages/all.html
    """
    from dpo.artifacts.report.compare import final_numbers
    from dpo.training.compare import compare

    for run in compare(runs, out):
        say(f"{run.name}: {', '.join(f'{name} {value}' for name, value in final_numbers(run))}")
    say(f"{out} compares {len(runs)} runs")
