"""JSON Schemas of every file that dpo reads or writes: `python -m dpo.schemas DIR`."""

import sys
from pathlib import Path

from pydantic import BaseModel

from dpo.artifacts.summary import RunSummary
from dpo.config import TrainConfig
from dpo.data.reference_store import ReferenceManifest
from dpo.judging.template import Template
from dpo.training.checkpoint import State
from prefdata.schemas import write_schemas

MODELS: dict[str, type[BaseModel]] = {
    "dpo-checkpoint": State,
    "dpo-judge-template": Template,
    "dpo-reference": ReferenceManifest,
    "dpo-run": RunSummary,
    "dpo-train": TrainConfig,
}

if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]), MODELS)
