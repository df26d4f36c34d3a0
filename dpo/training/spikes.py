"""Steps whose loss stands out: told with their pairs, and trained on all the same."""

import statistics
from collections import deque
from collections.abc import Iterable

WINDOW = 128
"""Steps before, whose mean and deviation a loss is held against."""
LIMIT = 6.0
"""Standard deviations."""


class LossSpikes:
    """Remembers the losses of the last steps, those of an earlier start too."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._losses = deque(losses, maxlen=WINDOW)

    def sees(self, loss: float) -> float | None:
        """By how many standard deviations a loss stands out, where it does, and remember it.

        >>> watch = SpikeWatch([0.6, 0.7] * 64)
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
