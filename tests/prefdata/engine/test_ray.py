"""A build on Ray is byte-identical to a build on this machine."""

import json
import os
from pathlib import Path

import pytest

import prefdata
from prefdata.config import BuildConfig
from prefdata.errors import PrefdataError

ray = pytest.importorskip("ray")


@pytest.mark.filterwarnings("ignore")  # of Ray's own start
def test_an_engine_changes_no_byte_and_errors_keep_their_codes(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    def build(name: str, inputs: Path, engine: str) -> str:
        config = BuildConfig(
            inputs=[str(inputs)], tokenizer=str(tiny), out=tmp_path / name, engine=engine, workers=2
        )
        return prefdata.build(config).manifest.hash

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    assert build("ray", rows_file, "ray") == build("local", rows_file, "local")
    assert not ray.is_initialized()
    (tmp_path / "bad.jsonl").write_text(json.dumps({"what": 1}) + "\n")
    with pytest.raises(PrefdataError, match="PD102"):
        build("bad", tmp_path / "bad.jsonl", "ray")
