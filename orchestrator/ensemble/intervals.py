"""Intervals by bootstrap over test samples, paired: all figures are resampled together.

Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13: the percentile interval. What is
resampled is one value for each sample (right or wrong, a loss, an error), so that a hundred thousand samples
take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
LEVEL = 0.95

# Bytes of counts that are held at a time.
_MEMORY = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Resampled:
    """Means over samples, and what they are on each resample.

    Attributes:
        mode: max or min, which of two values is the better one.
        means: on the samples themselves, by name.
        drawn: (resamples,) on each resample, by name.
        samples: how many there are.
        binary: names of which every sample's value is 0 or 1.
    """

    mode: str
    means: Mapping[str, float]
    drawn: Mapping[str, NDArray[np.float64]]
    samples: int
    binary: frozenset[str]

    def interval(self, name: str) -> list[float]:
        """Return [low, high] of a mean, 95%.

        Where every sample is right no resample has an error. The exact limit for no event in so many trials
        takes its place (Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934).
        """
        tail = ((1 - LEVEL) / 2) ** (1 / self.samples)
        if name in self.binary and self.means[name] in (0.0, 1.0):
            return [tail, 1.0] if self.means[name] == 1.0 else [0.0, 1 - tail]
        return _percentiles(self.drawn[name])

    def gain(self, name: str, other: str) -> dict[str, float]:
        """Return by how much one is better than another: {value, low, high}; negative: it is worse."""
        sign = 1 if self.mode == "max" else -1
        low, high = _percentiles(sign * (self.drawn[name] - self.drawn[other]))
        return {"value": sign * (self.means[name] - self.means[other]), "low": low, "high": high}


def resampled(
    values: Mapping[str, NDArray[np.floating]], *, mode: str, seed: int, resamples: int = RESAMPLES
) -> Resampled:
    """Draw samples with replacement, and take every mean of each draw.

    Args:
        values: (samples,) of each figure, of the same samples in the same order.
        mode: max or min.
        seed: of the draws.
        resamples: how many.

    Raises:
        ValueError: there are no samples.
    """
    names = list(values)
    table = np.stack([np.asarray(values[name], dtype=np.float64) for name in names], axis=1)
    samples = len(table)
    if not samples:
        raise ValueError("there are no samples to draw from")
    rng, rows = np.random.default_rng(seed), max(1, _MEMORY // (8 * samples))
    drawn = np.empty((resamples, len(names)))
    for start in range(0, resamples, rows):
        part = drawn[start : start + rows]
        # Counting how often each sample was drawn makes of all means one product of matrices.
        counts = np.stack([_counts(rng, samples) for _ in range(len(part))])
        part[:] = counts @ table / samples
    return Resampled(
        mode=mode,
        means={name: float(values[name].mean(dtype=np.float64)) for name in names},
        drawn=dict(zip(names, drawn.T, strict=True)),
        samples=samples,
        binary=frozenset(name for place, name in enumerate(names) if np.isin(table[:, place], (0, 1)).all()),
    )


def _counts(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    return np.bincount(rng.integers(0, samples, samples), minlength=samples).astype(np.float64)


def _percentiles(drawn: NDArray[np.float64]) -> list[float]:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return [float(low), float(high)]
