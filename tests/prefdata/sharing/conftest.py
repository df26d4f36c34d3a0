"""A build with two references and three sources in three splits, and a server to share it on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

import prefdata
from prefdata.config import BuildConfig
from prefdata.sharing.references import FORMAT
from prefdata.store.canonical import own_hash, to_json
from prefdata.store.commit import seal_file
from prefdata.store.reader import Build
from prefdata.store.shards import REFERENCE, TOKEN_LOGPS, write_shard
from tests.hub import FakeHub, use_loopback


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        yield server


@pytest.fixture(autouse=True)
def environment(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Return the environment of commands in separate processes."""
    return use_loopback(hub, monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def build(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build pairs of three files in three splits, with refused rows and two references."""
    made = make_build(tmp_path_factory.mktemp("shared"), tiny)
    for number, name in enumerate(("one", "two")):
        add_reference(made, name, seed=number)
    return made


def make_build(folder: Path, tiny: Path, name: str = "out", **changes: Any) -> Build:
    data = folder / "data of mine"
    data.mkdir(exist_ok=True)
    for split, start, stop in (("train", 0, 40), ("validation", 40, 50), ("test", 50, 58)):
        rows: list[dict[str, Any]] = [
            {
                "prompt": [{"role": "user", "content": f"What is {n} plus {n}?"}],
                "chosen": [{"role": "assistant", "content": f"It is {2 * n}."}],
                "rejected": [{"role": "assistant", "content": f"Who knows {n}?"}],
                "score_chosen": n / 3,
                "score_rejected": 0.0,
                "license": "mit",
            }
            for n in range(start, stop)
        ]
        rows.append({"prompt": "refused row of mine"})
        rows.append(rows[0] | {"note": "unread value of mine"})
        rows.append(rows[1] | {"chosen": [{"role": "odd role of mine", "content": "x"}]})
        (data / f"{split}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    values = {
        "inputs": [str(data / "*.jsonl")],
        "tokenizer": str(tiny),
        "out": folder / name,
        "shard_rows": 16,
        "severity": {"PD402": "off"},
    }
    return prefdata.build(BuildConfig(**(values | changes)))


def add_reference(build: Build, name: str, *, seed: int = 0, model: str = "some-model") -> None:
    """Write random log-probs in the format of `dpo-ref`."""
    generator = np.random.default_rng(seed)
    folder = build.path / "reference" / name
    folder.mkdir(parents=True)
    shards = []
    for split in build.splits:
        for shard in build.shards(split):
            tokens = shard.read()
            logps = [
                [-generator.random(len(ids), np.float32) for ids in tokens[side].to_pylist()]
                for side in ("chosen_ids", "rejected_ids")
            ]
            sums = [np.array([one.sum() for one in side], np.float32) for side in logps]
            table = pa.table(
                [tokens["pair_id"], *sums, *(pa.array(side, TOKEN_LOGPS) for side in logps)],
                schema=REFERENCE,
            )
            path = folder / Path(shard.name).name
            write_shard(path, table)
            shards.append(
                {
                    "path": path.name,
                    "split": split,
                    "rows": shard.rows,
                    "tokens": shard.tokens,
                    **seal_file(path)._asdict(),
                }
            )
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "format_version": 1,
        "model": model,
        "weights_sha256": f"{seed:064x}",
        "mixed_precision": "no",
        "build_hash": build.manifest.hash,
        "content_hash": build.content_hash,
        "token_shards": {one.path: one.sha256 for one in build.manifest.shards},
        "shards": shards,
    }
    manifest["hash"] = own_hash(manifest)
    (folder / "manifest.json").write_bytes(to_json(manifest))
