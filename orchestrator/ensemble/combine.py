"""How candidates become one prediction: five methods, all fitted on validation predictions alone.

- average: the mean of the best candidates' probabilities.
- logits: the mean of their log probabilities, made to sum to 1 again (the geometric mean).
- greedy: forward selection with replacement and bagging (`greedy.py`).
- blend: the best non-negative linear blend (`blend.py`).
- stacking: a linear model on their predictions (`stacking.py`).

Values (regression) are combined in the same way; the mean of their "logits" is their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from orchestrator.ensemble.blend import blend
from orchestrator.ensemble.greedy import greedy
from orchestrator.ensemble.library import Library, Probabilities, Rows
from orchestrator.ensemble.ranking import LARGEST, Order, columns, loss_of, ranked, sampled
from orchestrator.ensemble.scores import SMALLEST, Targets, check_score, merit
from orchestrator.ensemble.stacking import candidates_for, inputs, predict, stack, why_not
from orchestrator.errors import UserError, nearest
from orchestrator.schema import COMBINE

METHODS = tuple(each for each in COMBINE if each != "auto")  # the simplest first
_BLENDED = 400_000  # samples that a blend of 100 candidates is fitted on at most: 160 MB


@dataclass(frozen=True, slots=True)
class Combination:
    """How candidates are combined.

    Attributes:
        method: one of `METHODS`.
        weights: one for each candidate, at least 0, with sum 1; of stacking the share of its coefficients'
            sizes, which tells how much it goes by each candidate but is not used to predict.
        coefficients: of stacking, for each candidate (outputs, outputs): what its log probability of each
            class adds to each class's score (of values (1, 1)); empty where its weight is 0.
        intercept: of stacking, what is added to the scores, (outputs,).
    """

    method: str
    weights: tuple[float, ...]
    coefficients: tuple[tuple[tuple[float, ...], ...], ...] | None = None
    intercept: tuple[float, ...] | None = None

    @property
    def members(self) -> tuple[int, ...]:
        """The places of the candidates with a weight above 0."""
        return tuple(place for place, weight in enumerate(self.weights) if weight > 0)

    def restricted(self) -> Combination:
        """Return the same combination of its members alone, in their order."""
        coefficients = self.coefficients
        if coefficients is not None:
            coefficients = tuple(coefficients[place] for place in self.members)
        weights = tuple(self.weights[place] for place in self.members)
        return Combination(self.method, weights, coefficients, self.intercept)

    def apply(self, library: Library, rows: Rows | None = None) -> Probabilities:
        """Return what the combination predicts, for all samples or for `rows`: (n, outputs) float32.

        Only members are read, one at a time.

        Args:
            library: candidates in the order in which this was fitted.
            rows: which samples.
        """
        assert len(library) == len(self.weights), f"{len(library)} candidates for {len(self.weights)} weights"
        total = np.zeros((library.samples if rows is None else len(rows), library.outputs))
        for place in self.members:
            self._add(total, library.probabilities(place, rows), place)
        if self.coefficients is not None and self.intercept is not None:
            total += np.asarray(self.intercept)
        if library.outputs > 1 and self.method in ("logits", "stacking"):
            predict(total)
        return total.astype(np.float32)

    def _add(self, total: NDArray[np.float64], predicted: Probabilities, place: int) -> None:
        """Add one member's share to the sum."""
        if self.coefficients is not None:
            total += inputs(predicted, total.shape[1]) @ np.asarray(self.coefficients[place])
        elif self.method == "logits" and total.shape[1] > 1:
            total += self.weights[place] * np.log(np.maximum(predicted, np.float32(SMALLEST)))
        else:
            total += self.weights[place] * predicted.astype(np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return the combination ready for JSON."""
        found: dict[str, Any] = {"method": self.method, "weights": list(self.weights)}
        if self.coefficients is not None and self.intercept is not None:
            found["coefficients"] = [[list(row) for row in each] for each in self.coefficients]
            found["intercept"] = list(self.intercept)
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Combination:
        """Return the combination that `to_json` wrote.

        Raises:
            UserError: it is none.
        """
        try:
            coefficients = found.get("coefficients")
            if coefficients is not None:
                coefficients = tuple(tuple(tuple(map(float, row)) for row in each) for each in coefficients)
            intercept = found.get("intercept")
            return cls(
                method=str(found["method"]),
                weights=tuple(float(each) for each in found["weights"]),
                coefficients=coefficients,
                intercept=None if intercept is None else tuple(map(float, intercept)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"this is no combination of candidates: {error}", key="combination") from None


def fit(
    method: str,
    library: Library,
    targets: Targets,
    *,
    score: str,
    max_members: int,
    bags: int,
    seed: int,
    order: Order | None = None,
) -> Combination:
    """Choose and weigh members by one method.

    Of more than 100 candidates the 100 best ones are weighed. One candidate is its own combination.

    Args:
        method: one of `METHODS`.
        library: what the candidates predict for validation samples: finite numbers.
        targets: right classes (n,) int64, or right values (n,) float32.
        score: one of `scores.MODES`. Blend and stacking minimize log loss (mse) whatever the score is.
        max_members: the most members, counted with repetition in each bag.
        bags: of greedy selection.
        seed: of whatever is drawn.
        order: what ranks the candidates by a score, where the caller has that already.

    Raises:
        UserError: a wrong name or number, or too few samples for the method.
    """
    _check(method, library, targets, score, max_members)
    if len(library) == 1:
        return Combination("average", (1.0,))
    # One thread: the same bits on any number of cores, and threads that wait for each other on a busy node
    # took minutes for what one does in seconds.
    order = order or partial(ranked, library, targets)
    with threadpool_limits(1):
        if method in ("average", "logits"):
            return _of_the_best(method, library, order(score)[:max_members])
        if method == "greedy":
            return _selected(library, targets, order(score)[:LARGEST], score, max_members, bags, seed)
        if method == "blend":
            return _blended(library, targets, order(loss_of(targets))[:LARGEST], max_members, seed)
        most = min(max_members, candidates_for(library.outputs, len(targets)))
        return _stacked(library, targets, order(loss_of(targets))[:most], seed)


def _of_the_best(method: str, library: Library, best: Sequence[int]) -> Combination:
    """Weigh the best candidates equally."""
    return _combination(method, library, best, np.full(len(best), 1.0 / len(best)))


def _selected(
    library: Library, targets: Targets, places: list[int], score: str, max_members: int, bags: int, seed: int
) -> Combination:
    """Select greedily; in one go, it is never worse than the best candidate on these samples."""
    weights = greedy(library, targets, places, score=score, max_members=max_members, bags=bags, seed=seed)
    found = _combination("greedy", library, places, weights)
    return _at_least(found, library, targets, places[0], score) if bags == 1 else found


def _blended(
    library: Library, targets: Targets, places: list[int], max_members: int, seed: int
) -> Combination:
    """Blend by log loss or mse, by which it is never worse than the best candidate on these samples."""
    by = loss_of(targets)
    rows = sampled(library.samples, _BLENDED, seed)
    weights = blend(columns(library, targets, places, by, rows), max_members)
    return _at_least(_combination("blend", library, places, weights), library, targets, places[0], by)


def check_method(method: str) -> None:
    """Refuse a method that there is not.

    Raises:
        UserError: with the nearest right one.
    """
    if method not in METHODS:
        raise UserError(f"there is no '{method}'", key="ensemble.combine", hint=nearest(method, METHODS))


def _check(method: str, library: Library, targets: Targets, score: str, max_members: int) -> None:
    """Refuse wrong names and numbers."""
    check_method(method)
    if max_members < 1:
        raise UserError(f"{max_members} is below 1", key="ensemble.max_members")
    if not len(library) or not len(targets):
        raise UserError("there is nothing to combine: no candidate, or no sample", key="ensemble")
    check_score(score, targets)
    if method == "stacking" and len(library) > 1:
        why = why_not(targets, library.outputs)
        if why is not None:
            raise UserError(why, key="ensemble.combine", hint="Take auto, or one of the other methods")


def _at_least(found: Combination, library: Library, targets: Targets, best: int, score: str) -> Combination:
    """Return the best candidate alone where the combination is worse than it on the very same samples.

    Selection works with float32 sums, perhaps on some of the samples: this closes what that leaves open.
    """
    single = merit(score, library.probabilities(best), targets)
    if merit(score, found.apply(library), targets) >= single:
        return found
    return _combination(found.method, library, [best], np.ones(1))


def _combination(
    method: str, library: Library, places: Sequence[int], weights: NDArray[np.float64]
) -> Combination:
    """Return the combination that has these weights at these places, and 0 elsewhere."""
    found = np.zeros(len(library))
    found[list(places)] = weights
    return Combination(method, tuple(found.tolist()))


def _stacked(library: Library, targets: Targets, places: list[int], seed: int) -> Combination:
    """Stack candidates, and tell from the sizes of the coefficients how much each counts."""
    found = stack(library, targets, places, seed)
    sizes = np.abs(found.coefficients).sum(axis=(1, 2)) + SMALLEST
    coefficients: list[tuple[tuple[float, ...], ...]] = [()] * len(library)
    for place, each in zip(places, found.coefficients.tolist(), strict=True):
        coefficients[place] = tuple(tuple(row) for row in each)
    weights = _combination("stacking", library, places, sizes / sizes.sum()).weights
    return Combination("stacking", weights, tuple(coefficients), tuple(found.intercept.tolist()))
