"""TRL's tokenization against rendering + encode_batch_fast and the whole `prefdata build`.

    python bench/tokenize_vs_trl.py --data hh.jsonl.gz --tokenizer SmolLM2 --tokenizer Qwen3

All three use the same pairs and the same chat template, in one run, one after the other, `--runs`
times. The ids are compared row by row. The baseline in the middle renders and encodes three texts
per pair (prompt, prompt + chosen, prompt + rejected) on all cores, and writes nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import _compile_jinja_template
from trl import DPOTrainer

import prefdata
from prefdata.config import make_config
from prefdata.store.reader import Build

Row = dict[str, Any]
PARTS = ("prompt_ids", "chosen_ids", "rejected_ids")

# The four layouts of TRL's documentation, and rows whose tokens merge across the boundary.
TRL_LAYOUTS: dict[str, list[Row]] = {
    "standard, explicit prompt": [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        {"prompt": "Q: 2+2?\nA:", "chosen": " 4", "rejected": " 5, I think\n"},
    ],
    "standard, implicit prompt": [
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": "The sky is blue.", "rejected": "The sky is black."},
    ],
    "conversational, explicit prompt": [
        {
            "prompt": [{"role": "user", "content": "What color is the sky?"}],
            "chosen": [{"role": "assistant", "content": "It is blue."}],
            "rejected": [{"role": "assistant", "content": "It is green."}],
        },
        {
            "prompt": [{"role": "user", "content": "Lines?\n"}],
            "chosen": [{"role": "assistant", "content": "\n\nYes"}],
            "rejected": [{"role": "assistant", "content": "No"}],
        },
    ],
    "conversational, implicit prompt": [
        {
            "chosen": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Where is the sun?"},
                {"role": "assistant", "content": "In the sky."},
            ],
            "rejected": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Where is the sun?"},
                {"role": "assistant", "content": "In the sea."},
            ],
        }
    ],
}


def prepare_with_trl(rows: list[Row], tokenizer: Any) -> list[Row]:
    """Run TRL's own preparation of a dataset, as its trainer does, without a model."""
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    dataset = datasets.Dataset.from_list(rows)
    done = DPOTrainer._prepare_dataset(trainer, dataset, tokenizer, args, "train")
    found: list[Row] = done.select_columns(list(PARTS)).to_list()
    return found


def render_and_encode(rows: list[Row], tokenizer: Any) -> int:
    """Render and encode three texts per pair, as the baseline; return the number of tokens."""
    template, names = _compile_jinja_template(tokenizer.chat_template), tokenizer.special_tokens_map
    texts = []
    for row in rows:
        for side in ("", "chosen", "rejected"):
            messages = row["prompt"] + row[side] if side else row["prompt"]
            texts.append(
                template.render(messages=messages, add_generation_prompt=not side, **names)
            )
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return sum(map(len, encodings))


def read_pairs(build: Build) -> dict[int, tuple[Row, list[list[int]]]]:
    """Return messages and ids of every kept pair, by its line in the input."""
    pairs = {}
    for split in build.splits:
        texts = build.text(split).select(["line", "prompt", "chosen", "rejected"]).to_pylist()
        ids = build.tokens(split).select(list(PARTS)).to_pylist()
        for text, row in zip(texts, ids, strict=True):
            pairs[text.pop("line")] = (text, [row[part] for part in PARTS])
    return pairs


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def build_config(
    data: Path, tokenizer: str, out: Path, layout: str | None = None
) -> prefdata.BuildConfig:
    values = {
        "inputs": [str(data)], "tokenizer": tokenizer, "out": str(out), "test_fraction": 0.05,
        "layout": layout,
    }  # fmt: skip
    return make_config(values, place="bench")


def grow(rows: list[Row], times: int) -> list[Row]:
    """Return copies of the rows; each has its number at the end of the last user turn."""
    grown = []
    for copy in range(times):
        for row in rows:
            *before, last = row["prompt"]
            edited = {**last, "content": f"{last['content']} [{copy}]"} if copy else last
            grown.append({**row, "prompt": [*before, edited]})
    return grown


