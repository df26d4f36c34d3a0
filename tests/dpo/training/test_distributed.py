"""Commands as a shell runs them: one process or two, stopped, wrong, or killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dpo.cli import ref, train
from dpo.config import TrainConfig
from dpo.data.sampler import packs_in_order
from dpo.reference_pass import compute_reference
from tests.dpo.conftest import Arena, build_pairs, open_alone, save_llama
from tests.dpo.ranks import run_forked
from tests.effort import IS_FULL

ConfigOf = Callable[..., TrainConfig]
SPEEDS = {"tokens_per_second", "step_seconds", "mfu"}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def write_config(path: Path, config: TrainConfig) -> Path:
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def launch(processes: int) -> list[str]:
    """Return the beginning of a command that runs in several processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*command, f"--nproc-per-node={processes}"]


def run_in(processes: int, config: Path, out: Path, **environment: str) -> Path:
    """Run a config to its end; return its output directory."""
    logs = out.with_name(f"{out.name}-logs")
    done = run_forked(processes, [str(config), f"out={out}"], logs, **environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["processes"] == processes
    assert done.stdout.count("the model is in") == 1
    return out


def run_in_one_and_in_two(config: Path, folder: Path, **environment: str) -> tuple[Path, Path]:
    """Return the output directories of a run in one process and of one in two."""
    return run_in(1, config, folder / "one"), run_in(2, config, folder / "two", **environment)


def test_two_processes_see_the_same_pairs_and_losses_as_one_and_four_the_same_pairs(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    """Packs that do not divide evenly: one rank runs a dummy pack so that collectives match."""
    config = config_of(global_batch_size=5, steps=8, pack_tokens=90, eval_every=4, log_pairs=True)
    path = write_config(tmp_path / "train.yaml", config)
    one, two = run_in_one_and_in_two(path, tmp_path)

    assert lines(one / "pairs.jsonl") == lines(two / "pairs.jsonl")
    if IS_FULL:
        four = run_in(4, path, tmp_path / "four")
        assert lines(one / "pairs.jsonl") == lines(four / "pairs.jsonl")
    assert [len(line["pair_ids"]) for line in lines(two / "pairs.jsonl")] == [5] * 8
    for left, right in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        for name in left.keys() - SPEEDS:
            assert left[name] == pytest.approx(right[name], abs=1e-4, rel=1e-4), name
        if "loss" in left:
            assert abs(left["loss"] - right["loss"]) <= 1e-5


def test_ranks_stay_in_step_where_a_model_has_buffers(config_of: ConfigOf, tmp_path: Path) -> None:
    """DDP broadcasts buffers in every forward pass, so ranks must make equally many passes."""
    model = save_llama(tmp_path / "model")
    data = build_pairs(tmp_path / "data", tokenizer=model)
    compute_reference(data, model=str(model))
    config = config_of(model=str(model), data=str(data), pack_tokens=4096)
    run = open_alone(config)
    assert list(run.policy.buffers())
    assert run.test is not None
    (shares,) = packs_in_order(run.test.pairs, len(run.test.pairs), budget=4096, ranks=2)
    assert [list(map(bool, share)) for share in shares] == [[True], [False]], "one has no work"
    one, two = run_in_one_and_in_two(write_config(tmp_path / "train.yaml", config), tmp_path)

    for left, right in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        for name in left.keys() - SPEEDS:
            assert left[name] == pytest.approx(right[name], abs=1e-4, rel=1e-4), name


def test_groups_are_the_same_in_two_processes(
    config_of: ConfigOf, ranked: Path, tmp_path: Path
) -> None:
    groups = {"batch_unit": "groups", "average_over": "groups", "loss": {"name": "plackett_luce"}}
    config = config_of(
        **groups, data=str(ranked), global_batch_size=3, steps=6, pack_tokens=90, log_pairs=True
    )
    path = write_config(tmp_path / "train.yaml", config)
    one, two = run_in_one_and_in_two(path, tmp_path)

    assert lines(one / "pairs.jsonl") == lines(two / "pairs.jsonl")
    assert min(len(line["pair_ids"]) for line in lines(two / "pairs.jsonl")) > 3
    for left, right in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        if "loss" in left:
            assert abs(left["loss"] - right["loss"]) <= 1e-5
            assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4)


def test_a_loss_of_coupled_pairs_is_the_same_in_two_processes(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    losses = [{"name": name} for name in ("aot", "kto_pair", "dr_dpo", "beta_dpo")]
    config = config_of(global_batch_size=5, steps=4, pack_tokens=90, loss=losses)
    path = write_config(tmp_path / "train.yaml", config)
    one, two = run_in_one_and_in_two(path, tmp_path)

    for left, right in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        if "loss" in left:
            assert abs(left["loss"] - right["loss"]) <= 1e-5
            assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_from_which_the_run_continues(
    number: signal.Signals, config_of: ConfigOf, tmp_path: Path
) -> None:
    config = config_of(steps=3000)
    path = write_config(tmp_path / "train.yaml", config)
    command = [sys.executable, "-m", "dpo", str(path)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    metrics = config.out / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_bytes().splitlines()) > 3):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)

    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 128 + number
    assert "run again to continue" in errors
    (checkpoint,) = (config.out / "checkpoints").iterdir()
    stopped = int(checkpoint.name.removeprefix("step-"))
    assert stopped == lines(metrics)[-1]["step"]
    assert not (config.out / "run.json").exists()
    # steps of a constant schedule may be moved: the rest of the run is two steps
    again = CliRunner().invoke(train, [str(path), f"steps={stopped + 2}"])
    assert again.exit_code == 0, again.output
    assert [line["step"] for line in lines(metrics) if "loss" in line] == list(
        range(1, stopped + 3)
    )


