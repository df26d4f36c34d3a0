"""One kernel over a pack against attention text by text."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.attention.flex_attention as flex
from torch._dynamo.utils import counters
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.masking_utils import sliding_window_causal_mask_function

from dpo.data.packing import Segment, pack
from dpo.errors import UsageError
from dpo.model import attention_cuda
from dpo.model.attention import BACKENDS, PackMask, attend_packs
from dpo.model.attention_cuda import AttentionOptions
from dpo.model.policy import PolicyOptions, row_logps
from dpo.model.self_check import make_policy
from dpo.precision import autocast
from tests.dpo.model.zoo import config_of, model_of, pairs_of, rows_of
from tests.effort import times

HEADS, KEY_HEADS, SIZE = 4, 2, 16
SEGMENTS = (Segment(5, (3, 7)), Segment(140, (1, 20, 4)), Segment(1, (2,)))
NOTHING = torch.nn.Module()
CPU = torch.device("cpu")
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning"
)  # Dynamo reads it
DEVICES = [CPU.type, pytest.param("cuda", marks=[pytest.mark.gpu, ON_GPU])]


@pytest.fixture
def cpu_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let FlexAttention run on a CPU with gradients, through its definition in plain operations."""
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    torch._dynamo.reset()
    attention_cuda._compiled.cache_clear()


