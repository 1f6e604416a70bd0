"""Greedy selection of members with replacement, repeated on random halves of the candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble.library import Library, Rows
from orchestrator.ensemble.margins import Margins, margins, rows_that_fit
from orchestrator.ensemble.ranking import Columns, columns

_FEWEST_IN_BAG = 8  # a half of fewer candidates than this leaves too little to choose from


@dataclass(slots=True)
class _Members:
    """Members so far.

    Attributes:
        count: how many, with repetition.
        weights: how often each candidate, (candidates,).
        column: the sum of their columns, (n,).
        margin: the sum of their margins, (rivals, n); None where accuracy does not count.
    """

    count: int
    weights: NDArray[np.int64]
    column: NDArray[np.float32]
    margin: NDArray[np.float32] | None

    def copy(self) -> _Members:
        """Return members that can grow on their own."""
        margin = None if self.margin is None else self.margin.copy()
        return _Members(self.count, self.weights.copy(), self.column.copy(), margin)


@dataclass(frozen=True, slots=True)
class _Task:
    """What selection goes by: the loss, and where accuracy is the score, first of all the hits."""

    columns: Columns
    margins: Margins | None

    def nobody(self) -> _Members:
        """Return an ensemble without members."""
        candidates, samples = self.columns.values.shape
        margin = None if self.margins is None else self.margins.nothing()
        return _Members(0, np.zeros(candidates, dtype=np.int64), np.zeros(samples, dtype=np.float32), margin)

    def add(self, members: _Members, place: int) -> None:
        """Add one candidate to the members."""
        members.count += 1
        members.weights[place] += 1
        members.column += self.columns.values[place]
        if self.margins is not None and members.margin is not None:
            members.margin += self.margins.of(place)

    def merit(self, members: _Members) -> tuple[float, float]:
        """Return (hits or minus the loss, minus the loss) of the members."""
        loss = -self.columns.loss(members.column, members.count)
        if self.margins is None or members.margin is None:
            return loss, loss
        return float(self.margins.hits(members.margin)), loss

    def best_addition(self, members: _Members, bag: NDArray[np.int64]) -> int:
        """Return the candidate of a bag that helps most."""
        if self.margins is not None and members.margin is not None:
            hits = self.margins.hits_with_each(members.margin)[bag]
            bag = bag[hits == hits.max()]
        if len(bag) == 1:
            return int(bag[0])
        return int(bag[self.columns.losses(members.column, members.count + 1, bag).argmin()])


def greedy(
    library: Library,
    targets: NDArray[np.int64] | NDArray[np.float32],
    places: list[int],
    *,
    score: str,
    max_members: int,
    bags: int,
    seed: int,
) -> NDArray[np.float64]:
    """Weigh candidates by forward selection with replacement, on average over bags.

    Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models", ICML 2004:
    members are added one at a time, each the one that helps most, the same one again if that helps most
    (section 2.1), from the best few as a start (2.2), and all that for several random halves of the
    candidates (2.3). Each bag stops where its sequence was best, at the fewest members of equals.

    Args:
        library: what the candidates predict.
        targets: (n,), of the same samples.
        places: of the candidates to choose from, the best one first.
        score: one of `scores.MODES`.
        max_members: most additions in each bag, and most distinct members.
        bags: how many; 1: once, with all candidates.
        seed: of the bags, and of the samples to select by where all of them would not fit into memory.

    Returns:
        One weight for each of `places`, at least 0, with sum 1.
    """
    rows = rows_that_fit(library, len(places), score, seed)
    task = _task(library, targets, places, score, rows)
    weights = np.zeros(len(places))
    chosen = _bags(len(places), bags, seed)
    for bag in chosen:
        counts = _select(task, bag, max_members)
        weights += counts / counts.sum() / len(chosen)
    if np.count_nonzero(weights) > max_members:
        weights[np.argsort(-weights, kind="stable")[max_members:]] = 0.0
    return np.asarray(weights / weights.sum())


def _task(
    library: Library,
    targets: NDArray[np.int64] | NDArray[np.float32],
    places: list[int],
    score: str,
    rows: Rows | None,
) -> _Task:
    of_places = columns(library, targets, places, score, rows)
    return _Task(of_places, margins(library, targets, places, rows) if score == "accuracy" else None)


def _bags(candidates: int, bags: int, seed: int) -> list[NDArray[np.int64]]:
    """Return which candidates each bag may choose from, by rank, so that their order does not matter."""
    size = max(-(-candidates // 2), min(candidates, _FEWEST_IN_BAG))
    if bags == 1 or size == candidates:
        return [np.arange(candidates)]
    rng = np.random.default_rng([seed, candidates])
    return [np.sort(rng.choice(candidates, size, replace=False)) for _ in range(bags)]


def _select(task: _Task, bag: NDArray[np.int64], max_members: int) -> NDArray[np.int64]:
    """Return how often each candidate was added: (candidates,)."""
    members, best = _start(task, bag, max_members)
    weights = members.weights.copy()
    while members.count < max_members:
        task.add(members, task.best_addition(members, bag))
        reached = task.merit(members)
        if reached > best:
            weights, best = members.weights.copy(), reached
    return weights


def _start(task: _Task, bag: NDArray[np.int64], max_members: int) -> tuple[_Members, tuple[float, float]]:
    """Return the best few candidates of a bag as first members: as many as are best together.

    At most half of the members, so that what complements them has room.
    """
    members, found, best = task.nobody(), task.nobody(), (-np.inf, -np.inf)
    for place in bag[: max(1, max_members // 2)]:
        task.add(members, int(place))
        reached = task.merit(members)
        if reached > best:
            found, best = members.copy(), reached
    return found, best
