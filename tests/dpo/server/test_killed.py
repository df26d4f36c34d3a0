"""A `dpo-sample --server` process that is killed with SIGKILL, and run again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.dpo.server.loopback import Asked, Loopback, Reply, well


def test_a_killed_process_continues_and_no_row_is_lost_or_twice(tmp_path: Path) -> None:
    prompts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Who is {n}?"}) + "\n" for n in range(200)))
    words = ["-k", "2", "--concurrency", "4", "-o", str(out), "--server"]
    start = "from dpo.cli import sample; sample()"

    def slow(asked: Asked) -> Reply:
        return well(asked)._replace(delay=0.02)

    with Loopback(slow) as server:
        line = [sys.executable, "-c", start, str(prompts), *words, server.url]
        running = subprocess.Popen(line, env=os.environ | {"PYTHONPATH": str(Path.cwd())})
        while len(server.asked) < 80:
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait()
        kept = Path(f"{out}.partial").read_bytes().count(b"\n") - 1
        before = len(server.asked)
        assert not out.exists()
        subprocess.run(line, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=True)

    assert kept >= 70
    assert len(server.asked) - before == 1 + 200 - kept  # the list of models, and what is missing
    found = [json.loads(row) for row in out.read_bytes().splitlines()]
    assert [row["prompt"][0]["content"] for row in found] == [f"Who is {n}?" for n in range(200)]
    assert all(len(row["completions"]) == 2 for row in found)
