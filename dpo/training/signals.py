"""Graceful stop: the first SIGTERM or SIGINT ends the run after its step, the second at once."""

import signal
from types import FrameType

import torch
from accelerate import Accelerator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Recorder of the first signal while it is open; a second one has its usual effect."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before = {number: signal.getsignal(number) for number in SIGNALS}

    def __enter__(self) -> "StopRequest":
        for number in SIGNALS:
            signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def signal_on_any_rank(self, accelerator: Accelerator) -> int | None:
        """Return the signal that any rank got; all ranks agree on it after the same step."""
        mine = torch.tensor([self.signal or 0], device=accelerator.device)
        found = int(accelerator.gather(mine).max())
        return found or None
