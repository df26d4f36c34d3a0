"""The kernel of a GPU is checked in the precision of a run, and float32 never needs it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packaging.version import Version

from dpo.data.packing import Segment
from dpo.errors import UsageError
from dpo.model import attention
from dpo.model.attention import AUTO, BACKENDS, FLEX, SEGMENTS, backend_of
from dpo.model.attention_cuda import AttentionOptions, attend
from dpo.model.policy import PolicyOptions
from dpo.model.self_check import make_policy
from tests.dpo.model.zoo import config_of, model_of, pairs_of, rows_of

PAIRS = pairs_of(rows_of((5, 9, 4), (20, 9, 2), (10, 30, 8)))
IN_THE_KERNEL = PolicyOptions(backend=FLEX)


def test_only_bf16_runs_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: list[torch.dtype] = []

    def seen(query: torch.Tensor, *given: Any) -> torch.Tensor:
        dtypes.append(query.dtype)
        return BACKENDS[SEGMENTS](query, *given)

    monkeypatch.setitem(BACKENDS, FLEX, seen)  # type: ignore[arg-type]
    model = model_of(config_of("gemma3_text", sliding_window=16))
    policy, unshared_because = make_policy(model, PAIRS, options=IN_THE_KERNEL, precision="bf16")

    assert unshared_because is None
    assert set(dtypes) == {torch.bfloat16}
    assert policy.options == IN_THE_KERNEL


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_wrong_kernel_is_found_in_every_precision(
    precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*given: Any) -> torch.Tensor:
        *states, segments, how = given
        return BACKENDS[SEGMENTS](*states, segments, how._replace(window=7))

    monkeypatch.setitem(BACKENDS, FLEX, wrong)  # type: ignore[arg-type]
    model = model_of(config_of("llama"))
    if precision == "no":
        _, unshared_because = make_policy(model, PAIRS, options=IN_THE_KERNEL)
        assert "nats per token" in str(unshared_because)
        return

    with pytest.raises(UsageError, match=r"rounding explains only .*use attention segments.*T116"):
        make_policy(model, PAIRS, options=IN_THE_KERNEL, precision=precision)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.13"), reason="an earlier FlexAttention takes gradients"
)
def test_a_kernel_that_cannot_be_made_is_an_error() -> None:
    """FlexAttention refuses gradients on a CPU while it is traced."""
    states = [torch.randn(1, 2, 20, 16, requires_grad=True) for _ in range(3)]

    with pytest.raises(UsageError, match=r"no kernel .*on cpu .*use attention segments.*T115"):
        attend(*states, (Segment(10, (10,)),), AttentionOptions(None, 0.0, None, None))


@pytest.mark.parametrize(
    ("dtype", "shared", "dropout", "expected"),
    [
        (torch.bfloat16, 99, 0.0, FLEX),
        (torch.float32, 99, 0.0, SEGMENTS),
        (torch.float32, 163, 0.0, FLEX),
        (torch.bfloat16, 163, 0.1, SEGMENTS),
    ],
)
def test_auto_is_a_kernel_that_fits_the_gpu(
    dtype: torch.dtype,
    shared: int,
    dropout: float,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = torch.device("cuda")
    attention._shared_memory.cache_clear()
    properties = SimpleNamespace(
        shared_memory_per_block=48 * 2**10, shared_memory_per_block_optin=shared * 2**10
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)

    assert backend_of(AUTO, gpu, dtype, dropout=dropout) == expected
    assert backend_of(AUTO, torch.device("cpu"), dtype, dropout=dropout) == SEGMENTS
    assert backend_of("mine", gpu, dtype, dropout=dropout) == "mine"
    attention._shared_memory.cache_clear()
