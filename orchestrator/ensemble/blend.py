"""The best non-negative linear blend: weights on the simplex that minimize the loss, found exactly.

Both losses are convex in the weights, so the optimum is global; log loss is minimized by a few quadratic
steps (sequential quadratic programming for mixture proportions: Kim, Carbonetto, Stephens and Anitescu, "A
fast algorithm for maximum likelihood estimation of mixture proportions using sequential quadratic
programming", JCGS 2020), squared error by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from orchestrator.ensemble.ranking import Columns
from orchestrator.ensemble.scores import SMALLEST

_STEPS = 50
_GAP = 1e-9  # nats between the loss and its lower bound at which the minimum counts as found
_RIDGE = 1e-9  # of the mean curvature: of equal candidates the blend is defined, their weights are not
_CHUNK = 16384
_TINY = 1e-3  # weights below this are dropped


def blend(columns: Columns, max_members: int) -> NDArray[np.float64]:
    """Return weights that minimize the log loss, or of values the mean squared error.

    Weights that are tiny, and all but the `max_members` largest, are dropped, and the rest fitted anew.

    Args:
        columns: of the candidates.
        max_members: the most weights above 0.

    Returns:
        (candidates,), at least 0, with sum 1.
    """
    kept = np.arange(len(columns.values))
    while True:
        weights = _fit(Columns(columns.values[kept], columns.targets))
        heaviest = np.sort(np.argsort(-weights, kind="stable")[:max_members])
        good = heaviest[weights[heaviest] >= min(_TINY, float(weights.max()))]
        if len(good) == len(kept):
            break
        kept = kept[good]
    found = np.zeros(len(columns.values))
    found[kept] = weights
    return found


def _fit(columns: Columns) -> NDArray[np.float64]:
    return _log_loss(columns.values) if columns.targets is None else _squares(columns.values, columns.targets)


def _log_loss(right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Minimize -mean(log(w @ right)) over the simplex: right class's probabilities (candidates, n).

    With + sum(w) in place of the constraint the minimum is the same and its weights sum to 1 by themselves
    (Kim et al., proposition 2), so that each quadratic step is a least-squares problem with w >= 0.
    """
    weights = np.full(len(right), 1.0 / len(right))
    loss = _loss(right, weights)
    for _ in range(_STEPS):
        mean, curvature = _derivatives(right, weights)
        if mean.max() - 1.0 <= _GAP:  # the loss is at most log(max(mean)) above its minimum
            break
        target = _quadratic(curvature, 2.0 * mean - 1.0)
        share = 1.0
        while share > 1e-6:
            tried = weights + share * (target - weights)
            tried /= tried.sum()
            reached = _loss(right, tried)
            if reached < loss:
                break
            share /= 2
        else:
            break
        weights, loss = tried, reached
    return weights


def _loss(right: NDArray[np.float32], weights: NDArray[np.float64]) -> float:
    """Return the log loss of a blend, nats."""
    blended = weights.astype(np.float32) @ right
    return -float(np.log(np.maximum(blended, np.float32(SMALLEST))).mean(dtype=np.float64))


def _derivatives(
    right: NDArray[np.float32], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean(ratio) and mean(ratio ratio'): ratio is a candidate's probability by the blend's."""
    mean = np.zeros(len(right))
    curvature = np.zeros((len(right), len(right)))
    for start in range(0, right.shape[1], _CHUNK):
        part = right[:, start : start + _CHUNK].astype(np.float64)
        ratio = part / np.maximum(weights @ part, SMALLEST)
        mean += ratio.sum(axis=1)
        curvature += ratio @ ratio.T
    return mean / right.shape[1], curvature / right.shape[1]


def _quadratic(curvature: NDArray[np.float64], slope: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimize v' curvature v / 2 - slope' v over v >= 0: as least squares by the Cholesky factor."""
    ridge = _RIDGE * np.trace(curvature) / len(curvature)
    factor = np.linalg.cholesky(curvature + ridge * np.eye(len(curvature)))
    return np.asarray(nnls(factor.T, np.linalg.solve(factor, slope), maxiter=30 * len(slope) + 100)[0])


def _squares(values: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """Minimize mean((w @ values - targets) ** 2) over the simplex: (candidates, n), (n,).

    On the simplex that is w' Q w with Q from the candidates' errors. Where w = scale * u with u on the
    simplex, w' Q w + (sum(w) - 1) ** 2 is least over the scale at q / (1 + q) with q = u' Q u, which grows
    with q: so the minimum over w >= 0 has the direction of the one looked for.
    """
    size = len(values)
    products = np.zeros((size, size))
    for start in range(0, values.shape[1], _CHUNK):
        errors = values[:, start : start + _CHUNK].astype(np.float64) - targets[start : start + _CHUNK]
        products += errors @ errors.T
    mean = np.trace(products) / size
    if mean == 0.0:
        return np.full(size, 1.0 / size)
    weights = _quadratic(products / mean + np.ones((size, size)), np.ones(size))
    return np.asarray(weights / weights.sum())
