"""Comparison of the trained policy with its reference on held-out prompts.

    python -m pipelines.quickstart.evaluate --run runs/quickstart

Writes result.json and result.html into the run's directory and prints the table.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from dpo import (
    Completion,
    SampleConfig,
    completion_logps,
    encode_prompts,
    load_model,
    load_tokenizer,
    sample,
)
from pipelines.quickstart.make_data import HERE
from pipelines.quickstart.page import render_page
from pipelines.quickstart.result import Example, Result, Samples
from pipelines.quickstart.scorer import compound

SENTIMENT = SampleConfig(
    k=1, temperature=0.7, top_p=0.95, max_new_tokens=40, batch_size=120, seed=1
)
"""Settings with which the pairs were sampled."""
KL = SampleConfig(k=1, text="chat", max_new_tokens=40, batch_size=120, seed=2)
"""Settings for the policy's own distribution, so that the mean log-ratio estimates the KL."""
ROUNDING = 1e-4  # nats of margin below which policy and reference count as equal
PACKAGES = ("torch", "transformers", "accelerate", "prefdata-dpo", "vaderSentiment")


class Answers(NamedTuple):
    """Completions of every prompt, and their scores."""

    completions: list[list[Completion]]
    scores: list[list[float]]


def answer(model: PreTrainedModel, tokenizer: Any, prompts: Sequence[str], name: str) -> Answers:
    sampled = sample(prompts, model, tokenizer, SENTIMENT)
    completions = list(track(sampled, f"sampling from the {name}", total=len(prompts)))
    scores = [
        compound(prompts=[prompt] * SENTIMENT.k, completions=[c.text for c in done])
        for prompt, done in zip(prompts, completions, strict=True)
    ]
    return Answers(completions, scores)


def describe(answers: Answers, ref_logps: list[float]) -> Samples:
    completions = [c for done in answers.completions for c in done]
    scores = [score for row in answers.scores for score in row]
    num_tokens = sum(len(c.ids) for c in completions)
    bigrams = [pair for c in completions for pair in pairwise(c.text.lower().split())]
    return Samples(
        sentiment=statistics.mean(scores),
        sentiment_se=statistics.stdev(scores) / math.sqrt(len(scores)),
        share_ended=statistics.mean(c.ended for c in completions),
        mean_tokens=num_tokens / len(completions),
        ref_logp_per_token=sum(ref_logps) / num_tokens,
        distinct_bigrams=len(set(bigrams)) / len(bigrams),
    )


def measure_kl(
    policy: PreTrainedModel, ref: PreTrainedModel, tokenizer: Any, prompts: Sequence[str]
) -> tuple[float, float]:
    """Return the mean log-ratio over samples of the policy and its standard error, in nats.

    The policy's log-probs are those from sampling.
    """
    sampled = sample(prompts, policy, tokenizer, KL)
    drawn = [c for (c,) in track(sampled, "KL", total=len(prompts))]
    ids = encode_prompts(prompts, tokenizer)
    ref_logps = completion_logps(ref, ids, [[c.ids] for c in drawn])
    ratios = [c.logp - ref_logp for c, (ref_logp,) in zip(drawn, ref_logps, strict=True)]
    return statistics.mean(ratios), statistics.stdev(ratios) / math.sqrt(len(ratios))


def pick_examples(rows: list[dict[str, Any]], before: Answers, after: Answers) -> list[Example]:
    """Return six evenly spaced rows with their first completions, so that none is hand-picked."""
    places = [len(rows) * n // 6 for n in range(6)]
    return [
        Example(
            beginning=rows[at]["meta"]["beginning"],
            before=before.completions[at][0].text,
            after=after.completions[at][0].text,
            before_score=before.scores[at][0],
            after_score=after.scores[at][0],
        )
        for at in places
    ]


def training_figures(lines: list[dict[str, float]]) -> dict[str, float]:
    """Return the figures of the first and the last steps from the metrics file."""
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "eval/rewards/accuracies" in line]
    start = steps[0]
    # margins that are only rounding are ties, and count half
    tied = abs(start["rewards/margins"]) < ROUNDING
    return {
        "first_loss": start["loss"],
        "last_loss": statistics.mean(line["loss"] for line in steps[-10:]),
        "reward_accuracy": evaluations[-1]["eval/rewards/accuracies"],
        "reward_accuracy_before": 0.5 if tied else start["rewards/accuracies"],
        "reward_margin": evaluations[-1]["eval/rewards/margins"],
        "steps": int(steps[-1]["step"]),
    }


