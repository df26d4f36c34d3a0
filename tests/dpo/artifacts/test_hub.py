"""A model pushed to the Hub by the command: a real client, a server on loopback."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dpo.cli import ref as ref_main
from dpo.cli import train as main
from dpo.config import TrainConfig
from dpo.scoring.run import ScoreOptions, score
from dpo.training.loop import train
from prefdata.errors import UsageError
from prefdata.sharing.pull import find_set
from prefdata.sharing.pull import pull as pull_set
from prefdata.sharing.push import PushOptions
from prefdata.sharing.push import push as push_set
from tests.dpo.conftest import Arena, save_gpt2
from tests.dpo.training.test_distributed import write_config
from tests.hub import TOKEN, FakeHub, use_loopback

ConfigOf = Callable[..., TrainConfig]
REPO = "org/model"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""A warning of the client itself, huggingface_hub 2.4."""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        yield server


@pytest.fixture
def trained(config_of: ConfigOf, tmp_path: Path) -> Path:
    """Return the config file of a finished run."""
    train(config_of())
    return write_config(tmp_path / "train.yaml", config_of())


@pytest.fixture(autouse=True)
def on_loopback(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_loopback(hub, monkeypatch, tmp_path)


def push(config: Path, *words: str) -> Result:
    result = CliRunner().invoke(main, [str(config), "--push", *(words or [REPO])])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert TOKEN not in result.output
    return result


def test_a_model_is_pushed_whole_privately_and_once(trained: Path, hub: FakeHub) -> None:
    done = push(trained)

    assert done.exit_code == 0, done.output
    folder = trained.parent / "run" / "model"
    wanted = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "README.md"}
    sha, files = hub.head(REPO)
    assert files.items() >= wanted.items()
    more = {".gitattributes", "README.md", "dpo-shared.json", "run.json", "train.yaml"}
    assert files.keys() - wanted.keys() == more
    assert f'from_pretrained("{REPO}")' in files["README.md"].decode()
    assert not [name for name, data in files.items() if str(trained.parent).encode() in data]
    assert not [name for name, data in files.items() if b"/arena" in data]
    assert f"{hub.address}/{REPO}/commit/{sha}" in done.output
    assert hub.private[REPO] is True
    assert push(trained).exit_code == 0
    assert len(hub.commits[REPO]) == 2, "the same model again makes no commit"


def test_the_card_has_the_license_that_the_base_states(
    config_of: ConfigOf, arena: Arena, hub: FakeHub, tmp_path: Path
) -> None:
    base = shutil.copytree(arena.model, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: [apache-2.0]\n---\n# Base\n")
    config = write_config(tmp_path / "train.yaml", config_of(steps=1, model=str(base)))

    assert push(config).exit_code == 0
    header = hub.head(REPO)[1]["README.md"].decode().split("---")[1]
    assert "license: apache-2.0" in header


def test_files_of_an_older_model_go_with_the_same_commit(trained: Path, hub: FakeHub) -> None:
    old = "model-00001-of-00002.safetensors"
    hub.create(REPO, {old: b"old", "dpo-shared.json": json.dumps({"files": [old]}).encode()})

    assert push(trained, REPO).exit_code == 0
    assert len(hub.commits[REPO]) == 2
    assert "model-00001-of-00002.safetensors" not in hub.head(REPO)[1]


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ({"whoami": 401}, "T173", "hf auth login"),
        ({"/commit/": 403}, "T310", "a token that allows it"),
        ({"objects/batch": 400}, "T310", "run the same command again"),
        ({"/commit/": 412}, "T310", "changed by somebody else"),
        ({"/commit/": 404}, "T310", "run the same command again"),
        ({"/objects/": 400}, "T310", "HTTP 400"),
        ({"/objects/": "flip"}, "T310", "holds other bytes"),
    ],
    ids=str,
)
def test_a_fault_is_one_coded_line_and_the_old_model_stays(
    fault: dict[str, object], code: str, says: str, trained: Path, hub: FakeHub
) -> None:
    record = {"dpo-shared.json": b'{"files": ["model.safetensors"]}'}
    hub.create(REPO, {"model.safetensors": b"old"} | record)
    hub.faults = fault

    done = push(trained)

    assert done.exit_code == (2 if code == "T173" else 1)
    last = done.output.strip().splitlines()[-1]
    assert f"[{code}]" in last
    assert says in last
    assert (trained.parent / "run" / "model" / "model.safetensors").exists()
    if fault != {"/objects/": "flip"}:
        assert hub.head(REPO)[1]["model.safetensors"] == b"old"


def test_files_of_somebody_else_stop_a_push_before_training(
    config_of: ConfigOf, hub: FakeHub, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "train.yaml", config_of(steps=1))
    mine = {"LICENSE": b"mine", "gguf/model.gguf": b"x", "README.md": b"# My words"}
    head = hub.create(REPO, mine)
    hub.create("org/public", private=False)
    refused, public = push(config), push(config, "org/public")

    assert "[E205]" in refused.output
    assert "LICENSE, gguf/model.gguf" in refused.output
    assert "[E206]" in public.output
    assert not (tmp_path / "run").exists()
    assert hub.head(REPO)[0] == head
    assert push(config, REPO, "--replace").exit_code == 0
    assert "LICENSE" not in hub.head(REPO)[1]
    assert "# My words" in hub.head(REPO)[1]["README.md"].decode()
    assert push(config, "org/public", "--public").exit_code == 0


