"""Random numbers that depend on (seed, stream, id) alone.

A generator's numbers depend on how many were drawn before, and NumPy does not promise that a shuffle stays
the same from version to version. Hashing the id of a sample instead makes a sample's number independent of
the other samples, of the order of calls and of the machine, which is what nested subsets rest on.

The hash is splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# One stream for each use, so that one seed never gives two uses the same order.
SPLIT, SUBSET, CLASSES, LABELS, DRAWING, NOISE, FOLDS, LOOK = range(8)

_INCREMENT = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return splitmix64's output for each state, elementwise; unsigned arithmetic wraps, as it must."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def hashed(seed: int, stream: int, ids: NDArray[Any]) -> NDArray[np.uint64]:
    """Return 64 random bits for each id: same shape as `ids`, which are integers from 0 up."""
    start = np.array([(seed * _INCREMENT + stream * 0xD1B54A32D192ED03) & _MASK], dtype=np.uint64)
    key = _mix(_mix(start) + np.uint64(stream))
    return _mix(key + (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(_INCREMENT))


def uniform(seed: int, stream: int, ids: NDArray[Any]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each id: same shape as `ids`."""
    return (hashed(seed, stream, ids) >> np.uint64(11)).astype(np.float64) * 2.0**-53
