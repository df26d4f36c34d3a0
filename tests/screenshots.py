"""Screenshots of every page at two widths, light and dark, for docs/screenshots.

    python -m tests.screenshots docs/screenshots

Reviews of pipelines/quickstart with planted faults are built, and a tiny model is trained twice.
The numbers of the quickstart's page are made up. A page with a cut text is an error.
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from click.testing import CliRunner

import dpo
import prefdata
from dpo.config_file import parse_config
from dpo.training.compare import compare
from pipelines.quickstart.evaluate import training_figures
from pipelines.quickstart.page import render_page
from pipelines.quickstart.result import Example, Result, Samples
from prefdata.cli import main as command
from prefdata.config import BuildConfig
from tests.dpo.conftest import save_gpt2
from tests.prefdata.conftest import CHATML
from tests.prefdata.report.chromium import CUT, Chromium, open_chromium

ROOT = Path(__file__).parent.parent
REVIEWS = ROOT / "pipelines" / "quickstart" / "samples.jsonl"
REDUCE = shutil.which("pngquant")  # a third of the size
WIDTHS = {"phone": (390, 1100), "wide": (1280, 900)}
STEPS = 60


class Shot(NamedTuple):
    """Page, and the element at its top; None is the page's own top."""

    page: Path
    at: str | None = None


def pair(prompt: str, chosen: Any, rejected: Any, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def read_reviews() -> list[dict[str, Any]]:
    """Return the kindest and the least kind review of each beginning, as pairs with scores."""
    rows = []
    for line in REVIEWS.read_text().splitlines():
        value = json.loads(line)
        ranked = sorted(value["completions"], key=lambda one: -one["score"])
        best, worst = ranked[0], ranked[-1]
        if best["score"] > worst["score"]:
            scores = {"score_chosen": best["score"], "score_rejected": worst["score"]}
            prompt = f"A review of {value['meta']['topic']}: {value['meta']['beginning']}"
            rows.append(pair(prompt, best["text"], worst["text"], **scores))
    return rows


STORY = "Write a letter to my neighbor about the noise of the dogs in the yard at night, "
FAULTS = [
    pair("How long do eggs keep in the fridge?", "", "About three to five weeks."),
    pair("What is a good name for a gray cat?", "Ash.", " Ash. "),
    pair("Which tea has no caffeine?", "Rooibos.", "  Rooibos."),
    pair("Can I paint over wallpaper?", "Yes, after a primer. Human: And tiles? ", "No."),
    pair("What rhymes with orange?", "Nothing.<|im_end|>\n<|im_start|>user\nAnd", "No."),
    pair("Who can I ask about my order?", "Write to anna.berg@orders.io, she knows.", "No idea."),
    pair("How do I boil rice?", "One part rice, two of water,", 12),
    pair(STORY + "kindly.", "Dear neighbor, your dogs are lovely, and awake.", "Stop it."),
    pair(STORY + "politely.", "Dear neighbor, may I ask you for quiet after ten?", "Stop it now."),
    pair(STORY + "briefly.", "Dear neighbor, please keep the dogs in at night.", "Quiet!"),
    pair("Is a tomato a fruit?", "Botanically yes, in the kitchen no.", "I cannot say."),
    pair("Is a tomato a fruit?", "I cannot say.", "Botanically yes, in the kitchen no."),
    pair("Why is the sky blue?", "I'm sorry, but I cannot help with that.", "Air scatters blue."),
    pair("Fix this loop", "```python\nfor n in range(3):\n    print(n)\n```\nIt prints 0, 1", "?"),
]


def build_data(folder: Path, tokenizer: Path) -> list[prefdata.Build]:
    """Build questions and reviews, with faults, in two files; then all reviews, for the runs."""
    reviews = read_reviews()
    lines = [json.dumps(row) for row in [*FAULTS, *reviews[:70], *reviews[3:5]]]
    lines.insert(4, lines[0][:-9])
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    more = [*reviews[70:110], pair("What is 2 + 2?", "4", "")]
    (folder / "reviews.json").write_text(json.dumps(more, indent=1))
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reviews))
    inputs = {"questions": ["questions.jsonl", "reviews.json"], "reviews": ["all.jsonl"]}
    configs = [
        BuildConfig(
            inputs=[str(folder / file) for file in files], tokenizer=str(tokenizer),
            out=folder / name, text="chat", test_fraction=0.2, max_length=256,
        )
        for name, files in inputs.items()
    ]  # fmt: skip
    return [prefdata.build(config) for config in configs]


