"""The loss of every update, kept in little space: the first ones as they are, all of them as block means."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FIRST, MOST_BLOCKS = 128, 2048


class Losses:
    """Losses of the updates of one training, however long it is.

    Attributes:
        first: of the first `FIRST` updates, non-finite ones among them.
        count: how many updates there were.
        broken: the first update (from 1) whose loss was not finite; 0 where all were.
        last: the last finite loss.
    """

    def __init__(self) -> None:
        self.first: list[float] = []
        self.count = 0
        self.broken = 0
        self.last = math.nan
        self._means: list[float] = []
        self._size, self._sum, self._held = 1, 0.0, 0

    def add(self, value: float) -> None:
        """Take up the loss of one more update."""
        self.count += 1
        if self.count <= FIRST:
            self.first.append(value)
        if not math.isfinite(value):
            self.broken = self.broken or self.count
            return
        self.last = value
        self._sum += value
        self._held += 1
        if self._held == self._size:
            self._means.append(self._sum / self._size)
            self._sum, self._held = 0.0, 0
            if len(self._means) == MOST_BLOCKS:
                self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
                self._size *= 2

    def parts(self, number: int) -> NDArray[np.float64]:
        """Return the means of `number` equal parts, in order; of fewer where there are fewer losses."""
        if not self._means:
            return np.zeros(0)
        means = np.asarray(self._means)
        return np.asarray([part.mean() for part in np.array_split(means, min(number, len(means)))])
