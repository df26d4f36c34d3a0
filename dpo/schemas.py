"""JSON Schemas of every file that dpo reads or writes: `python -m dpo.schemas FOLDER`."""

import sys
from pathlib import Path

from pydantic import BaseModel

from dpo.checkpoint import State
from dpo.config import TrainConfig
from dpo.refstore import ReferenceManifest
from dpo.summary import RunSummary
from prefdata.schemas import write_schemas

MODELS: dict[str, type[BaseModel]] = {
    "dpo-checkpoint": State,
    "dpo-reference": ReferenceManifest,
    "dpo-run": RunSummary,
    "dpo-train": TrainConfig,
}

if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]), MODELS)
