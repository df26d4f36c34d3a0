"""`dpo-sample`: completions of prompts, ranked by a scorer."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from dpo.commands.command import PATH, ModelCommand, choice
from dpo.commands.server import SERVER_OPTIONS, require_not_given, server_from, server_options
from dpo.display import Bars
from prefdata.command import say

if TYPE_CHECKING:
    from dpo.sampling.sample import SampleConfig
    from dpo.server.client import Server

_LOCAL = ("adapter", "batch_size", "control_tokens", "dtype")


@click.command(cls=ModelCommand)
@click.argument("prompts", type=PATH)
@click.option("--model", help="Directory or hub name of the model.")
@click.option("--adapter", help="LoRA adapter on it: a directory or hub name.")
@server_options
@click.option("-k", default=4, show_default=True, help="Completions of each prompt.")
@click.option("-o", "--out", required=True, type=PATH, help="File to write.")
@click.option(
    "--scorer",
    help="module:function, called as f(prompts=[…], completions=[…]), or reward-model:NAME.",
)
@click.option(
    "--best-of",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Completions drawn for each of -k, of which the best by --scorer is kept.",
)
@click.option("--temperature", default=1.0, show_default=True, help="0 is greedy decoding.")
@click.option("--top-p", default=1.0, show_default=True, help="Nucleus sampling: mass to keep.")
@click.option("--max-new-tokens", default=64, show_default=True)
@click.option("--batch-size", default=64, show_default=True, help="Completions decoded at once.")
@click.option("--seed", default=0, show_default=True)
@choice(
    "--text",
    ["auto", "chat", "verbatim"],
    "Read string prompts as chat or verbatim; auto decides by their ends, or refuses (E180).",
)
@click.option("--raw", is_flag=True, help="Same as --text verbatim.")
@choice(
    "--control-tokens",
    ["encode", "reject", "allow"],
    "Control tokens spelled out in a prompt: plain text, an error, or tokens.",
)
@choice(
    "--dtype",
    ["float32", "bfloat16"],
    "bfloat16 is about twice as fast if the CPU has AVX512_BF16 or AMX.",
)
def sample(prompts: Path, *, model: str | None, out: Path, scorer: str, **options: Any) -> None:
    r"""Sample completions of the PROMPTS in a JSON Lines file, and rank them.

    \b
    A row is {"prompt": "Tell me a story."} or {"prompt": [{"role": "user", "content": "…"}]};
    its other keys are kept. A run that was killed continues where it stopped. The model is one
    that is loaded here (--model), or one of an OpenAI-compatible server (--server).

    \b
    Example:
      dpo-sample prompts.jsonl --model HuggingFaceTB/SmolLM2-135M-Instruct -k 4 \
          --scorer my_scorer:score -o ranked.jsonl
      dpo-sample prompts.jsonl --server http://localhost:8000 -k 4 -o samples.jsonl
    """
    from dpo.sampling.run import SampleJob, sample_file
    from dpo.training.distributed import require_one_process

    require_one_process("dpo-sample")
    sys.path.insert(0, str(Path.cwd()))  # so that a scorer here can be imported
    server = _server_or_model(options, model)
    dtype, adapter, best_of = (options.pop(name) for name in ("dtype", "adapter", "best_of"))
    if best_of > 1 and scorer is None:
        raise click.UsageError("--best-of needs --scorer, which says what is best")
    config = _config(options)
    with Bars() as progress:
        if server is None:
            job = SampleJob(prompts, str(model), out, scorer, dtype, adapter, best_of)
            summary = sample_file(job, config, progress)
        else:
            from dpo.sampling.from_server import ServerJob, sample_from_server

            asked = ServerJob(prompts, server, out, scorer, best_of)
            summary = sample_from_server(asked, config, progress)
    for line in summary.readings:
        say(line)
    speed, score = summary.tokens_per_second, summary.mean_score
    tokens = summary.num_tokens / summary.num_completions
    say(
        f"{out}: {summary.num_completions:,} completions"
        + (f" of {tokens:.1f} tokens on average" if tokens else "")
        + ("" if speed is None else f", {speed:,.0f} tokens/s")
        + f"; {summary.num_ended / summary.num_completions:.0%} ended by the model"
        + ("" if score is None else f"; mean score {score:.4f}")
    )


def _server_or_model(options: dict[str, Any], model: str | None) -> "Server | None":
    """Return the server; None for a model in this process. Refuse options without effect."""
    server = server_from(options)
    if (model is None) == (server is None):
        raise click.UsageError("give one of --model and --server")
    if server is not None:
        require_not_given(_LOCAL, "has no effect with --server")
    else:
        require_not_given(SERVER_OPTIONS, "has no effect without --server")
    return server


def _config(options: dict[str, Any]) -> "SampleConfig":
    from dpo.sampling.sample import SampleConfig

    try:
        return SampleConfig(**options)
    except ValidationError as error:
        fault = error.errors()[0]
        flag = "--" + str(fault["loc"][0] if fault["loc"] else "raw").replace("_", "-")
        raise click.BadParameter(fault["msg"], param_hint=flag) from error
