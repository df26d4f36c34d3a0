"""The schemas in `schemas/` are those that the models generate."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from prefdata.record_model import Message, Record
from prefdata.records import MESSAGE, RECORDS
from prefdata.schemas import MODELS, schema_of
from prefdata.store.canonical import to_json

FOLDER = Path(__file__).resolve().parents[1] / "schemas"


@pytest.mark.parametrize(("name", "model"), MODELS.items())
def test_a_schema_is_current(name: str, model: type[BaseModel]) -> None:
    remedy = "run `python -m prefdata.schemas schemas`"

    assert (FOLDER / f"{name}.json").read_bytes() == to_json(schema_of(name, model)), remedy


@pytest.mark.parametrize(("model", "names"), [(Record, RECORDS.names), (Message, None)])
def test_the_record_model_has_the_columns_of_the_table(
    model: type[BaseModel], names: list[str] | None
) -> None:
    assert list(model.model_fields) == (names or [field.name for field in MESSAGE])
