"""Cost of a push and a pull of a large build: seconds, memory, files sent again after a kill.

    python -m bench.hub_scale --build out/big

The Hub is the tests' server on loopback, so the figures exclude the network. Each command runs in
its own process; its peak memory is the one that the system reports.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.hub import TOKEN, FakeHub

NAME = "org/big"
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Script of an intermediate process: memory of this one, which holds the repo, is not counted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=Path)
    options = parser.parse_args()
    with FakeHub() as hub, tempfile.TemporaryDirectory() as folder:
        push = ["push", str(options.build), NAME, "--no-license", "--allow-secrets"]
        pull = ["pull", NAME, "-o", str(Path(folder) / "back")]
        run(push, hub, Path(folder), kill=("PUT", 15))
        print(f"  {len(hub.objects)} files had arrived, {len(hub.commits)} repo", flush=True)
        run(push, hub, Path(folder))
        run(push, hub, Path(folder))
        run(pull, hub, Path(folder), kill=("GET /datasets/org/big/resolve", 15))
        run(pull, hub, Path(folder))
        run(pull, hub, Path(folder))
        shutil.rmtree(Path(folder) / "back")


def run(words: list[str], hub: FakeHub, folder: Path, kill: tuple[str, int] = ("", 0)) -> None:
    """Run a command, kill it at the n-th request of a kind, and print its cost."""
    asked, begun = len(hub.seen), time.monotonic()
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "prefdata", *words]
    process = subprocess.Popen(
        command, env=os.environ | environment(hub, folder), stdout=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip

    def strike(_number: int, _line: str) -> None:
        same = sum(line.startswith(kill[0]) for line in hub.seen[asked:])
        if kill[1] and same == kill[1]:
            os.killpg(process.pid, signal.SIGKILL)

    hub.on_request = strike
    output, _ = process.communicate()
    hub.on_request = lambda _number, _line: None
    sent = sum(line.startswith("PUT") for line in hub.seen[asked:])
    fetched = sum("resolve" in line and line.startswith("GET") for line in hub.seen[asked:])
    memory = "killed" if process.returncode else f"{int(output.split()[-1]) / 1024:,.0f} MiB"
    print(f"{words[0]}: {time.monotonic() - begun:.1f} s, {memory}, {sent} files sent, "
          f"{fetched} fetched", flush=True)  # fmt: skip


def environment(hub: FakeHub, folder: Path) -> dict[str, str]:
    return {
        "HF_TOKEN": TOKEN,
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(folder / "hf"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


if __name__ == "__main__":
    main()
