"""Reference log-probs by several processes: the files of one process, from any number of starts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prefdata
from dpo.data.reference_store import open_reference
from dpo.reference_pass import compute_reference
from tests.dpo.conftest import Arena, build_pairs, save_llama
from tests.dpo.training.test_distributed import ENVIRONMENT, launch
from tests.dpo.training.test_sharding import FSDP2
from tests.effort import IS_FULL

SMALL_STEPS = """
import os, signal, sys
from contextlib import contextmanager
import dpo.data.sampler
import dpo.reference_pass
from prefdata.progress import Silent

dpo.data.sampler.WINDOW, dpo.reference_pass.KEEP_EVERY = 2, 0.0
data, model, stop = sys.argv[1:]

class DiesAt(Silent):
    @contextmanager
    def bar(self, title, total):
        done = 0
        def advance(rows):
            nonlocal done
            done += rows
            if done >= int(stop):
                os.kill(os.getpid(), signal.SIGKILL)
        yield advance

dpo.reference_pass.compute_reference(data, model=model, pack_tokens=40, progress=DiesAt())
"""


@pytest.fixture
def build(arena: Arena, tmp_path: Path) -> Path:
    """Return a build of several windows a shard, without log-probs."""
    return build_pairs(tmp_path / "data", tokenizer=arena.model, shard_rows=20)


def in_two(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in two processes, as the `--help` of dpo-ref says."""
    return subprocess.run(
        [*launch(2), "--no-python", *command],
        env=ENVIRONMENT | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        | environment,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def run_until(rows: int | None, data: Path, model: Path, *, processes: int) -> None:
    """Run a pass; after some rows its first process is killed, and the launcher ends the others."""
    script = data.with_name("small_steps.py")
    script.write_text(SMALL_STEPS)
    stop = 10**9 if rows is None else rows
    command = launch(processes) if processes > 1 else [sys.executable]
    done = subprocess.run(
        [*command, str(script), str(data), str(model), str(stop)],
        env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode == 0) == (rows is None), done.stderr


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_pass_continues_with_other_numbers_of_processes(
    arena: Arena, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dealt packs are those of one process, so even the manifest is the same."""
    monkeypatch.setattr("dpo.data.sampler.WINDOW", 2)
    alone = shutil.copytree(build, tmp_path / "alone")
    compute_reference(alone, model=str(arena.model), pack_tokens=40)
    for processes, rows in ((2, 6), *([(4, 20)] if IS_FULL else [])):
        run_until(rows, build, arena.model, processes=processes)
        assert any(".from-" in name for name in files_of(build / "reference" / "default"))

    run_until(None, build, arena.model, processes=3 if IS_FULL else 1)
    assert files_of(build / "reference" / "default") == files_of(alone / "reference" / "default")


def test_sharded_weights_give_the_log_probs_of_whole_ones(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model")
    data = build_pairs(tmp_path / "data", tokenizer=model)
    compute_reference(data, model=str(model), name="alone")

    done = in_two("dpo-ref", str(data), "--model", str(model), **FSDP2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("30 pairs") == 1
    ours, theirs = (open_reference(prefdata.open(data), name) for name in ("default", "alone"))
    assert ours.manifest.weights_sha256 == theirs.manifest.weights_sha256
    for split in ("train", "test"):
        for left, right in zip(ours.tables(split), theirs.tables(split), strict=True):
            assert left["pair_id"] == right["pair_id"]
            for column in ("ref_chosen_logps", "ref_rejected_logps"):
                sums = [table[column].to_numpy() for table in (left, right)]
                assert np.allclose(*sums, atol=1e-4)


def test_an_error_of_one_process_ends_all_with_one_line(arena: Arena, build: Path) -> None:
    """Process 1 does not find the model; the first one waits for it, and is ended."""
    (build.parent / "0").mkdir()
    (build.parent / "1").mkdir()
    (build.parent / "0" / "model").symlink_to(arena.model)
    command = f"cd {build.parent}/$RANK && exec dpo-ref {build} --model ./model"
    done = in_two("bash", "-c", command)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if re.search(r"\[[A-Z]\d{3}\]$", line)]
    assert line.endswith("[T101]")


def test_other_commands_refuse_several_processes(tmp_path: Path) -> None:
    done = in_two("dpo-score", "model", "data", "-o", str(tmp_path / "out"))
    assert "dpo-score runs in one process, and 2 were started" in done.stderr
    assert done.stderr.count("[T170]") == 1
