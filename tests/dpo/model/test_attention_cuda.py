"""One kernel over a pack against attention text by text."""

import pytest
import torch
from transformers.masking_utils import sliding_window_causal_mask_function

from dpo.data.packing import Segment
from dpo.model import attention_cuda
from dpo.model.attention import BACKENDS, PackMask, attend_packs

HEADS, KEY_HEADS, SIZE = 4, 2, 16
SEGMENTS = (Segment(5, (3, 7)), Segment(140, (1, 20, 4)), Segment(1, (2,)))
NOTHING = torch.nn.Module()


def states(device: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    tokens = sum(s.prompt + sum(s.completions) for s in SEGMENTS)
    shapes = [(1, heads, tokens, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [torch.randn(shape, device=device, requires_grad=device != "cpu") for shape in shapes]


def mask_of(window: int | None, device: str = "cpu") -> PackMask | None:
    """Return the mask that a layer with this window gets from transformers."""
    if window is None:
        return None
    return PackMask(sliding_window_causal_mask_function(window), torch.device(device))


OPTIONS = pytest.mark.parametrize(
    ("window", "softcap"), [(None, None), (6, None), (None, 2.0), (6, 2.0)]
)


@OPTIONS
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_one_kernel_gives_what_the_parts_give(window: int | None, softcap: float | None) -> None:
    """Compare values only: FlexAttention has no gradient on a CPU."""
    query, key, value = states("cpu")
    how = {"scaling": 0.3, "softcap": softcap, "sliding_window": window}
    parts, _ = attend_packs(NOTHING, query, key, value, mask_of(window), segments=SEGMENTS, **how)
    whole = attention_cuda.attend(
        query, key, value, SEGMENTS, attention_cuda.AttentionOptions(0.3, 0.0, window, softcap)
    )

    torch.testing.assert_close(whole, parts, atol=2e-6, rtol=1e-5)


def test_blocks_that_see_nothing_are_skipped() -> None:
    """Check that nearly all blocks of 2,048 tokens in texts of 64 are skipped."""
    segments = (Segment(32, (16, 16)),) * 32
    mask = attention_cuda.block_mask(segments, None, torch.device("cpu"))

    assert mask.sparsity() > 90
    assert attention_cuda.block_mask(segments, None, torch.device("cpu")) is mask, (
        "made once for all layers"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@OPTIONS
def test_gradients_on_a_gpu(window: int | None, softcap: float | None) -> None:
    how = {"scaling": 0.3, "softcap": softcap, "sliding_window": window}
    given = states("cuda")
    whole = attention_cuda.attend(
        *given, SEGMENTS, attention_cuda.AttentionOptions(0.3, 0.0, window, softcap)
    )
    mask = mask_of(window, "cuda")
    parts = attend_packs(NOTHING, *given, mask, segments=SEGMENTS, dropout=1e-9, **how)[0]
    pull = torch.randn_like(whole)
    ours = torch.autograd.grad((whole * pull).sum(), given)
    theirs = torch.autograd.grad((parts * pull).sum(), given)

    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, atol=1e-3, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "segments"])
@pytest.mark.parametrize("window", [None, 5])
def test_every_backend_gives_the_attention_of_the_segments(
    backend: str, window: int | None
) -> None:
    given = states("cpu")
    options = {"scaling": 0.3, "sliding_window": window}
    found, plain = (
        attend_packs(NOTHING, *given, mask_of(window), segments=SEGMENTS, backend=name, **options)[
            0
        ]
        for name in (backend, "segments")
    )

    torch.testing.assert_close(found, plain, atol=2e-6, rtol=1e-5)
