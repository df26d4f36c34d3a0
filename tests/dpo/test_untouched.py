"""Commands of dpo never overwrite their inputs or files that they did not make, by a census."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from dpo import cli
from dpo.config_file import read_config
from dpo.data.reference_store import ReferenceManifest, open_reference
from dpo.errors import DpoError
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from prefdata.errors import PrefdataError
from prefdata.store.reader import open_build
from tests.census import require_untouched, snapshot
from tests.dpo.conftest import Arena, save_gpt2, without_plan

Step = Callable[[], object]
"""Setup of the working directory."""
SHARD = "test-00000-of-00002.arrow"
OTHER_SHARDS = [
    *("train-00000-of-00003.arrow", "train-00001-of-00003.arrow", "train-00002-of-00003.arrow"),
    "test-00001-of-00002.arrow",
]
TRAIN, REF = ["train", "train.yaml"], ["ref", "data", "--model", "model"]
SCORE = ["score", "model", "data", "-o", "scores"]
SAMPLE = ["sample", "prompts.jsonl", "--model", "model", "-k", "2", "--max-new-tokens", "2", "-o"]


def put(name: str, content: str = "mine\n") -> Step:
    def step() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)

    return step


def linked(name: str, target: str) -> Step:
    def step() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).symlink_to(Path(target).absolute())

    return step


def copied(name: str, new: str) -> Step:
    def step() -> None:
        copy = shutil.copytree if Path(name).is_dir() else shutil.copyfile
        Path(new).parent.mkdir(parents=True, exist_ok=True)
        copy(name, new)

    return step


def removed(name: str) -> Step:
    return lambda: shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()


def config(**changes: object) -> Step:
    values = {
        "model": "model", "data": "data", "out": "run", "global_batch_size": 4, "steps": 3,
        "optimizer": {"learning_rate": 1e-3}, "checkpoint_every": 1,
    }  # fmt: skip
    return put("train.yaml", json.dumps(values | changes))


def trained(**changes: object) -> Step:
    """Return a step that makes a finished run in `run`, and its config."""

    def step() -> None:
        config(**changes)()
        train(read_config(Path("train.yaml")))

    return step


def scored() -> None:
    assert CliRunner().invoke(cli.score, SCORE[1:]).exit_code == 0


def command(words: list[str]) -> object:
    return CliRunner().invoke(getattr(cli, words[0]), words[1:])


def listed(name: str, **changes: object) -> Step:
    """Return a step that changes entries of a reference manifest and seals it again."""

    def step() -> None:
        path = Path("data/reference/default") / name
        manifest = ReferenceManifest.model_validate_json(
            Path("data/reference/default/manifest.json").read_bytes()
        )
        first = manifest.shards[0].model_copy(update=changes)
        shards = [first, *manifest.shards[1:]] if changes else list(manifest.shards[1:])
        Path("data/reference/default/manifest.json").unlink()
        path.write_bytes(manifest.with_shards(shards).to_bytes())

    return step


class Refused(NamedTuple):
    """Setup, a command, and the code that it ends with."""

    name: str
    steps: list[Step]
    words: list[str]
    code: str


def named(name: str) -> list[str]:
    return [*REF, "--name", name]


REFUSED = [
    Refused("ref: a name that leads to tokens", [], named("../tokens"), "T161"),
    Refused("ref: an absolute name", [], named("/tmp/x"), "T161"),
    Refused("ref: two dots", [], named(".."), "T161"),
    Refused("ref: one dot", [], named("."), "T161"),
    Refused("ref: no name", [], named(""), "T161"),
    Refused("ref: a path", [], named("a/b"), "T161"),
    Refused("ref: a hidden name", [], named(".x"), "T161"),
    Refused("ref: a name with a line end", [], named("a\nb"), "T161"),
    Refused("ref: a backslash", [], named("..\\tokens"), "T161"),
    Refused("ref: 500 letters", [], named("x" * 500), "T161"),
    Refused("ref: not UTF-8", [], named(os.fsdecode(b"x\xff")), "E190"),
    Refused("ref: another case", [], named("Default"), "T161"),
    Refused("ref: somebody's directory", [put("data/reference/x/notes")], named("x"), "E171"),
    Refused("ref: somebody's file", [put("data/reference/x")], named("x"), "E171"),
    Refused("ref: a link to tokens", [linked("data/reference/x", "data/tokens")], named("x"),
            "E170"),
    Refused("ref: a link to the build", [linked("data/reference/x", "data")], named("x"), "E170"),
    Refused("ref: a link to the model", [linked("data/reference/x", "model")], named("x"), "E171"),
    Refused("ref: a manifest of another tool", [put("data/reference/x/manifest.json", "{}")],
            named("x"), "T207"),
    Refused("ref: a list that leads away", [listed("partial.json", path="../../tokens/" + SHARD)],
            REF, "T163"),
    Refused("ref: a foreign shard", [listed("partial.json"),
            put("data/reference/default/" + SHARD)], REF, "E171"),
    Refused("train: a reference without a shard", [listed("manifest.json"), config()],
            TRAIN, "T163"),
    Refused("train: a reference that leads away",
            [listed("manifest.json", path="../../tokens/" + SHARD), config()], TRAIN, "T163"),
    Refused("train: a reference of absolute paths",
            [listed("manifest.json", path="/etc/passwd"), config()], TRAIN, "T163"),
    Refused("train: a reference of another split",
            [listed("manifest.json", split="dev"), config()], TRAIN, "T163"),
    Refused("train: a reference by a path", [config(reference={"name": "../tokens"})],
            TRAIN, "T161"),
    Refused("train: out has the base model in it", [config(out=".")], TRAIN, "E170"),
    Refused("train: out is the base model", [config(out="model")], TRAIN, "E170"),
    Refused("train: out is the build", [config(out="data")], TRAIN, "E170"),
    Refused("train: out is a link to the build", [linked("o", "data"), config(out="o")],
            TRAIN, "E170"),
    Refused("train: out by dots", [config(out="model/..")], TRAIN, "E170"),
    Refused("train: the base is an earlier run's model", [trained(), config(model="run/model")],
            TRAIN, "E170"),
    Refused("train: the reference model is in out",
            [copied("model", "run/adapter"), config(reference={"model": "run/adapter"})],
            TRAIN, "E170"),
    Refused("train: somebody's model", [put("run/model/config.json"), config()], TRAIN, "E171"),
    Refused("train: a model that came later", [trained(steps=1), removed("run/model"),
            removed("run/run.json"), removed("run/.dpo-train.json"), put("run/model/x"), config()],
            TRAIN, "E171"),
    Refused("train: somebody's metrics", [put("run/metrics.jsonl", '{"step": 1, "loss": 1}\n'),
            config()], TRAIN, "E171"),
    Refused("train: somebody's page", [put("run/report.html"), config()], TRAIN, "E171"),
    Refused("train: somebody's run.json", [put("run/run.json", "{}"), config()], TRAIN, "T142"),
    Refused("train: the config is run.json", [put("run.json"), config(out="."),
            copied("model", "base"), removed("model"), config(out=".", model="base")],
            TRAIN, "T142"),
    Refused("train: somebody's checkpoints", [put("run/checkpoints/step-00000001/notes"),
            config()], TRAIN, "E171"),
    Refused("train: metrics are a link", [linked("run/metrics.jsonl", "prompts.jsonl"), config()],
            TRAIN, "E171"),
    Refused("train: a file as a checkpoint", [trained(), removed("run/run.json"),
            removed("run/checkpoints/step-00000002"), put("run/checkpoints/step-00000002")],
            TRAIN, "T162"),
    Refused("train: a link as a checkpoint", [trained(), removed("run/run.json"),
            removed("run/checkpoints/step-00000002"),
            linked("run/checkpoints/step-00000002", "model")], TRAIN, "T162"),
    Refused("train: out is another build", [copied("data", "other"), config(out="other")],
            TRAIN, "E171"),
    Refused("train: out has 500 letters", [config(out="o" * 500)], TRAIN, "E174"),
    Refused("train: another run", [trained(), config(seed=1)], TRAIN, "T141"),
    Refused("score: out is the build", [], [*SCORE[:-1], "data"], "E170"),
    Refused("score: out is the model", [], [*SCORE[:-1], "model"], "E170"),
    Refused("score: somebody's scores", [put("scores/scores.parquet")], SCORE, "E171"),
    Refused("score: somebody's policy", [put("scores/policy/manifest.json")], SCORE, "E171"),
    Refused("score: a manifest that came later",
            [scored, put("scores/policy/manifest.json", "{}")], SCORE, "T207"),
    Refused("score: rows where the build goes", [copied("prompts.jsonl", "scores/data/rows.jsonl")],
            ["score", "model", "scores/data/rows.jsonl", "-o", "scores"], "E170"),
    Refused("score: out has the data in it", [], [*SCORE[:-1], "."], "E170"),
    Refused("score: a reference by a path", [], [*SCORE, "--reference-name", "../x"], "T161"),
    Refused("sample: the prompts", [], [*SAMPLE, "prompts.jsonl"], "E170"),
    Refused("sample: somebody's file", [put("o.jsonl")], [*SAMPLE, "o.jsonl"], "T137"),
    Refused("sample: a directory", [], [*SAMPLE, "model"], "E170"),
    Refused("sample: a file of the model", [], [*SAMPLE, "model/config.json"], "T137"),
    Refused("sample: a dangling link", [linked("o.jsonl", "nowhere")], [*SAMPLE, "o.jsonl"],
            "T137"),
    Refused("sample: somebody's partial file", [put("o.jsonl.partial", '{"prompt": "a"}\n')],
            [*SAMPLE, "o.jsonl"], "T137"),
    Refused("sample: the prompts are the partial file", [copied("prompts.jsonl", "o.partial")],
            ["sample", "o.partial", *SAMPLE[2:], "o"], "E170"),
    Refused("sample: the partial file is a link", [linked("o.partial", "prompts.jsonl")],
            [*SAMPLE, "o"], "E170"),
    Refused("sample: a name below a file", [], [*SAMPLE, "prompts.jsonl/o"], "E140"),
    Refused("sample: 500 letters", [], [*SAMPLE, "o" * 500], "E174"),
]  # fmt: skip


class Allowed(NamedTuple):
    """Setup, a command that works, and the files that it may touch."""

    name: str
    steps: list[Step]
    words: list[str]
    own: tuple[str, ...]


RUN = tuple(
    f"run/{name}"
    for name in ("run.json", "metrics.jsonl", "hardest.jsonl", "report.html", ".dpo-train.json")
)
ALLOWED = [
    Allowed("train: notes in out", [put("run/notes"), put("run/log.txt"), config()], TRAIN,
            (*RUN, "run/model", "run/checkpoints")),
    Allowed("train: next to everything", [put("metrics.txt"), copied("model", "base"),
            removed("model"), config(model="base", out=".")], TRAIN,
            ("run.json", "metrics.jsonl", "hardest.jsonl", "report.html", ".dpo-train.json",
             "model",
             "checkpoints")),
    Allowed("train: the finished run", [trained()], TRAIN, ()),
    Allowed("train: notes in the model", [trained(steps=2), put("run/model/notes.gguf"),
            put("run/model/sub/x"), config()], TRAIN,
            (*RUN, "run/model/model.safetensors", "run/model/README.md",
             "run/checkpoints/step-00000001", "run/checkpoints/step-00000002")),
    Allowed("train: an edited card", [trained(steps=2), put("run/model/README.md"), config()],
            TRAIN, (*RUN, "run/model/model.safetensors", "run/model/README.new.md",
                    "run/checkpoints/step-00000002", "run/checkpoints/step-00000001")),
    Allowed("train: checkpoints that are not ours",
            [trained(steps=2), put("run/checkpoints/step-00000001.tar.gz"),
             put("run/checkpoints/step-00000000.keep/x"), put("run/checkpoints/step-1/x"),
             linked("run/checkpoints/step-latest", "run/checkpoints/step-00000001"),
             linked("run/checkpoints/step-00000000", "model"),
             put("run/checkpoints/step-00000001/notes"), config(keep_checkpoints=1)], TRAIN,
            (*RUN, "run/model/model.safetensors", "run/model/README.md",
             "run/checkpoints/step-00000001/state.json",
             "run/checkpoints/step-00000001/weights.safetensors",
             "run/checkpoints/step-00000001/optimizer.safetensors",
             "run/checkpoints/step-00000002")),
    Allowed("ref: notes next to it", [put("data/reference/notes"), put("data/reference/y/z")],
            named("x"), ("data/reference/x",)),
    Allowed("ref: notes within", [listed("partial.json"), put("data/reference/default/notes"),
            put(f"data/reference/default/{SHARD}.from-notes")], REF,
            ("data/reference/default/partial.json", "data/reference/default/manifest.json",
             f"data/reference/default/{SHARD}")),
    Allowed("score: notes in out", [put("scores/notes")], SCORE,
            ("scores/policy", "scores/scores.parquet", "scores/suspects.jsonl",
             "scores/score.json", "scores/.dpo-score.json")),
    Allowed("score: another model, with notes", [scored, put("scores/policy/notes")],
            ["score", "second", *SCORE[2:]],
            ("scores/policy/manifest.json", f"scores/policy/{SHARD}",
             *(f"scores/policy/{name}" for name in OTHER_SHARDS),
             "scores/scores.parquet", "scores/suspects.jsonl", "scores/score.json")),
    Allowed("sample: a new file in the model's directory", [], [*SAMPLE, "model/o.jsonl"],
            ("model/o.jsonl",)),
    Allowed("sample: a name like an old temporary file", [put(f".o.jsonl.{os.getpid()}")],
            [*SAMPLE, "o.jsonl"], ("o.jsonl",)),
]  # fmt: skip


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("second") / "model", seed=7)


@pytest.fixture(autouse=True)
def here(arena: Arena, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fill a working directory with two models, a build with its reference, and prompts."""
    shutil.copytree(arena.model, tmp_path / "model")
    shutil.copytree(arena.data, tmp_path / "data")
    shutil.copytree(second, tmp_path / "second")
    monkeypatch.chdir(tmp_path)
    put("prompts.jsonl", '{"prompt": "Tell me a story"}\n')()
    return tmp_path


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_what_is_not_ours_is_refused_and_stays(case: Refused, here: Path) -> None:
    for step in case.steps:
        step()
    before = snapshot(here)

    result = CliRunner().invoke(getattr(cli, case.words[0]), case.words[1:])

    assert f"[{case.code}]" in result.output, (result.output, result.exception)
    assert result.exit_code == 2
    assert not any(word in result.output for word in ("delete", "remove")), "no advice to destroy"
    own = ["run/.dpo-train.json"] if case.code in ("T141", "T142", "T161", "T162", "T163") else []
    own += ["data/reference/x"] if case.code == "T207" else []
    require_untouched(before, snapshot(here), own)


