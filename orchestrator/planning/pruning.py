"""Pruning: whether a trial is worth going on with at a rung, by what the others showed there.

Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
arXiv:1810.05934, section 3), in the variant that stops trials instead of pausing and promoting them: each is
judged when it comes by, by those that came before it, so nobody waits for anybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator


def rungs(eta: float, epochs: int | None) -> Iterator[int]:
    """Give the steps at which trials are judged, growing.

    Args:
        eta: the halving factor, larger than 1.
        epochs: of a whole trial: rungs lie at epochs / eta^k, the first at 1 or later. Where they are not
            known, at eta^k without an end.
    """
    if epochs is None:
        level, last = 0, 0
        while True:
            rung = round(eta**level)
            if rung > last:
                yield rung
            level, last = level + 1, rung
    below = math.floor(math.log(max(1, epochs), eta) + 1e-9)
    steps = {max(1, round(epochs / eta**level)) for level in range(1, below + 1)}
    yield from sorted(step for step in steps if step < epochs)


def rung_at(step: int, eta: float, epochs: int | None) -> int | None:
    """Return the highest rung that a step has reached; None before the first and at a trial's end."""
    if epochs is not None and step >= epochs:
        return None
    reached = None
    for rung in rungs(eta, epochs):
        if rung > step:
            break
        reached = rung
    return reached


def worth_going_on(value: float, others: Iterable[float], eta: float) -> bool:
    """Say whether a value is among the best 1/eta of all that were seen at its rung.

    Args:
        value: of the trial that is judged, larger better.
        others: of the other trials at the same rung. A value that is not finite is worse than any that is.
        eta: the halving factor; fewer values than that judge nothing.
    """
    seen = list(others)
    if 1 + len(seen) < eta:
        return True
    finite = [other for other in seen if math.isfinite(other)]
    if not math.isfinite(value):
        # Where no trial has a finite value yet, the metric says nothing yet.
        return not finite
    return sum(other > value for other in finite) < max(1, math.floor((1 + len(seen)) / eta))
