"""A combination with the candidates that it is of, to write down and to apply to other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.ensemble.combine import Combination, fit
from orchestrator.ensemble.library import Probabilities
from orchestrator.ensemble.members import Candidate
from orchestrator.ensemble.pool import Pool
from orchestrator.ensemble.stored_library import StoredLibrary
from orchestrator.errors import UserError
from orchestrator.schema import SweepConfig

# What tells a candidate from all others: run, kind, step.
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A combination of its members alone, in their order."""

    members: tuple[Key, ...]
    combination: Combination

    def apply(self, library: StoredLibrary) -> Probabilities:
        """Return what it predicts: (samples, outputs) float32.

        Raises:
            UserError: a member's predictions are not in the library.
        """
        return self.combination.apply(library.restricted(self.places(library)))

    def places(self, library: StoredLibrary) -> list[int]:
        """Return where its members are in a library.

        Raises:
            UserError: one of them is not there.
        """
        return [place_of(library, key) for key in self.members]

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {"members": [list(key) for key in self.members], "combination": self.combination.to_json()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Fitted:
        """Return what `to_json` wrote."""
        keys = tuple((str(trial), str(kind), int(step)) for trial, kind, step in found["members"])
        return cls(keys, Combination.from_json(found["combination"]))


def fitted(pool: Pool, places: Sequence[int], method: str, config: SweepConfig) -> Fitted:
    """Combine some candidates by one method.

    Args:
        pool: all candidates on validation data.
        places: of those that may be members.
        method: of `combine.METHODS`.
        config: says how many members and bags, and gives the seed.

    Raises:
        UserError: the method can't be used with these samples.
    """
    part = pool.library.restricted(places)
    found = fit(
        method,
        part,
        pool.targets,
        score=pool.score,
        max_members=config.ensemble.max_members,
        bags=config.ensemble.bags,
        seed=config.seed,
    )
    return Fitted(tuple(key_of(part.candidates[place]) for place in found.members), found.restricted())


def key_of(candidate: Candidate) -> Key:
    """Return what tells a candidate from all others."""
    return candidate.trial_id, candidate.kind, candidate.step


def described_key(described: Mapping[str, Any]) -> Key:
    """Return the key of a candidate from its description."""
    return str(described["trial_id"]), str(described["kind"]), int(described["step"])


def place_of(library: StoredLibrary, key: Key) -> int:
    """Return where a candidate is in a library.

    Raises:
        UserError: it is not there.
    """
    for place, candidate in enumerate(library.candidates):
        if key_of(candidate) == key:
            return place
    trial, kind, step = key
    raise UserError(
        f"the predictions of {trial}, {kind} {step}, which the ensemble was chosen with, are gone",
        key="ensemble",
        hint="orchestrate retry predicts anew",
    )


def describe(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate ready for JSON."""
    return {
        "trial_id": candidate.trial_id,
        "setting_id": candidate.setting_id,
        "model": candidate.model,
        "seed": candidate.seed,
        "step": candidate.step,
        "kind": candidate.kind,
        "checkpoint": str(candidate.checkpoint),
        "parts": list(candidate.parts),
    }
