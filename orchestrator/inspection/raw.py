"""Samples as they are before any transform, gaps and all, and how to look at some of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.hashing import LOOK, hashed
from orchestrator.inspection.finding import Finding

TABLE, IMAGES, SERIES, TOKENS = "table", "images", "series", "tokens"

Ids = NDArray[np.int64]

_CHUNK = 1 << 23  # values that are read at a time: 32 MB of float32
_MOST_HASHED = 1 << 22  # samples that are drawn by sorting their hashes


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Data to be looked at. Unlike a Source it may have gaps, one class, or no labels at all.

    Attributes:
        kind: TABLE, IMAGES, SERIES (sequences of numbers) or TOKENS.
        count: of samples.
        shape: of one sample: (features,), (channels, height, width), (length, features), (length,).
        load: gives the samples with these ids (k,) as (k, *shape): float32, NaN for gaps; int64 for tokens.
        labels: (n,) int64 class of each sample, -1 where it has none; None for data without classes.
        class_names: in the order of the labels.
        targets: (n,) float64 to be predicted, NaN for gaps; None for classes.
        columns: names of a table's features.
        vocabulary: the number of tokens.
        named: what a sample is called: a row, or a file.
        seen: what reading already told.
    """

    kind: str
    count: int
    shape: tuple[int, ...]
    load: Callable[[Ids], NDArray[Any]]
    labels: Ids | None = None
    class_names: tuple[str, ...] = ()
    targets: NDArray[np.float64] | None = None
    columns: tuple[str, ...] = ()
    vocabulary: int | None = None
    named: Callable[[int], str] = field(default=lambda number: f"row {number}")
    seen: tuple[Finding, ...] = ()

    @property
    def values(self) -> int:
        """Numbers in one sample."""
        return max(1, math.prod(self.shape))


def kind_of(shape: tuple[int, ...], vocabulary: int | None) -> str:
    """Return what samples of a shape are."""
    if vocabulary is not None:
        return TOKENS
    return {1: TABLE, 2: SERIES, 3: IMAGES}.get(len(shape), TABLE)


def choose(count: int, most: int) -> Ids:
    """Choose at most so many of the samples 0 to count - 1, ascending; the same ones every time."""
    if count <= most:
        return np.arange(count, dtype=np.int64)
    if count <= _MOST_HASHED:
        order = hashed(0, LOOK, np.arange(count, dtype=np.int64))
        return np.sort(np.argpartition(order, most)[:most]).astype(np.int64)
    # Hashing the numbers of a billion rows would take gigabytes; a few draws that coincide do no harm.
    draws = hashed(0, LOOK, np.arange(most, dtype=np.int64)) % np.uint64(count)
    return np.unique(draws).astype(np.int64)


def chunks(raw: Raw, ids: Ids) -> Iterator[tuple[Ids, NDArray[Any]]]:
    """Yield ids and their samples, as many at a time as memory takes easily."""
    size = max(1, _CHUNK // raw.values)
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        yield part, raw.load(part)