def evaluate(
    run: Path, reference: str, rows: list[dict[str, Any]], lines: list[dict[str, float]]
) -> tuple[Result, Answers, Answers]:
    started = time.perf_counter()
    prompts = [row["prompt"] for row in rows]
    tokenizer = load_tokenizer(reference)
    ref, policy = load_model(reference), load_model(str(run / "model"))
    before = answer(ref, tokenizer, prompts, "reference")
    after = answer(policy, tokenizer, prompts, "policy")
    kl, kl_se = measure_kl(policy, ref, tokenizer, prompts[::2])  # its error stays small
    ids = encode_prompts(prompts, tokenizer)
    sides = [[c.ids for c in done] for done in after.completions]
    after_logps = list(chain.from_iterable(completion_logps(ref, ids, sides)))
    before_logps = [c.logp for done in before.completions for c in done]
    described = describe(before, before_logps), describe(after, after_logps)
    stages = run / "seconds.json"
    seconds = json.loads(stages.read_bytes()) if stages.is_file() else {}
    result = Result(
        **training_figures(lines),
        sentiment_before=described[0].sentiment,
        sentiment_after=described[1].sentiment,
        sentiment_difference=described[1].sentiment - described[0].sentiment,
        kl=kl,
        kl_se=kl_se,
        num_samples=len(before_logps),
        num_prompts=len(prompts),
        before=described[0],
        after=described[1],
        examples=pick_examples(rows, before, after),
        seconds=seconds | {"evaluate": time.perf_counter() - started},
        versions={name: version(name) for name in PACKAGES},
    )
    return result, before, after


def table(result: Result) -> Table:
    found = Table(title=f"{result.steps} steps of DPO, on prompts held out", title_justify="left")
    for name in ("", "before", "after"):
        found.add_column(name, justify="left" if not name else "right")
    before, after = result.before, result.after
    accuracy = (result.reward_accuracy_before, result.reward_accuracy)
    found.add_row("loss", f"{result.first_loss:.4f}", f"{result.last_loss:.4f}")
    found.add_row("reward accuracy", *(f"{value:.1%}" for value in accuracy))
    sentiments = (f"{s.sentiment:.3f} ± {s.sentiment_se:.3f}" for s in (before, after))
    found.add_row(f"sentiment of {result.num_samples} samples", *sentiments)
    found.add_row("KL from the reference, nats", "0", f"{result.kl:.1f} ± {result.kl_se:.1f}")
    fluency = (f"{s.ref_logp_per_token:.2f}" for s in (before, after))
    found.add_row("reference's log-prob a token, nats", *fluency)
    found.add_row("distinct bigrams", *(f"{s.distinct_bigrams:.0%}" for s in (before, after)))
    found.add_row("ended by the model", *(f"{s.share_ended:.0%}" for s in (before, after)))
    found.add_row("tokens, mean", *(f"{s.mean_tokens:.1f}" for s in (before, after)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--reference", default=".models/SmolLM2-135M-Instruct")
    parser.add_argument("--prompts", type=Path, default=HERE / "held_out.jsonl")
    args = parser.parse_args()
    disable_progress_bar()
    rows = [json.loads(line) for line in args.prompts.read_bytes().splitlines()]
    lines = [json.loads(line) for line in (args.run / "metrics.jsonl").read_bytes().splitlines()]
    result, before, after = evaluate(args.run, args.reference, rows, lines)
    (args.run / "result.json").write_text(result.model_dump_json(indent=2) + "\n")
    scores = [[score for row in a.scores for score in row] for a in (before, after)]
    page = render_page(result, lines, scores[0], scores[1])
    (args.run / "result.html").write_text(page, encoding="utf-8")
    Console().print(table(result))
    print(f"{args.run / 'result.json'} and {args.run / 'result.html'} are written")


if __name__ == "__main__":
    main()
