"""A model on the Hub, as the command puts it there: a real client, a server on loopback."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dpo.cli import train as main
from dpo.config import TrainConfig
from dpo.training import train
from tests.dpo.fake_hub import TOKEN, FakeHub
from tests.dpo.test_processes import write_config

ConfigOf = Callable[..., TrainConfig]
REPO = "org/model"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""The client's own, of huggingface_hub 2.4."""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        yield server


@pytest.fixture
def trained(config_of: ConfigOf, tmp_path: Path) -> Path:
    """The config of a run that has ended."""
    train(config_of())
    return write_config(tmp_path / "train.yaml", config_of())


@pytest.fixture(autouse=True)
def on_loopback(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def push(config: Path, *words: str) -> Result:
    result = CliRunner().invoke(main, [str(config), "--push", *(words or [REPO])])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert TOKEN not in result.output
    return result


def test_a_model_is_pushed_whole_privately_and_once(trained: Path, hub: FakeHub) -> None:
    done = push(trained)

    assert done.exit_code == 0, done.output
    folder = trained.parent / "run" / "model"
    wanted = {file.name: file.read_bytes() for file in folder.iterdir()}
    sha, files = hub.head(REPO)
    assert {name: data for name, data in files.items() if name != ".gitattributes"} == wanted
    assert f"{hub.address}/{REPO}/commit/{sha}" in done.output
    assert hub.private[REPO] is True
    assert push(trained).exit_code == 0
    assert len(hub.commits[REPO]) == 2, "the same model again makes no commit"


def test_files_of_an_older_model_go_with_the_same_commit(trained: Path, hub: FakeHub) -> None:
    hub.commits[REPO] = []
    hub.commit(REPO, {".gitattributes": b"", "model-00001-of-00002.safetensors": b"old"})

    assert push(trained, REPO, "--public").exit_code == 0
    assert len(hub.commits[REPO]) == 2
    assert "model-00001-of-00002.safetensors" not in hub.head(REPO)[1]


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ({"whoami": 401}, "T173", "hf auth login"),
        ({"/commit/": 403}, "T310", "a token that may write"),
        ({"objects/batch": 400}, "T310", "run the same command again"),
        ({"/commit/": 412}, "T310", "somebody else has changed it"),
        ({"/commit/": 404}, "T310", "run the same command again"),
        ({"/objects/": 400}, "T310", "HTTP 400"),
        ({"/objects/": "flip"}, "T310", "holds other bytes"),
    ],
    ids=str,
)
def test_a_fault_is_one_coded_line_and_the_old_model_stays(
    fault: dict[str, object], code: str, says: str, trained: Path, hub: FakeHub
) -> None:
    hub.commits[REPO] = []
    hub.commit(REPO, {"model.safetensors": b"old"})
    hub.faults = fault

    done = push(trained)

    assert done.exit_code == (2 if code == "T173" else 1)
    last = done.output.strip().splitlines()[-1]
    assert f"[{code}]" in last
    assert says in last
    assert (trained.parent / "run" / "model" / "model.safetensors").exists()
    if fault != {"/objects/": "flip"}:
        assert hub.head(REPO)[1] == {"model.safetensors": b"old"}


@pytest.mark.parametrize("name", ["model", "a/b/c", "org/ü"])
def test_a_name_that_is_none_is_refused_before_training(
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
    assert "(no token was found); log in with `hf auth login`" in done.output
    assert not hub.commits


def test_public_alone_is_a_wrong_command(trained: Path) -> None:
    done = CliRunner().invoke(main, [str(trained), "--public"])

    assert done.exit_code == 2
    assert "with --push alone" in done.output
