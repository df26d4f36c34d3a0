"""One split of a shared set, and the functions behind the commands."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import prefdata
from prefdata.cli import main
from prefdata.errors import PrefdataError
from prefdata.sharing.references import find_references
from prefdata.store.reader import Build
from tests.hub import FakeHub
from tests.prefdata.sharing.conftest import add_reference, make_build

NAME, REPO = "org/set", "datasets/org/set"


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""Warnings of the client itself, huggingface_hub 2.4."""


@pytest.fixture
def shared(build: Build, environment: dict[str, str]) -> Build:  # noqa: ARG001 - on the server
    prefdata.push(build.path, NAME)
    return build


def test_one_split_is_a_build_of_its_own(shared: Build, hub: FakeHub, tmp_path: Path) -> None:
    before = len(hub.seen)
    part = prefdata.pull(NAME, tmp_path / "part", splits=["test"])

    assert part.splits == {"test": shared.splits["test"]}
    assert part.tokens("test").equals(shared.tokens("test"))
    assert part.text("test").equals(shared.text("test"))
    assert part.manifest.part_of == shared.manifest.hash
    assert part.content_hash != shared.content_hash
    for mine, theirs in zip(find_references(part), find_references(shared), strict=True):
        (shard,) = part.shards("test")
        assert mine.read(shard).equals(theirs.read(shard))
    fetched = [line for line in hub.seen[before:] if "/resolve/" in line]
    assert not [line for line in fetched if "/train-" in line or "/validation-" in line]
    assert prefdata.verify(part.path).faults == []
    with pytest.raises(PrefdataError, match="no split"):
        part.tokens("train")


def test_more_splits_join_one_and_none_is_removed(shared: Build, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prefdata.pull(NAME, out, splits=["test"])
    again = prefdata.pull(NAME, out, splits=["test"])
    both = prefdata.pull(NAME, out, splits=["test", "validation"])
    assert set(both.splits) == {"validation", "test"}
    assert again.manifest.hash != both.manifest.hash

    with pytest.raises(PrefdataError, match=r"holds the split test .* \[E142"):
        prefdata.pull(NAME, out, splits=["validation"])
    whole = prefdata.pull(NAME, out)
    assert whole.manifest.hash == shared.manifest.hash
    assert len(find_references(whole)) == 2
    assert prefdata.pull(NAME, out, splits=["train"]).manifest.hash == shared.manifest.hash


@pytest.mark.usefixtures("shared")
def test_a_missing_split_is_reported_with_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(PrefdataError, match=r"no split dev; it has .*train.* \[E213\]"):
        prefdata.pull(NAME, tmp_path / "out", splits=["dev"])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("shared")
def test_a_part_is_not_shared_as_a_set(tmp_path: Path) -> None:
    part = prefdata.pull(NAME, tmp_path / "part", splits=["test"])
    with pytest.raises(PrefdataError, match=r"test.*E214"):
        prefdata.push(part.path, "org/part")


@pytest.mark.usefixtures("shared")
def test_the_command_pulls_a_split_and_says_so(tmp_path: Path) -> None:
    words = ["pull", NAME, "--split", "test", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, words)

    assert done.exit_code == 0, done.output
    assert "(only test)" in done.output


def test_functions_take_names_and_directories(shared: Build, tmp_path: Path) -> None:
    pulled = prefdata.pull(NAME, str(tmp_path / "out"))

    assert prefdata.verify(NAME).faults == []
    assert prefdata.verify(str(pulled.path)).faults == []
    assert not prefdata.diff(NAME, pulled.path).differs
    again = prefdata.push(str(shared.path), NAME, prefdata.PushOptions())
    assert again.url is None


@pytest.mark.usefixtures("shared")
def test_the_card_names_the_sets_that_a_set_is_made_from(
    hub: FakeHub, tiny: Path, tmp_path: Path
) -> None:
    again = prefdata.build(NAME, tokenizer=str(tiny), out=tmp_path / "again")
    prefdata.push(again.path, "org/again", prefdata.PushOptions(licence="mit"))

    assert read_header(hub, "datasets/org/again")["source_datasets"] == [NAME]
    assert read_header(hub, REPO)["source_datasets"] == ["original"]


def test_the_card_states_the_licence_of_the_reference_as_its_model_does(
    hub: FakeHub, tiny: Path, tmp_path: Path
) -> None:
    made = make_build(tmp_path, tiny)
    add_reference(made, "stated", model="org/model")
    add_reference(made, "unknown", model="org/other")
    hub.create("org/model", {"README.md": b"---\nlicense: apache-2.0\n---\n# m\n"})
    prefdata.push(made.path, NAME)

    card = hub.head(REPO)[1]["README.md"].decode()
    assert "| org/model | apache\\-2.0 |" in card or "| org/model | apache-2.0 |" in card
    assert "| org/other | not stated |" in card


def read_header(hub: FakeHub, repo: str) -> dict[str, Any]:
    return dict(yaml.safe_load(hub.head(repo)[1]["README.md"].split(b"---\n")[1]))