def states(device: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    tokens = sum(s.prompt + sum(s.completions) for s in SEGMENTS)
    shapes = [(1, heads, tokens, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]


def mask_of(window: int | None, device: str = "cpu") -> PackMask | None:
    """Return the mask that a layer with this window gets from transformers."""
    if window is None:
        return None
    return PackMask(sliding_window_causal_mask_function(window), torch.device(device))


def defined_mask(segments: tuple[Segment, ...], window: int | None, padded: int) -> BlockMask:
    """Return the mask by its definition at each pair of tokens, through a dense one."""
    texts: list[int] = []
    prompts: list[int] = []
    positions: list[int] = []
    for segment in segments:
        own = len(positions)
        for length in (0, *segment.completions):
            start = segment.prompt if length else 0
            count = length or segment.prompt
            texts += [len(positions)] * count
            prompts += [own] * count
            positions += range(start, start + count)
    rest = padded - len(positions)
    texts += range(padded, padded + rest)
    prompts += range(padded, padded + rest)
    text_T, prompt_T = torch.tensor(texts), torch.tensor(prompts)
    position_T = torch.tensor([*positions, *[0] * rest])

    def mask(_b: torch.Tensor, _h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        seen = ((text_T[k] == text_T[q]) | (text_T[k] == prompt_T[q])) & (
            position_T[k] <= position_T[q]
        )
        return seen if window is None else seen & (position_T[k] > position_T[q] - window)

    return create_block_mask(mask, None, None, padded, padded, device="cpu")


@pytest.mark.stress
def test_a_block_mask_of_lengths_equals_the_dense_one() -> None:
    generator = np.random.default_rng(0)
    for case in range(times(30, 1000)):
        segments = tuple(
            Segment(
                int(generator.integers(1, 300)),
                tuple(generator.integers(1, 200, generator.integers(1, 5)).tolist()),
            )
            for _ in range(generator.integers(1, 6))
        )
        window = int(generator.integers(1, 300)) if case % 2 else None
        found = attention_cuda.block_mask(segments, window, CPU)
        defined = defined_mask(segments, window, found.seq_lengths[0])

        for name in BlockMask._TENSOR_ATTRS:
            ours, theirs = getattr(found, name), getattr(defined, name)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert ours.dtype == theirs.dtype
                assert torch.equal(ours, theirs), (name, segments, window)
        place = torch.arange(found.seq_lengths[0])
        nothing, both = torch.zeros(()), (place[:, None], place[None, :])
        assert torch.equal(
            found.mask_mod(nothing, nothing, *both), defined.mask_mod(nothing, nothing, *both)
        )


MEMORY = """
import resource
import torch
from dpo.data.packing import Segment
from dpo.model.attention_cuda import block_mask

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

block_mask((Segment(5, (3, 7)),), None, torch.device("cpu"))
before = peak()
segments = (Segment(40_000, (30_000, 20_000)), *[Segment(500, (274, 250))] * 40, Segment(72, ()))
for window in (None, 4096):
    mask = block_mask(segments, window, torch.device("cpu"))
assert mask.seq_lengths[0] == 131_072, mask.seq_lengths
print(peak() - before)
"""


@pytest.mark.slow
def test_masks_of_131072_tokens_fit_in_100_mb() -> None:
    """Check the peak of both masks of a pass; a dense mask would have 17 billion entries."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )

    assert int(done.stdout) < 100e6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (6, 2.0)])
@pytest.mark.usefixtures("cpu_gradients")
def test_a_sink_is_one_more_term_in_the_softmax(
    backend: str, window: int | None, softcap: float | None
) -> None:
    """Compare with the formula over the whole mask, and its gradients too."""
    inputs = [*states("cpu"), torch.linspace(-1, 2, HEADS, requires_grad=True)]
    query, key, value, sinks = inputs
    how = {"scaling": 0.3, "softcap": softcap, "sliding_window": window, "s_aux": sinks}
    found, _ = attend_packs(
        NOTHING, query, key, value, mask_of(window), segments=SEGMENTS, backend=backend, **how
    )
    pull = torch.randn_like(found)
    ours = torch.autograd.grad((found * pull).sum(), inputs)

    place = torch.arange(query.shape[2])
    defined = defined_mask(SEGMENTS, window, query.shape[2]).mask_mod
    seen_QK = defined(torch.zeros(()), torch.zeros(()), place[:, None], place[None])
    scores = 0.3 * query @ key.repeat_interleave(HEADS // KEY_HEADS, 1).mT
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    exps = scores.exp() * seen_QK
    weights = exps / (exps.sum(-1, keepdim=True) + sinks.exp()[:, None, None])
    expected = (weights @ value.repeat_interleave(HEADS // KEY_HEADS, 1)).transpose(1, 2)
    theirs = torch.autograd.grad((expected * pull).sum(), inputs)

    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_blocks_that_see_nothing_are_skipped() -> None:
    """Check that nearly all blocks of 2,048 tokens in texts of 64 are skipped."""
    segments = (Segment(32, (16, 16)),) * 32
    mask = attention_cuda.block_mask(segments, None, CPU)

    assert mask.sparsity() > 90
    assert attention_cuda.block_mask(segments, None, CPU) is mask, "made once for all layers"


def test_packs_are_padded_to_whole_blocks_at_least_two() -> None:
    for tokens, padded in ((1, 256), (256, 256), (257, 384)):
        mask = attention_cuda.block_mask((Segment(tokens, ()),), None, CPU)
        assert mask.seq_lengths == (padded, padded)


OPTIONS = pytest.mark.parametrize(
    ("window", "softcap"), [(None, None), (6, None), (None, 2.0), (6, 2.0)]
)


@pytest.mark.usefixtures("cpu_gradients")
@pytest.mark.parametrize("device", DEVICES)
@OPTIONS
def test_one_kernel_gives_what_the_parts_give(
    device: str, window: int | None, softcap: float | None
) -> None:
    given = states(device)
    how = {"scaling": 0.3, "softcap": softcap, "sliding_window": window}
    whole, parts = (
        attend_packs(
            NOTHING, *given, mask_of(window, device), segments=SEGMENTS, backend=name, **how
        )[0]
        for name in ("flex", "segments")
    )
    pull = torch.randn_like(whole)
    ours = torch.autograd.grad((whole * pull).sum(), given)
    theirs = torch.autograd.grad((parts * pull).sum(), given)

    exact = {"atol": 2e-6, "rtol": 1e-5} if device == "cpu" else {"atol": 1e-3, "rtol": 1e-3}
    for left, right in zip((whole, *ours), (parts, *theirs), strict=True):
        torch.testing.assert_close(left, right, **exact)


@pytest.mark.usefixtures("cpu_gradients")
@pytest.mark.parametrize("device", DEVICES)
@OPTIONS
def test_sinks_add_one_term_to_each_softmax(
    device: str, window: int | None, softcap: float | None
) -> None:
    given = [*states(device), torch.randn(HEADS, device=device, requires_grad=True)]
    *qkv, sinks = given
    whole = attention_cuda.attend(
        *qkv, SEGMENTS, AttentionOptions(0.3, 0.0, window, softcap, sinks)
    )
    place = torch.arange(whole.shape[1], device=device)
    defined = defined_mask(SEGMENTS, window, 256).mask_mod(
        place[0], place[0], place[:, None].cpu(), place[None, :].cpu()
    )
    query, key, value = (some.repeat_interleave(HEADS // some.shape[1], 1)[0] for some in given[:3])
    scores = query @ key.mT * 0.3
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~defined.to(device), -torch.inf)
    column = sinks[:, None, None].expand(HEADS, len(place), 1)
    weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    parts = (weights @ value).transpose(0, 1)[None]
    pull = torch.randn_like(whole)
    ours = torch.autograd.grad((whole * pull).sum(), given)
    theirs = torch.autograd.grad((parts * pull).sum(), given)

    exact = {"atol": 5e-6, "rtol": 1e-5} if device == "cpu" else {"atol": 1e-3, "rtol": 1e-3}
    for left, right in zip((whole, *ours), (parts, *theirs), strict=True):
        torch.testing.assert_close(left, right, **exact)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "segments"])
@pytest.mark.parametrize("window", [None, 5])
def test_every_backend_gives_the_attention_of_the_segments(
    backend: str, window: int | None
) -> None:
    given = [state.detach() for state in states("cpu")]
    options = {"scaling": 0.3, "sliding_window": window}
    found, plain = (
        attend_packs(NOTHING, *given, mask_of(window), segments=SEGMENTS, backend=name, **options)[
            0
        ]
        for name in (backend, "segments")
    )

    torch.testing.assert_close(found, plain, atol=2e-6, rtol=1e-5)


INTERLEAVED = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}


@pytest.mark.slow
@pytest.mark.usefixtures("cpu_gradients")
@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("llama", {}),
        ("gemma2", {"sliding_window": 16, "attn_logit_softcapping": 50.0}),
        ("gemma3_text", INTERLEAVED),
        ("gpt_oss", INTERLEAVED),  # with sinks
    ],
)
def test_a_whole_start_compiles_at_most_six_graphs(
    model_type: str, settings: dict[str, object]
) -> None:
    """Run the checks, steps of packs of many lengths in bf16, and an evaluation."""
    model = model_of(config_of(model_type, num_hidden_layers=2, head_dim=16, **settings))
    rows = rows_of(
        (5, 3, 4), (20, 9, 2), (10, 30, 8), (70, 60, 3), (200, 100, 90), (40, 50, 30), (150, 140, 9)
    )
    pairs = pairs_of(rows)
    counters.clear()
    options = PolicyOptions(backend="flex", dropout=False)
    policy, unshared_because = make_policy(model, pairs, options=options)
    for precision in ("no", "bf16"):
        row_logps(policy, pairs, [0, 1, 4], precision=precision)
    policy.train()
    for some in ([6], [4], [0, 1, 2], [3, 5], [4, 5], [6, 4, 0]):
        with autocast(model.device, "bf16"):
            loss = policy(pack([rows[place] for place in some])).logps_N.sum()
        loss.backward()
    policy.eval()
    for some in ([4], [0, 1, 2]):
        row_logps(policy, pairs, some, precision="bf16")

    assert unshared_because is None
    assert counters["stats"]["unique_graphs"] <= 6


@pytest.mark.usefixtures("cpu_gradients")
def test_the_limit_of_kernels_is_an_error() -> None:
    """Attention without a kernel needs T² memory, so it never runs in silence."""
    given = states("cpu")
    how = AttentionOptions(0.3, 0.0, None, None)
    attention_cuda.attend(*given, SEGMENTS, how)

    with (
        torch._dynamo.config.patch(recompile_limit=1),
        pytest.raises(UsageError, match=r"compiled more than 64 times.*T113"),
    ):
        attention_cuda.attend(*[state.double() for state in given], SEGMENTS, how)


def test_the_kernel_knows_that_packs_are_whole_blocks() -> None:
    known = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> object:
        found = next(n for n in graph.graph.nodes if "flex_attention" in str(n.target))
        known.append(statically_known_true(found.meta["example_value"][0].shape[2] % 128 == 0))
        return graph

    run = torch.compile(
        attention_cuda._attend_blocks, fullgraph=True, dynamic=True, backend=backend
    )
    given = [torch.randn(1, heads, 384, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    run(*given, attention_cuda.block_mask((Segment(300, (10,)),), None, CPU), None, (None, None))

    assert known == [True]
