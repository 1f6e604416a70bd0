"""How members are weighed: on validation predictions, with NumPy alone.

A score is `accuracy` (higher is better) or `log_loss` (nats, lower is better). Inside this module both
become a merit that is better when higher, with log loss to decide between equal accuracies: with few
validation samples many candidates are right equally often, and the surer one is the better one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError, nearest

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]
Merit = tuple[float, float]

MODES = {"accuracy": "max", "log_loss": "min"}

_SMALLEST = 1e-12  # a probability of 0 for the right class costs 27.6 nats instead of infinity


def accuracy(probabilities: NDArray[np.floating], labels: Labels) -> float:
    """Return the fraction of samples whose likeliest class is right: (n, classes), (n,)."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def log_loss(probabilities: NDArray[np.floating], labels: Labels) -> float:
    """Return the mean negative log probability of the right class, nats: (n, classes), (n,)."""
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(right, _SMALLEST)).mean())


def scored(score: str, probabilities: NDArray[np.floating], labels: Labels) -> float:
    """Return a score by name.

    Raises:
        UserError: there is none of that name.
    """
    if score not in MODES:
        raise UserError(f"there is no score '{score}'", key="ensemble.score", hint=nearest(score, MODES))
    return accuracy(probabilities, labels) if score == "accuracy" else log_loss(probabilities, labels)


def merit(score: str, probabilities: NDArray[np.floating], labels: Labels) -> Merit:
    """Return what to maximize: the score, then (against ties) the log loss."""
    loss = log_loss(probabilities, labels)
    return (scored(score, probabilities, labels) if score == "accuracy" else -loss, -loss)


def average(
    candidates: Sequence[Probabilities], labels: Labels, *, score: str, max_members: int
) -> NDArray[np.int64]:
    """Weigh the `max_members` best candidates equally, and the others with 0: (candidates,)."""
    merits = [merit(score, each, labels) for each in candidates]
    order = sorted(range(len(candidates)), key=lambda place: merits[place], reverse=True)
    weights = np.zeros(len(candidates), dtype=np.int64)
    weights[order[:max_members]] = 1
    return weights


def greedy(
    candidates: Sequence[Probabilities], labels: Labels, *, score: str, max_members: int
) -> NDArray[np.int64]:
    """Add members one at a time, each the one that helps most, the same one again if that helps most.

    Forward selection with replacement: Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from
    libraries of models", ICML 2004. It starts with the best candidate, so on validation data the ensemble is
    never worse than that one, and it stops where the sequence was best, at the fewest members of equals.

    Args:
        candidates: probabilities (n, classes) of each, on the same validation samples.
        labels: (n,).
        score: "accuracy" or "log_loss".
        max_members: most additions, and so the largest sum of weights.

    Returns:
        How often each candidate was added: (candidates,).
    """
    weights = np.zeros(len(candidates), dtype=np.int64)
    best_weights, best_merit = weights, (-np.inf, -np.inf)
    total = np.zeros(candidates[0].shape, dtype=np.float64)
    for count in range(1, max_members + 1):
        merits = [merit(score, (total + each) / count, labels) for each in candidates]
        place = max(range(len(candidates)), key=lambda each: merits[each])
        total += candidates[place]
        weights = weights.copy()
        weights[place] += 1
        if merits[place] > best_merit:
            best_weights, best_merit = weights, merits[place]
    return best_weights


def weighted(candidates: Sequence[Probabilities], weights: Sequence[int]) -> NDArray[np.float64]:
    """Return the weighted mean of probabilities: (n, classes)."""
    total = np.zeros(candidates[0].shape, dtype=np.float64)
    for each, weight in zip(candidates, weights, strict=True):
        if weight:
            total += weight * each.astype(np.float64)
    return total / sum(weights)


COMBINERS: dict[str, Callable[..., NDArray[np.int64]]] = {"average": average, "greedy": greedy}
