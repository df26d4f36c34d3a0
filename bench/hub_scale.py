"""What a push and a pull of a large build take: seconds, memory, what is sent again after a kill.

    python -m bench.hub_scale --build out/big

The Hub is the tests' server on loopback, so the figures hold no network. Each command runs in a
process of its own; its peak memory is what the system says of it.
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
    """Run a command, kill it at the n-th request of a kind, and print what it took."""
    asked, begun = len(hub.seen), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "prefdata", *words],
        env=os.environ | environment(hub, folder), stdout=subprocess.DEVNULL,
    )  # fmt: skip

    def strike(_number: int, _line: str) -> None:
        same = sum(line.startswith(kill[0]) for line in hub.seen[asked:])
        if kill[1] and same == kill[1]:
            os.kill(process.pid, signal.SIGKILL)

    hub.on_request = strike
    _, status, usage = os.wait4(process.pid, 0)
    hub.on_request = lambda _number, _line: None
    sent = sum(line.startswith("PUT") for line in hub.seen[asked:])
    fetched = sum("resolve" in line and line.startswith("GET") for line in hub.seen[asked:])
    took, memory = time.monotonic() - begun, usage.ru_maxrss / 1024
    print(f"{words[0]}: status {status}, {took:.1f} s, {memory:,.0f} MiB", end=", ")
    print(f"{sent} files sent, {fetched} fetched", flush=True)


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