@pytest.mark.parametrize("case", ALLOWED, ids=lambda case: case.name)
def test_what_is_ours_is_written_and_nothing_else(case: Allowed, here: Path) -> None:
    for step in case.steps:
        step()
    before = snapshot(here)

    result = CliRunner().invoke(getattr(cli, case.words[0]), case.words[1:])

    assert result.exit_code == 0, (result.output, result.exception)
    require_untouched(before, snapshot(here), case.own)


def test_an_older_checkpoint_of_another_run_stays(tmp_path: Path) -> None:
    trained(steps=2)()
    copied("run", "kept")()
    trained(steps=4, seed=1, out="other")()
    shutil.copytree("kept/checkpoints/step-00000001", "other/checkpoints/step-00000000")
    removed("other/run.json")()
    removed("other/checkpoints/step-00000003")()
    before = snapshot(tmp_path / "other/checkpoints/step-00000000")

    train(read_config(Path("train.yaml")))

    assert snapshot(tmp_path / "other/checkpoints/step-00000000") == before
    names = sorted(path.name for path in Path("other/checkpoints").iterdir())
    assert names == ["step-00000000", "step-00000002", "step-00000003"]


def flipped(name: str) -> Step:
    def step() -> None:
        data = bytearray(Path(name).read_bytes())
        data[len(data) // 2] ^= 1
        Path(name).write_bytes(data)

    return step


LOST: dict[str, list[Step]] = {
    "deleted": [removed("run/model")],
    "weights deleted": [removed("run/model/model.safetensors")],
    "weights flipped": [flipped("run/model/model.safetensors")],
    "weights cut": [put("run/model/model.safetensors", "")],
    "config flipped": [flipped("run/model/config.json")],
    "tokenizer deleted": [removed("run/model/tokenizer.json")],
    "another model": [removed("run/model"), copied("second", "run/model")],
    "a directory for a file": [removed("run/model/config.json"), put("run/model/config.json/x")],
}


@pytest.mark.parametrize("how", LOST)
def test_a_lost_model_is_reported_and_rebuilt_from_the_checkpoint(how: str) -> None:
    trained()()
    whole = {n: t.clone() for n, t in load_file("run/model/model.safetensors").items()}
    for step in LOST[how]:
        step()
    heard: list[str] = []

    if how == "a directory for a file":
        with pytest.raises(PrefdataError, match="E171"):
            train(read_config(Path("train.yaml")), on_message=heard.append)
        return
    train(read_config(Path("train.yaml")), on_message=heard.append)

    assert any("rebuilt from step-00000002" in line for line in heard), heard
    found = load_file("run/model/model.safetensors")
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    heard.clear()
    train(read_config(Path("train.yaml")), on_message=heard.append)
    assert without_plan(heard) == ["run contains this run, finished at step 3"]


@pytest.mark.parametrize("how", list(LOST)[:6])
def test_a_lost_model_without_a_checkpoint_is_an_error(how: str, here: Path) -> None:
    trained(checkpoint_every=None)()
    for step in LOST[how]:
        step()
    before = snapshot(here)

    with pytest.raises(DpoError, match=r"no checkpoint is left to rebuild it.*T164"):
        train(read_config(Path("train.yaml")))

    require_untouched(before, snapshot(here))


@pytest.mark.parametrize("name", ["metrics.jsonl", "report.html"])
def test_changed_metrics_of_a_finished_run_are_reported(name: str) -> None:
    trained()()
    flipped(f"run/{name}")()
    heard: list[str] = []

    train(read_config(Path("train.yaml")), on_message=heard.append)

    assert without_plan(heard)[0] == f"run/{name} is missing or has changed"


REJECTED_LINES = [
    b"null", b"[]", b"1", b'"step"', b"{}", b'{"step": "1"}', b'{"step": null, "loss": 1}',
    b'{"step": 1.5, "loss": 1}', b'{"loss": 1}', b'{"step": 1, "loss": "x"}', b"\xff\xfe\x00",
    b'{"step": 1, "loss": 0.', b"[" * 100_000, b'{"step": true, "loss": 1}', b"not json",
    b'{"step": 1, "pair_ids": 5}', b'{"step": 1, "loss": {}}', b"9" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("line", REJECTED_LINES, ids=lambda line: repr(line[:24]))
def test_lines_that_no_run_wrote_end_no_run_and_are_kept(line: bytes) -> None:
    trained(log_pairs=True)()
    removed("run/run.json")()
    before = Path("run/metrics.jsonl").read_bytes()
    Path("run/metrics.jsonl").write_bytes(line + b"\n" + before)
    heard: list[str] = []

    train(read_config(Path("train.yaml")), on_message=heard.append)

    lines = Path("run/metrics.jsonl").read_bytes().splitlines()
    assert [orjson.loads(one)["step"] for one in lines if b"eval" not in one] == [1, 2, 3]
    assert any("1 lines are not from a run" in one for one in heard)
    assert Path("run/metrics.new.jsonl").read_bytes() == line + b"\n" + before


def test_a_reference_is_read_as_the_pass_left_it() -> None:
    """A list of shards as `dpo-ref` writes it passes the checks."""
    build = open_build("data")
    compute_reference("data", model="model", name="again")

    found = [open_reference(build, name).manifest for name in ("again", "default")]
    assert [seal.path for seal in found[0].shards] == [seal.path for seal in found[1].shards]
