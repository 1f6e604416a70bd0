"""All candidates on validation data: how good each is, and which may be members together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble.members import CHECKPOINT, allowed
from orchestrator.ensemble.scores import Merit, Targets, check_score, merit, scored
from orchestrator.ensemble.store import StoredLibrary, read_library, score_of
from orchestrator.ensemble.stored_library import VALIDATION
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """All candidates on validation data.

    Attributes:
        library: what they predict.
        targets: (samples,) what is right.
        score: that members are chosen by.
        merits: of each candidate, higher is better.
        places: of those that may be members.
        best: the place of the best single model: of the raw checkpoints, whatever `ensemble.members` says.
    """

    library: StoredLibrary
    targets: Targets
    score: str
    merits: tuple[Merit, ...]
    places: tuple[int, ...]
    best: int

    def value(self, predicted: NDArray[np.floating]) -> float:
        """Return the score of predictions."""
        return scored(self.score, predicted, self.targets)


def read_pool(directory: SweepDirectory, config: SweepConfig) -> Pool:
    """Score all candidates on validation data, and tell which may be members.

    Raises:
        UserError: nothing is stored, or what there is does not fit together.
    """
    library = read_library(directory, VALIDATION)
    targets, score = library.labels(), score_of(config, library.task)
    check_score(score, targets)
    merits = tuple(merit(score, library.probabilities(place), targets) for place in range(len(library)))
    raw = [place for place in range(len(library)) if library.candidates[place].kind == CHECKPOINT]
    return Pool(
        library=library,
        targets=targets,
        score=score,
        merits=merits,
        places=tuple(allowed(library.candidates, merits, config.ensemble.members)),
        # An average alone is left where each checkpoint of a run was of no use by itself.
        best=max(raw or range(len(library)), key=lambda place: merits[place]),
    )