@pytest.mark.parametrize("name", ["model", "a/b/c", "org/ü"])
def test_an_invalid_name_is_refused_before_training(
    name: str, config_of: ConfigOf, tmp_path: Path, hub: FakeHub
) -> None:
    done = push(write_config(tmp_path / "train.yaml", config_of()), name)

    assert done.exit_code == 2
    assert "[T173]" in done.output
    assert not (tmp_path / "run").exists()
    assert hub.seen == []


def test_without_a_token_it_says_how_to_log_in(
    trained: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")

    done = push(trained)

    assert done.exit_code == 2
    assert "no token was found; log in with `hf auth login`" in done.output
    assert not hub.commits


def test_public_without_push_is_a_wrong_command(trained: Path) -> None:
    done = CliRunner().invoke(main, [str(trained), "--public"])

    assert done.exit_code == 2
    assert "need --push" in done.output


def losses_of(out: Path) -> list[float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


@pytest.fixture
def shared(arena: Arena, hub: FakeHub) -> str:
    """Push a dataset with its reference log-probs to the Hub; return its commit."""
    done = push_set(arena.data, "org/set", PushOptions(licence="mit"))
    assert done.commit == hub.head("datasets/org/set")[0]
    return str(done.commit)


def test_a_run_from_the_name_of_a_set_is_that_from_its_folder_bit_by_bit(
    config_of: ConfigOf, shared: str, hub: FakeHub, tmp_path: Path
) -> None:
    here = config_of(out=tmp_path / "here", steps=5)
    there = config_of(out=tmp_path / "there", steps=5, data="org/set")
    train(here)
    asked = len(hub.seen)
    train(there)

    assert losses_of(tmp_path / "there") == losses_of(tmp_path / "here")
    assert len(losses_of(tmp_path / "there")) == 5
    summary = json.loads((tmp_path / "there" / "run.json").read_text())
    assert summary["config"]["data"] == f"org/set@{shared}"
    assert len(hub.seen) > asked


def test_a_later_commit_changes_no_run_that_names_an_earlier_one(
    config_of: ConfigOf, shared: str, hub: FakeHub, tmp_path: Path
) -> None:
    hub.commit("datasets/org/set", {"README.md": b"emptied"})

    train(config_of(out=tmp_path / "pinned", steps=2, data=f"org/set@{shared}"))
    with pytest.raises(UsageError, match="E210"):
        train(config_of(out=tmp_path / "newest", steps=2, data="org/set"))

    assert len(losses_of(tmp_path / "pinned")) == 2


def test_log_probs_are_added_to_a_set_and_nobody_computes_them_again(
    shared: str, hub: FakeHub, tmp_path: Path, config_of: ConfigOf
) -> None:
    other = save_gpt2(tmp_path / "other", seed=7)
    words = ["org/set", "--model", str(other), "--name", "seven", "--push"]
    done = CliRunner().invoke(ref_main, words)
    assert done.exit_code == 0, done.output
    head, files = hub.head("datasets/org/set")
    back = pull_set(find_set("org/set"), tmp_path / "back")

    assert head != shared
    assert {path.parent.name for path in back.path.glob("reference/*/manifest.json")} == {
        "default",
        "seven",
    }
    assert "license:\n- mit" in files["README.md"].decode()
    assert f"{tmp_path}" not in files["reference/seven/manifest.json"].decode()
    train(config_of(out=tmp_path / "run", steps=1, data="org/set", model=str(other),
                    reference={"name": "seven"}))  # fmt: skip
    again = CliRunner().invoke(ref_main, words)
    assert again.exit_code == 0, again.output
    assert hub.head("datasets/org/set")[0] == head, "nothing new makes no commit"


def test_an_option_of_a_push_is_refused_without_one(arena: Arena) -> None:
    for words in (["--public"], ["--push"]):
        done = CliRunner().invoke(ref_main, [str(arena.data), "--model", str(arena.model), *words])
        assert done.exit_code == 2
        assert "--push" in done.output


def test_log_probs_of_an_old_commit_replace_nothing_newer(
    arena: Arena, shared: str, hub: FakeHub
) -> None:
    newer = hub.commit("datasets/org/set", hub.head("datasets/org/set")[1] | {"README.md": b"x"})
    words = [f"org/set@{shared}", "--model", str(arena.model), "--name", "late", "--push"]
    done = CliRunner().invoke(ref_main, words)

    assert done.exit_code == 1
    assert "[E203]" in done.output
    assert hub.head("datasets/org/set")[0] == newer


def test_a_set_is_scored_by_its_name_with_its_own_reference(
    arena: Arena, shared: str, tmp_path: Path
) -> None:
    options = ScoreOptions(model=str(arena.model))
    here = score([str(arena.data)], tmp_path / "here", options)
    there = score(["org/set"], tmp_path / "there", options)

    assert shared
    assert there == here
    for name in ("scores.parquet", "suspects.jsonl"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
