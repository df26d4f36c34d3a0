"""Files of splits, and the contents of their builds, for the tests of splits."""

from pathlib import Path
from typing import Any

import prefdata
from prefdata.config import make_config
from prefdata.store.reader import Build
from tests.prefdata.conftest import write_rows

Row = dict[str, object]


def ask(prompt: str, chosen: str = "yes", rejected: str = "no", **more: object) -> Row:
    """Return a pair with a prompt of one turn, and other columns."""
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        **more,
    }


def asks(*prompts: str) -> list[Row]:
    return [ask(prompt) for prompt in prompts]


def write_files(folder: Path, files: dict[str, list[Row]]) -> list[str]:
    """Write files under the directory, and return their names in the order given."""
    for name, rows in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_rows(folder / name, rows)
    return [str(folder / name) for name in files]


def build_of(inputs: Any, tokenizer: Path, out: Path, **changes: Any) -> Build:
    values = {"inputs": inputs, "tokenizer": str(tokenizer), "out": out, "workers": 1, **changes}
    return prefdata.build(make_config(values, place="test"))


def prompts_of(build: Build) -> dict[str, list[str]]:
    """Return the prompts of each split, sorted."""
    return {
        split: sorted(row["prompt"][0]["content"] for row in build.text(split).to_pylist())
        for split in build.splits
    }


def codes_of(build: Build) -> dict[str, str]:
    """Return the code of each rejected row, by file name and line."""
    return {
        f"{Path(row['source']).name}:{row['line']}": row["code"]
        for row in build.rejected().to_pylist()
    }
