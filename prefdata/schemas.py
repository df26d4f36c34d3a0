"""JSON Schemas of all files that prefdata reads or writes: `python -m prefdata.schemas FOLDER`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from prefdata.comparison.compare import Comparison
from prefdata.config import BuildConfig
from prefdata.read.layouts.model import Layout
from prefdata.records.schema import Record
from prefdata.report.model import Report
from prefdata.sharing.record import Record as SharedRecord
from prefdata.store.canonical import to_json
from prefdata.store.manifest import Manifest

MODELS: dict[str, type[BaseModel]] = {
    "prefdata-comparison": Comparison,
    "prefdata-config": BuildConfig,
    "prefdata-layout": Layout,
    "prefdata-manifest": Manifest,
    "prefdata-record": Record,
    "prefdata-report": Report,
    "prefdata-shared": SharedRecord,
}


def schema_of(name: str, model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema, with the name of its file as the title."""
    schema = model.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": name}


def write_schemas(folder: Path, models: Mapping[str, type[BaseModel]]) -> None:
    """Write one file for each model; other packages can write theirs to the same directory."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        (folder / f"{name}.json").write_bytes(to_json(schema_of(name, model)))


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]), MODELS)
