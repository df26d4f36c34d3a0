"""Loss spikes: steps with an unusually high loss are reported, and still trained on."""

import statistics
from collections import deque
from collections.abc import Iterable

WINDOW = 128
"""Number of previous steps whose mean and deviation a loss is compared with."""
LIMIT = 6.0
"""Standard deviations above the mean."""


class LossSpikes:
    """Losses of the last steps, including those of an earlier start."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._losses = deque(losses, maxlen=WINDOW)

    def sees(self, loss: float) -> float | None:
        """Record a loss; return its height in standard deviations if it is a spike, else None.

        >>> watch = LossSpikes([0.6, 0.7] * 64)
        >>> watch.sees(0.7), round(watch.sees(1.7) or 0)
        (None, 21)
        """
        found = None
        if len(self._losses) == WINDOW:
            spread = statistics.pstdev(self._losses)
            height = (loss - statistics.fmean(self._losses)) / spread if spread else 0.0
            found = height if height > LIMIT else None
        self._losses.append(loss)
        return found
