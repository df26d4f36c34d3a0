"""Anthropic HH end to end: from files or a Hub name to a trained policy.

    python pipelines/hh/run.py Anthropic/hh-rlhf
    python pipelines/hh/run.py data/harmless-base/*.jsonl.gz steps=20 global_batch_size=8

Arguments with a `=` go to dpo-train; the others name files, or one dataset of the Hub.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RAW = Path("runs/hh/raw")
SPLITS = "*-base/train.jsonl.gz"  # of the Hub dataset; its red-team files hold no pairs


def find_files(names: list[str]) -> list[Path]:
    """Return the named files, or those of a dataset from the Hub."""
    files = [Path(name) for name in names]
    if all(file.is_file() for file in files):
        return files
    if len(names) != 1 or names[0].count("/") != 1:
        missing = next(file for file in files if not file.is_file())
        sys.exit(f"{missing}: is not a file; name files, or one dataset of the Hub as org/name")
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(names[0], repo_type="dataset", allow_patterns=SPLITS))
    return sorted(folder.glob(SPLITS))


def link(files: list[Path]) -> None:
    """Link these files, and no others, into `RAW`, named by their directory and file name."""
    RAW.mkdir(parents=True, exist_ok=True)
    for old in RAW.iterdir():
        old.unlink()
    for file in files:
        whole = file.resolve() if file.suffix == ".gz" else None
        if whole is None:
            sys.exit(f"{file}: is not a .jsonl.gz file, the form of the dataset; name those files")
        (RAW / f"{file.absolute().parent.name}-{file.name}").symlink_to(whole)


def main() -> None:
    overrides = [word for word in sys.argv[1:] if "=" in word]
    names = [word for word in sys.argv[1:] if "=" not in word]
    if not names:
        sys.exit("no inputs; name HH's files, or Anthropic/hh-rlhf")
    link(find_files(names))
    commands = [
        "python pipelines/quickstart/get_model.py",
        f"prefdata build {HERE}/build.yaml",
        "dpo-ref runs/hh/data --model .models/SmolLM2-135M-Instruct",
        shlex.join(["dpo-train", f"{HERE}/train.yaml", *overrides]),
    ]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in commands:
        print(f"\n$ {command}", flush=True)
        done = subprocess.run(shlex.split(command), env=os.environ | {"PATH": path}, check=False)
        if done.returncode != 0:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
