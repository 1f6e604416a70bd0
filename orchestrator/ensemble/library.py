"""What all candidates predict for the same samples, read one candidate at a time.

Combining never holds more than it needs: it goes over a library candidate by candidate, and a library may
read each of them anew from disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Probabilities = NDArray[np.float32]


class Library(Protocol):
    """Candidates' predictions for the same samples, in the same order."""

    @property
    def samples(self) -> int:
        """How many samples each candidate predicted."""
        ...

    @property
    def outputs(self) -> int:
        """How many classes there are; 1 where values are predicted."""
        ...

    def __len__(self) -> int:
        """How many candidates there are."""
        ...

    def probabilities(self, place: int, rows: Rows | None = None) -> Probabilities:
        """Return what one candidate predicts, for all samples or for `rows`: (n, outputs), read anew."""
        ...


@dataclass(frozen=True, slots=True)
class Arrays:
    """A library of arrays, in memory or mapped from files.

    Attributes:
        arrays: (samples, outputs) of each candidate.
    """

    arrays: Sequence[Probabilities]

    @property
    def samples(self) -> int:
        """How many samples each candidate predicted."""
        return len(self.arrays[0])

    @property
    def outputs(self) -> int:
        """How many classes there are; 1 where values are predicted."""
        return int(self.arrays[0].shape[1])

    def __len__(self) -> int:
        """How many candidates there are."""
        return len(self.arrays)

    def probabilities(self, place: int, rows: Rows | None = None) -> Probabilities:
        """Return what one candidate predicts, for all samples or for `rows`: (n, outputs)."""
        found = self.arrays[place] if rows is None else self.arrays[place][rows]
        return np.asarray(found, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Part:
    """Some samples of a library, kept in memory after the first reading as far as that fits.

    Attributes:
        whole: the library that they are of.
        rows: which samples.
        budget: the most bytes to keep; what does not fit is read anew each time.
    """

    whole: Library
    rows: Rows
    budget: int = 0
    _kept: dict[int, Probabilities] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return len(self.rows)

    @property
    def outputs(self) -> int:
        """How many classes there are; 1 where values are predicted."""
        return self.whole.outputs

    def __len__(self) -> int:
        """How many candidates there are."""
        return len(self.whole)

    def probabilities(self, place: int, rows: Rows | None = None) -> Probabilities:
        """Return what one candidate predicts for these samples, or for some of them: (n, outputs)."""
        found = self._kept.get(place)
        if found is None and self.budget:
            found = self.whole.probabilities(place, self.rows)
            if (len(self._kept) + 1) * found.nbytes <= self.budget:
                self._kept[place] = found
        if found is None:
            return self.whole.probabilities(place, self.rows if rows is None else self.rows[rows])
        return found if rows is None else found[rows]
