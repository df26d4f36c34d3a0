"""Croissant: the Hub's metadata from a set's card is valid, and its records are the rows."""

import io
from pathlib import Path
from typing import Any

import mlcroissant as mlc
import orjson
import pytest
import requests
import yaml
from pyarrow import parquet

from prefdata.sharing.push import PushOptions, push
from prefdata.store.reader import Build
from tests.hub import FakeHub

NAME, REPO = "org/set", "datasets/org/set"
pytestmark = pytest.mark.filterwarnings("ignore")
"""Warnings of mlcroissant's own parts."""


@pytest.fixture
def files(build: Build, hub: FakeHub) -> dict[str, bytes]:
    push(build.path, NAME, PushOptions(public=True))
    return hub.head(REPO)[1]


def read_header(files: dict[str, bytes]) -> dict[str, Any]:
    return dict(yaml.safe_load(files["README.md"].decode().split("---\n")[1]))


def convert(files: dict[str, bytes], root: Path) -> None:
    """Write the Parquet files of a set where its metadata names them: CONFIG/SPLIT/FILE."""
    for config in read_header(files)["configs"]:
        for one in config["data_files"]:
            folder = root / config["config_name"] / one["split"]
            folder.mkdir(parents=True)
            start = one["path"].partition("*")[0]
            for name in filter(lambda name: name.startswith(start), files):
                (folder / Path(name).name).write_bytes(files[name])


def test_what_the_hub_serves_from_the_card_is_valid(
    files: dict[str, bytes], build: Build, hub: FakeHub
) -> None:
    about = mlc.Dataset(f"{hub.address}/api/datasets/{NAME}/croissant").metadata

    assert not about.ctx.issues.errors
    assert about.name == "set"
    assert "mit" in str(about.license)
    names = [config["config_name"] for config in read_header(files)["configs"]]
    by_name = {one.uuid: one for one in about.record_sets}
    assert {one for one in by_name if not one.endswith("_splits")} == set(names)
    for name, columns in (("default", build.text("train")), (names[1], build.tokens("train"))):
        fields = {field.uuid.partition("/")[2] for field in by_name[name].fields}
        assert fields == {"split", *columns.column_names}


def test_its_records_are_the_rows_of_every_config(
    files: dict[str, bytes], build: Build, hub: FakeHub, tmp_path: Path
) -> None:
    """Read the metadata as served, except that its files are in a directory, not in git."""
    convert(files, tmp_path)
    about = requests.get(f"{hub.address}/api/datasets/{NAME}/croissant", timeout=60).json()
    for file_set in about["distribution"][1:]:
        del file_set["containedIn"]
    (tmp_path / "croissant.json").write_bytes(orjson.dumps(about))
    served = mlc.Dataset(str(tmp_path / "croissant.json"))

    for config in read_header(files)["configs"]:
        config_name = config["config_name"]
        folder = "text" if config_name == "default" else config_name
        records = list(served.records(config_name))
        tables = [
            parquet.read_table(io.BytesIO(data))
            for path, data in files.items()
            if path.startswith(f"{folder}/")
        ]
        wanted = sorted(one for table in tables for one in table["pair_id"].to_pylist())
        assert sorted(one[f"{config_name}/pair_id"].decode() for one in records) == wanted
        assert {one[f"{config_name}/split"].decode() for one in records} == set(build.splits)


def test_the_card_states_columns_and_sizes_as_they_are(files: dict[str, bytes]) -> None:
    infos = {one["config_name"]: one for one in read_header(files)["dataset_info"]}

    for name, info in infos.items():
        folder = "text" if name == "default" else name
        for split in info["splits"]:
            start = f"{folder}/{split['name']}-"
            data = [files[path] for path in files if path.startswith(start)]
            rows = sum(parquet.read_metadata(io.BytesIO(one)).num_rows for one in data)
            assert split["num_examples"] == rows
        size = sum(len(files[path]) for path in files if path.startswith(f"{folder}/"))
        assert info["download_size"] == size
        assert info["dataset_size"] == sum(split["num_bytes"] for split in info["splits"]) > 0
