"""`run.json`: settings and results of a run, written last, as the mark of a finished run."""

from pathlib import Path
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from dpo.config import TrainConfig
from dpo.errors import UsageError
from prefdata.store.canonical import to_json
from prefdata.store.commit import write_bytes

NAME = "run.json"


class RunSummary(BaseModel):
    """Summary of one finished run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal["dpo-run"] = "dpo-run"
    format_version: Literal[1] = 1
    fingerprint: str
    """Sixteen hex digits of the settings, data, reference and weights that decide every step."""
    config: TrainConfig
    build_hash: str
    """The hash in the manifest of the build."""
    reference_hash: str | None
    """The hash in the manifest of the reference log-probs; null if none were used."""
    processes: int = 1
    """Processes of the last start."""
    steps: int
    pairs: int
    """Pairs in all steps, repeats included."""
    first_loss: float
    """Loss of step 1, before the first update."""
    final: dict[str, float]
    """The metrics of the last step and of the last evaluation."""
    best: dict[str, float] | None = None
    """With `keep_best`: the step whose weights were saved, and the metrics of its evaluation."""
    stopped_early: str | None = None
    """Why `early_stopping` ended the run before its last step."""
    files: dict[str, tuple[int, str]] = {}
    """Size and sha256 of the files that the run made, by path: model, adapter, metrics, page."""
    planned_bytes: int | None = None
    """Memory of one process, as planned before the weights were loaded."""
    peak_bytes: int | None = None
    """Most memory of the first process in the last start, until the model was saved: of its GPU, or
    resident in a CPU's."""
    seconds: float
    """Seconds from the first step of the last start to the end."""

    def write(self, out: Path) -> None:
        write_bytes(out / NAME, to_json(self.model_dump(mode="json")))


def read_summary(out: Path) -> RunSummary | None:
    """Return the summary of a finished run; None if no run was finished."""
    path = out / NAME
    if not path.is_file():
        return None
    try:
        return RunSummary.model_validate(orjson.loads(path.read_bytes()))
    except (orjson.JSONDecodeError, ValidationError) as error:
        problem = "is not the summary of a run"
        remedy = "name another `out`, or move that file away"
        raise UsageError("T142", str(path), problem, remedy) from error