def bench_speed(data: Path, name: str, runs: int, folder: Path, times: int) -> None:
    """Time the three in turn, and compare TRL's ids with the build's."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    pairs = read_pairs(prefdata.build(build_config(data, name, folder / "first")))
    rows = [text for _, (text, _) in sorted(pairs.items())]
    if times > 1:
        rows, data = grow(rows, times), folder / "grown.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        pairs = read_pairs(prefdata.build(build_config(data, name, folder / "grown")))
    seconds: dict[str, list[float]] = {"trl": [], "yardstick": [], "build": [], "command": []}
    for run in range(runs):
        spent, theirs = timed(lambda: prepare_with_trl(rows, tokenizer))
        seconds["trl"].append(spent)
        seconds["yardstick"].append(timed(lambda: render_and_encode(rows, tokenizer))[0])
        config = build_config(data, name, folder / f"build-{run}")
        seconds["build"].append(timed(partial(prefdata.build, config))[0])
        command = [sys.executable, "-m", "prefdata", "build", str(data), "--tokenizer", name]
        command += ["-o", str(folder / f"command-{run}")]
        run_it = partial(subprocess.run, command, check=True, capture_output=True)
        seconds["command"].append(timed(run_it)[0])
    print_speed(len(rows), seconds)
    ours = [ids for _, (_, ids) in sorted(pairs.items())]
    equal = sum([row[p] for p in PARTS] == ids for row, ids in zip(theirs, ours, strict=True))
    print(f"  ids equal to TRL's: {equal:,} of {len(ours):,} pairs")


def print_speed(num_pairs: int, seconds: dict[str, list[float]]) -> None:
    titles = {
        "trl": "TRL's _prepare_dataset",
        "yardstick": "render + encode_batch_fast",
        "build": "prefdata.build, in process",
        "command": "prefdata build, as a command",
    }
    for key, title in titles.items():
        times = sorted(seconds[key])
        rate = num_pairs / statistics.median(times)
        print(f"  {title:30} {rate:8,.0f} pairs/s   {times[0]:.2f}–{times[-1]:.2f} s")
    for title, over, under in (
        ("build : yardstick, in time", "build", "yardstick"),
        ("command : yardstick, in time", "command", "yardstick"),
        ("TRL : build, in time", "trl", "build"),
        ("TRL : command, in time", "trl", "command"),
    ):
        ratios = sorted(a / b for a, b in zip(seconds[over], seconds[under], strict=True))
        middle = statistics.median(ratios)
        print(f"  {title:30} {middle:8.2f}×          {ratios[0]:.2f}–{ratios[-1]:.2f}")


def compare_layouts(name: str, folder: Path) -> None:
    """Compare the ids of TRL's layouts row by row with TRL's own, and print both if they differ."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    for number, (title, rows) in enumerate(TRL_LAYOUTS.items()):
        data = folder / f"layout-{number}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        # words in common are a prompt only where the layout is named
        layout = "trl-std-implicit" if title == "standard, implicit prompt" else None
        config = build_config(data, name, folder / f"layout-{number}", layout)
        ours = read_pairs(prefdata.build(config))
        theirs = prepare_with_trl(rows, tokenizer)
        same = 0
        for line, row in enumerate(theirs, start=1):
            expected = [row[part] for part in PARTS]
            if line in ours and ours[line][1] == expected:
                same += 1
            else:
                shown = [tokenizer.decode(ids) for ids in expected]
                mine = [tokenizer.decode(ids) for ids in ours[line][1]] if line in ours else None
                print(f"    line {line}: TRL {shown}, prefdata {mine}")
        print(f"  {title}: {same} of {len(rows)} rows equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="raw preference file")
    parser.add_argument("--tokenizer", action="append", required=True, help="directory or Hub name")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--grow", type=int, default=1, help="times as many rows, by edited copies")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    names = ("trl", "transformers", "tokenizers", "datasets", "prefdata-dpo")
    print(", ".join(f"{name} {version(name)}" for name in names))
    for name in arguments.tokenizer:
        print(name)
        with tempfile.TemporaryDirectory() as folder:
            compare_layouts(name, Path(folder))
            bench_speed(arguments.data, name, arguments.runs, Path(folder), arguments.grow)


if __name__ == "__main__":
    main()
