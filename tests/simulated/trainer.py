"""Reference log-probs and training in a simulated system."""

import os
import sys

from click.testing import CliRunner

from dpo import cli


def run(name: str, *words: str) -> None:
    result = CliRunner().invoke(getattr(cli, name), [*words, "--debug"])
    assert result.exit_code == 0, result.output


if __name__ == "__main__":
    assert not hasattr(os, "sched_getaffinity")
    data, model, config = sys.argv[1:]
    run("ref", data, "--model", model)
    run("train", config)
