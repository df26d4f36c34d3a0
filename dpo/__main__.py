"""Entry points of the commands; `python -m dpo` is `dpo-train`, for `accelerate launch -m dpo`.

They exist because the imports take a while, and Ctrl-C may come during them.
"""

import sys
from functools import partial


def run(name: str) -> None:
    """Run a command of `dpo.cli`."""
    try:
        from dpo import cli
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
    getattr(cli, name)()


export, judge, ref, report, sample, score, train = (
    partial(run, name) for name in ("export", "judge", "ref", "report", "sample", "score", "train")
)

if __name__ == "__main__":
    train()
