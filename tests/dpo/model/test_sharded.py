"""Sharded loading: the rows that a process reads, and what it makes of them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM

from dpo.model.stored import stored_tensors
from tests.dpo.tiny import tiny_tokenizer
from tests.dpo.training.test_distributed import ENVIRONMENT, launch
from tests.dpo.training.test_sharding import FSDP2

LOAD = """
import json, sys
from pathlib import Path
import torch
from torch import distributed as dist
from dpo.data.packing import PromptWithCompletions, pack
from dpo.model.fingerprints import values_sha256
from dpo.model.load import load_model
from dpo.model.policy import Policy
from dpo.model.sharded import fill, load_part
from dpo.model.source import ModelSource
from dpo.training.distributed import join_processes, sharding
import numpy as np

def bytes_read():
    return int(Path("/proc/self/io").read_text().split()[1])

name, out = sys.argv[1:]
ranks, how = join_processes(), sharding()
for _ in range(2):  # the first time also reads code
    policy = Policy(load_part(ModelSource(name), device=torch.device("cpu"), how=how), shared=False)
    before = bytes_read()
    fill(policy, name, how)
    read = bytes_read() - before
rows = {id(p): p.to_local().nbytes for p in policy.model.parameters()}
ids = np.arange(20, 40, dtype=np.int32)
texts = pack([PromptWithCompletions(ids, (ids, ids[:5]), (None, None))])
with torch.no_grad():
    found = policy(texts).logps_N
    whole = Policy(load_model(name), shared=False)
    gap = float((found - whole(texts).logps_N).abs().max())
policy.reshard()
same = values_sha256(policy.model) == values_sha256(whole.model)
tied = policy.model.lm_head.weight is policy.model.get_input_embeddings().weight
line = {"read": read, "held": sum(rows.values()), "gap": gap, "same": same, "tied": tied}
Path(out, f"{ranks.process_index}.json").write_text(json.dumps(line))
dist.barrier()  # a process that ends first would abort the other
dist.destroy_process_group()
"""


def save_mixtral(folder: Path, *, tied: bool) -> Path:
    """Save a mixture of experts, whose files have a tensor for each expert, in several files."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
        max_position_embeddings=256, tie_word_embeddings=tied, initializer_range=0.2,
    )  # fmt: skip
    tiny_tokenizer().save_pretrained(folder)
    MixtralForCausalLM(config).save_pretrained(folder, max_shard_size="300KB")
    return folder


@pytest.mark.parametrize("processes", [2])
def test_each_process_reads_its_own_rows_and_no_others(processes: int, tmp_path: Path) -> None:
    model = save_mixtral(tmp_path / "model", tied=True)
    script = tmp_path / "load.py"
    script.write_text(LOAD)
    done = subprocess.run(
        [*launch(processes), str(script), str(model), str(tmp_path)],
        env=ENVIRONMENT | FSDP2, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    found = [json.loads((tmp_path / f"{n}.json").read_text()) for n in range(processes)]
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    headers = 64 * 1024
    for one in found:
        assert one["gap"] < 1e-5
        assert one["same"]
        assert one["tied"]
        assert one["read"] <= weights / processes + headers
        assert one["held"] <= weights / processes


@pytest.mark.parametrize(
    "index",
    [
        ...,
        slice(None),
        slice(1, 3),
        slice(2, 2),
        (slice(1, 4), slice(0, 2)),
        (slice(3, 9), slice(None), slice(1, None)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
def test_rows_are_those_of_safetensors(index: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3), "b": (torch.randn(5, 4, 3) * 9).to(dtype)}, path)
    with path.open("rb") as file, safe_open(path, "pt") as theirs:
        ours = stored_tensors(file)["b"]

        assert torch.equal(ours[index], theirs.get_tensor("b")[index])
        assert ours.get_shape() == [5, 4, 3]


def test_a_number_and_an_empty_tensor_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.tensor(3.5), "b": torch.ones(0, 4)}, path)
    with path.open("rb") as file:
        found = stored_tensors(file)

        assert found["a"][...] == 3.5
        assert found["b"][:].shape == (0, 4)
