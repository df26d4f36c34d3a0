"""The schemas in `schemas/` equal those that the models generate."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from dpo.schemas import MODELS as DPO_MODELS
from prefdata.read.adapt import ids
from prefdata.records.schema import Message
from prefdata.schemas import MODELS, schema_of
from prefdata.store.canonical import to_json

FOLDER = Path(__file__).resolve().parents[1] / "schemas"
ALL = MODELS | DPO_MODELS
OF_PIPELINES = {
    "frontier.schema",
    "loop-config.schema",
    "loop.schema",
    "noise.schema",
    "result.schema",
    "reward.schema",
    "win-rates-config.schema",
    "win-rates.schema",
}  # compared by the pipelines' own tests


@pytest.mark.parametrize(("name", "model"), ALL.items())
def test_a_schema_is_current(name: str, model: type[BaseModel]) -> None:
    remedy = "run `make fmt`"

    assert (FOLDER / f"{name}.json").read_bytes() == to_json(schema_of(name, model)), remedy


def test_every_schema_has_a_model() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(ALL) | OF_PIPELINES


def test_a_message_is_read_as_a_tuple_in_the_order_of_its_fields() -> None:
    names = [name.upper() for name in Message.model_fields]

    assert [getattr(ids, name) for name in names] == list(range(len(names)))
