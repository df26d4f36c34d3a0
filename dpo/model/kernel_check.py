"""Check of FlexAttention's kernel in the precision of a run, against attention text by text.

float32 shows to 1e-4 nats that a model may run on packs, and attention text by text shows it on
every device, whereas FlexAttention's float32 kernels need more shared memory than small GPUs have.
What remains is the kernel that a run uses: in bf16 or fp16, its distance from float32 may be twice
that of the same precision text by text, on average over all compared tokens, as in `spot_check`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from dpo.data.packing import Pack
from dpo.errors import UsageError
from dpo.model.attention import FLEX, SEGMENTS, backend_of
from dpo.model.policy import Policy, PolicyOptions, device_of
from dpo.precision import PRODUCTS, Precision, autocast

FARTHER = 2.0
"""Maximum distance from float32, as a multiple of that of the same precision text by text."""
FLOOR = 1e-3
"""Nats per token; a smaller distance always counts as rounding."""


def has_kernel(options: PolicyOptions, device: torch.device, precision: Precision) -> bool:
    """Return whether packs run in FlexAttention's kernel."""
    return backend_of(options.backend, device, PRODUCTS[precision]) == FLEX


@contextmanager
def text_by_text(policy: Policy) -> Iterator[None]:
    """Run packs without a kernel, which is exact on every device, and slow on a GPU."""
    options = policy.options
    policy.options = options._replace(backend=SEGMENTS)
    try:
        yield
    finally:
        policy.options = options


def check_kernel(policy: Policy, packs: Sequence[Pack], precision: Precision) -> None:
    """Raise UsageError (T116) if the kernel's log-probs are wrong by more than rounding."""
    exact, rounded = [], []
    with text_by_text(policy):
        for batch in packs:
            exact.append(_logps(policy, batch, "no"))
            rounded.append(_logps(policy, batch, precision))
    found = torch.cat([_logps(policy, batch, precision) for batch in packs])
    truth = torch.cat(exact)
    rounding = max(float((torch.cat(rounded) - truth).abs().mean()), FLOOR)
    gap = float((found - truth).abs().mean())
    if not gap <= FARTHER * rounding:
        problem = (
            f"its log-probs in {precision} are {gap:.3g} nats per token from those in float32, but"
            f" rounding explains only {rounding:.3g}"
        )
        remedy = "use attention segments, and report it with the model's and the GPU's name"
        raise UsageError("T116", f"attention: {policy.options.backend}", problem, remedy)


@torch.no_grad()
def _logps(policy: Policy, batch: Pack, precision: Precision) -> torch.Tensor:
    with autocast(device_of(policy.model), precision):
        logps_N: torch.Tensor = policy(batch).logps_N
    return logps_N