def test_a_second_trainer_in_a_folder_is_refused(config_of: ConfigOf, tmp_path: Path) -> None:
    from prefdata.store.commit import lock_folder

    config = config_of()
    path = write_config(tmp_path / "train.yaml", config)
    config.out.mkdir(parents=True)

    with lock_folder(config.out):
        result = CliRunner().invoke(train, [str(path)])

    assert result.exit_code == 4
    assert "E141" in result.output


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"lossess": {}}, "T121", "did you mean 'loss'?"),
        ({"loss": {"betta": 1}}, "T121", "loss.betta: no such key; did you mean 'beta'?"),
        ({"loss": {"name": "hinge", "label_smoothing": 0.1}}, "T122", "is not used by hinge"),
        ({"loss": {"name": "cdpo", "label_smoothing": 0.5}}, "T122", "less than 0.5"),
        ({"steps": 3, "epochs": 2}, "T122", "give one"),
        ({"lora": {"dropout": 0.1}}, "T122", "lora.dropout needs"),
        ({"lora": {"rank": 8}}, "T121", "lora.rank: no such key"),
        ({"global_batch_size": 0}, "T122", "global_batch_size"),
        ({"model": "./nowhere"}, "T101", "is not a directory"),
        ({"data": "./nowhere"}, "E132", "no build was finished here"),
    ],
)
def test_a_wrong_config_is_one_line_and_exit_code_2(
    change: dict[str, Any], code: str, says: str, config_of: ConfigOf, tmp_path: Path
) -> None:
    value = config_of().model_dump(mode="json", exclude_unset=True) | change
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(value))

    result = CliRunner().invoke(train, [str(path)])

    assert result.exit_code == 2
    assert f"[{code}]" in result.output
    assert says in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (config_of().out / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed", "write key=value"),
        ("seed.deep=1", "has no settings"),
        ("seed=[", "quote it"),
        ("loss.beta=0.2", "loss is a list"),
    ],
)
def test_a_wrong_override_says_what_to_write(
    override: str, says: str, config_of: ConfigOf, tmp_path: Path
) -> None:
    mixture = [{"name": "dpo"}, {"name": "sft"}]
    path = write_config(tmp_path / "train.yaml", config_of(seed=1, loss=mixture))

    result = CliRunner().invoke(train, [str(path), override])

    assert result.exit_code == 2
    assert says in result.output


def test_an_unknown_architecture_is_named(arena: Arena, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in arena.model.glob("tokenizer*"):
        (model / file.name).write_bytes(file.read_bytes())
    for file in arena.model.glob("*.jinja"):
        (model / file.name).write_bytes(file.read_bytes())
    (model / "config.json").write_text('{"model_type": "of_tomorrow"}')

    result = CliRunner().invoke(ref, [str(arena.data), "--model", str(model), "--name", "new"])

    assert result.exit_code == 2
    assert "[T102]" in result.output
    assert "of_tomorrow" in result.output


def test_help_has_an_example() -> None:
    for command in (train, ref):
        text = CliRunner().invoke(command, ["--help"]).output
        assert "Example" in text


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/data/model"),
        Exception("No space left on device (os error 28)"),  # as tokenizers says it
    ],
    ids=["Python", "Rust"],
)
def test_a_full_disk_is_one_line(
    error: Exception, config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("dpo.training.loop.save_run", full)
    result = CliRunner().invoke(train, [str(write_config(tmp_path / "t.yaml", config_of()))])

    assert result.exit_code == 2
    assert "No space left on device; make room and run again" in result.output.splitlines()[-1]
    assert "[E151]" in result.output
    assert "Traceback" not in result.output


def test_another_error_is_not_reported_as_a_full_disk(
    config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("dpo.training.loop.save_run", broken)
    result = CliRunner().invoke(train, [str(write_config(tmp_path / "t.yaml", config_of()))])

    assert result.exit_code == 70
    assert "unexpected RuntimeError: shapes do not fit" in result.output.splitlines()[-1]
    assert "[X001]" in result.output
