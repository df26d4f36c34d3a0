"""The recipe's data: prompts from the beginnings, and ranked completions for them.

    python pipelines/quickstart/get_model.py
    python pipelines/quickstart/make_data.py

Sampling takes five to ten minutes on two cores; it is skipped if samples.jsonl exists.
`make demo` does not run this script: samples.jsonl and pairs.jsonl are committed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WORDING = (
    "Write one honest sentence of a customer review, good or bad. It begins with these words: {}"
)
SAMPLING = {
    "-k": "4",
    "--temperature": "0.7",
    "--top-p": "0.95",
    "--max-new-tokens": "40",
    "--batch-size": "128",
    "--seed": "7",
}
MIN_GAP = 0.3


def prompt_lines(part: str) -> str:
    """Return the prompts of one part of beginnings.yaml as JSON Lines."""
    topics = yaml.safe_load((HERE / "beginnings.yaml").read_text(encoding="utf-8"))[part]
    rows = [
        {"prompt": WORDING.format(beginning), "meta": {"topic": topic, "beginning": beginning}}
        for topic, beginnings in topics.items()
        for beginning in beginnings
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def keep_clear(samples: str) -> str:
    """Keep the completions that the model ended, rank them again, and drop rows below MIN_GAP.

    A lexicon's score grows with length, so truncated sentences would teach the model never to end;
    and a difference of less than MIN_GAP between best and worst is mostly the lexicon's noise.
    """
    lines = []
    for row in map(json.loads, samples.splitlines()):
        whole = [completion for completion in row["completions"] if completion["ended"]]
        scores = sorted({completion["score"] for completion in whole}, reverse=True)
        if scores and scores[0] - scores[-1] >= MIN_GAP:
            ranked = [one | {"rank": scores.index(one["score"]) + 1} for one in whole]
            lines.append(json.dumps(row | {"completions": ranked}, ensure_ascii=False) + "\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=".models/SmolLM2-135M-Instruct")
    args = parser.parse_args()

    (HERE / "prompts.jsonl").write_text(prompt_lines("pairs"), encoding="utf-8")
    (HERE / "held_out.jsonl").write_text(prompt_lines("held_out"), encoding="utf-8")
    samples = HERE / "samples.jsonl"
    if not samples.exists():
        command = [str(Path(sys.executable).with_name("dpo-sample")), str(HERE / "prompts.jsonl")]
        command += ["--model", args.model, "-o", str(samples)]
        command += ["--scorer", "pipelines.quickstart.scorer:compound"]
        command += [word for pair in SAMPLING.items() for word in pair]
        subprocess.run(command, check=True, cwd=ROOT)
    kept = keep_clear(samples.read_text(encoding="utf-8"))
    (HERE / "pairs.jsonl").write_text(kept, encoding="utf-8")


if __name__ == "__main__":
    main()
