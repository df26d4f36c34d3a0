"""The whole quickstart: runs and times the commands that a user would type.

python pipelines/quickstart/run.py
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = "pipelines/quickstart"
MODEL = ".models/SmolLM2-135M-Instruct"
RUN = Path("runs/quickstart")
STAGES = {
    "model": f"python {HERE}/get_model.py --out {MODEL}",
    "build": f"prefdata build {HERE}/build.yaml",
    "reference": f"dpo-ref {RUN}/data --model {MODEL}",
    "train": f"dpo-train {HERE}/train.yaml",
    "evaluate": f"python -m pipelines.quickstart.evaluate --run {RUN} --reference {MODEL}",
}


def main() -> None:
    RUN.mkdir(parents=True, exist_ok=True)
    seconds = {}
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    for name, command in STAGES.items():
        print(f"\n$ {command}", flush=True)
        started = time.perf_counter()
        done = subprocess.run(shlex.split(command), env=environment, check=False)
        if done.returncode != 0:
            sys.exit(done.returncode)
        seconds[name] = time.perf_counter() - started
        (RUN / "seconds.json").write_text(json.dumps(seconds, indent=2) + "\n")


if __name__ == "__main__":
    main()