def train_twice(folder: Path, model: Path, data: Path) -> list[Path]:
    """Train a tiny model with two values of β, and return the directories of the runs."""
    dpo.reference(data, model=str(model))
    found = []
    for beta in (0.1, 0.5):
        value = {
            "model": str(model), "data": str(data), "out": str(folder / f"beta-{beta}"),
            "loss": {"beta": beta}, "global_batch_size": 16, "steps": STEPS,
            "eval_every": STEPS // 6,
            "optimizer": {"learning_rate": 5e-4, "warmup_steps": 4},
        }  # fmt: skip
        found.append(dpo.train(parse_config(value, place="screenshots")).out)
    return found


def quickstart_page(metrics: Path) -> str:
    """Return the quickstart's page of a tiny run, with sentiments that are made up."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    draw = random.Random(0)
    before = [draw.betavariate(2, 2) for _ in range(240)]
    after = [draw.betavariate(5, 2) for _ in range(240)]
    rows = read_reviews()
    examples = [
        Example(
            beginning=row["prompt"].rpartition(": ")[2], before=row["rejected"],
            after=row["chosen"], before_score=row["score_rejected"],
            after_score=row["score_chosen"],
        )
        for row in rows[:4]
    ]  # fmt: skip
    means = [sum(scores) / len(scores) for scores in (before, after)]
    samples = [
        Samples(
            sentiment=mean, sentiment_se=0.014, share_ended=0.97, mean_tokens=21.4,
            ref_logp_per_token=-1.9, distinct_bigrams=0.62,
        )
        for mean in means
    ]  # fmt: skip
    result = Result(
        **training_figures(lines), sentiment_before=means[0], sentiment_after=means[1],
        sentiment_difference=means[1] - means[0], kl=3.2, kl_se=0.2, num_samples=240,
        num_prompts=120, before=samples[0], after=samples[1], examples=examples,
        seconds={"sample": 61.0, "build": 2.0, "train": 88.0, "evaluate": 70.0},
        versions={"torch": "2", "transformers": "5"},
    )  # fmt: skip
    return render_page(result, lines, before, after)


def make_pages(folder: Path) -> dict[str, Shot]:
    """Return every page by the name of its picture."""
    model = save_gpt2(folder / "model", seed=0, template=CHATML)
    build, reviews = build_data(folder, model)
    pages = folder / "pages"
    done = CliRunner().invoke(command, ["show", str(build.path), "--html", str(pages)])
    assert done.exit_code == 0, done.output
    first, second = train_twice(folder, model, reviews.path)
    compare([first, second], folder / "runs.html")
    (folder / "quickstart.html").write_text(quickstart_page(first / "metrics.jsonl"))
    report = build.path / "report.html"
    return {
        "report": Shot(report),
        "findings": Shot(report, "PD202-E"),
        "lengths-and-biases": Shot(report, "lengths"),
        "pairs": Shot(pages / "index.html"),
        "refused": Shot(pages / "refused.html"),
        "near-duplicates": Shot(pages / "code-PD402.html"),
        "run": Shot(first / "report.html"),
        "runs": Shot(folder / "runs.html"),
        "quickstart": Shot(folder / "quickstart.html"),
    }


def take(browser: Chromium, shot: Shot, out: Path) -> list[str]:
    """Write the four pictures of a page, and return what is cut on it."""
    faults = []
    for width_name, (width, height) in WIDTHS.items():
        for is_dark in (False, True):
            browser.resize(width)
            browser.prefer_dark(is_dark)
            browser.open(shot.page)
            faults += [f"{out.name} at {width}: {one}" for one in browser.run(CUT)]
            name = f"{out.name}-{width_name}{'-dark' if is_dark else ''}.png"
            browser.capture(out.with_name(name), width, height, shot.at)
            if REDUCE:
                words = [REDUCE, "--force", "--ext", ".png", "--speed", "1", "48"]
                subprocess.run([*words, str(out.with_name(name))], check=True)
    return faults


def main(out: Path) -> None:
    with TemporaryDirectory() as folder:
        shots = make_pages(Path(folder))
        with open_chromium(Path(folder) / "profile") as browser:
            faults = [
                one for name, shot in shots.items() for one in take(browser, shot, out / name)
            ]
    sys.exit("\n".join(faults))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
