"""How many samples are right after each possible addition to an ensemble, counted without an argmax.

A sample is right when the sum of members' (right class's probability minus a rival's) is above 0 for every
rival class. Most samples are right, or wrong, whichever candidate is added: the extremes of all candidates'
margins tell that at once, and only the samples between are looked at for each candidate. The longer the
ensemble, the fewer those are. The count is exact, save that a tie between classes counts as wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble.library import Library, Rows
from orchestrator.ensemble.ranking import sampled

_RIVALS = 15  # of more classes, those that the candidates on average find likeliest for a sample
_BYTES = 800_000_000  # of margins at once; where all samples need more, a part of them is selected by
_TOGETHER = 8  # candidates
_CHUNK = 128  # samples at a time: a block of so many times 9 x 100 float32 stays in the cache


@dataclass(frozen=True, slots=True)
class Margins:
    """The right class's probability minus each rival's.

    Attributes:
        values: (n, rivals, candidates) float32.
        lowest, highest: over the candidates, (rivals, n): sums have that shape, too, so that the smallest of
            the rivals is found for many samples at once.
    """

    values: NDArray[np.float32]
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]

    def nothing(self) -> NDArray[np.float32]:
        """Return the sum of no members' margins: (rivals, n)."""
        return np.zeros(self.lowest.shape, dtype=np.float32)

    def of(self, place: int) -> NDArray[np.float32]:
        """Return one candidate's margins: (rivals, n)."""
        return self.values[:, :, place].T

    def hits(self, total: NDArray[np.float32]) -> int:
        """Return how many samples are right by a sum of margins, (rivals, n)."""
        return int(np.count_nonzero(total.min(axis=0) > 0))

    def hits_with_each(self, total: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return how many samples are right after adding each candidate to a sum: (candidates,)."""
        sure = (total + self.lowest).min(axis=0) > 0
        possible = (total + self.highest).min(axis=0) > 0
        counts = np.full(self.values.shape[2], np.count_nonzero(sure), dtype=np.int64)
        open_rows = np.flatnonzero(possible & ~sure)
        for start in range(0, len(open_rows), _CHUNK):
            rows = open_rows[start : start + _CHUNK]
            block = self.values[rows]
            block += total[:, rows].T[:, :, None]
            counts += np.count_nonzero(block.min(axis=1) > 0, axis=0)
        return counts


def rows_that_fit(library: Library, candidates: int, score: str, seed: int) -> Rows | None:
    """Return the samples to select by, as many as fit into the memory that selection may take; None: all."""
    rivals = min(library.outputs - 1, _RIVALS) if score == "accuracy" else 0
    return sampled(library.samples, _BYTES // (4 * candidates * (rivals + 1)), seed)


def margins(
    library: Library, targets: NDArray[np.int64] | NDArray[np.float32], places: list[int], rows: Rows | None
) -> Margins:
    """Read the margins of some candidates, for all samples or for `rows`."""
    right = (targets if rows is None else targets[rows]).astype(np.int64)
    rivals = _rivals(library, right, places, rows)
    values = np.empty((*rivals.shape, len(places)), dtype=np.float32)
    # Several candidates at a time: they are neighbours in memory, and one alone would touch every line of it.
    for first in range(0, len(places), _TOGETHER):
        group = places[first : first + _TOGETHER]
        differences = [_differences(library.probabilities(place, rows), right, rivals) for place in group]
        values[:, :, first : first + _TOGETHER] = np.stack(differences, axis=-1)
    lowest, highest = values.min(axis=2), values.max(axis=2)
    return Margins(values, np.ascontiguousarray(lowest.T), np.ascontiguousarray(highest.T))


def _differences(
    predicted: NDArray[np.float32], right: NDArray[np.int64], rivals: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the right class's probability minus each rival's: (n, rivals)."""
    own = np.take_along_axis(predicted, right[:, None], axis=1)
    return own - np.take_along_axis(predicted, rivals, axis=1)


def _rivals(
    library: Library, right: NDArray[np.int64], places: list[int], rows: Rows | None
) -> NDArray[np.int64]:
    """Return each sample's wrong classes, at most the `_RIVALS` likeliest ones: (n, rivals)."""
    others = library.outputs - 1
    if others <= _RIVALS:
        step = np.arange(others)[None]
        return step + (step >= right[:, None])
    mean = np.zeros((len(right), library.outputs), dtype=np.float32)
    for place in places:
        mean += library.probabilities(place, rows)
    mean[np.arange(len(right)), right] = -1.0
    found = np.empty((len(right), _RIVALS), dtype=np.int64)
    for start in range(0, len(right), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = np.argpartition(mean[part], others + 1 - _RIVALS, axis=1)[:, -_RIVALS:]
    return found
