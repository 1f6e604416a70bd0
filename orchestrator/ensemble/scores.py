"""How good predictions are: accuracy and log loss of classes, mse and mae of values.

Every score is the mean over samples of a value for each sample, so that paired differences and bootstraps
need nothing else. Whether a score is better when higher or lower is `MODES`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError, nearest
from orchestrator.schema import SCORES

Predicted = NDArray[np.floating]
Targets = NDArray[np.int64] | NDArray[np.float32]
Merit = tuple[float, float]

MODES = SCORES
OF_CLASSES, OF_VALUES = ("accuracy", "log_loss"), ("mse", "mae")

SMALLEST = 1e-12  # a probability of 0 for the right class costs 27.6 nats instead of infinity


def hits(predicted: Predicted, targets: Targets) -> NDArray[np.float64]:
    """Return 1 where the likeliest class (the first of equals) is right: (n, classes), (n,) -> (n,)."""
    return np.asarray(predicted.argmax(axis=1) == targets, dtype=np.float64)


def surprises(predicted: Predicted, targets: Targets) -> NDArray[np.float64]:
    """Return minus the log probability of the right class, nats: (n, classes), (n,) -> (n,)."""
    right = predicted[np.arange(len(targets)), targets].astype(np.float64)
    return np.asarray(-np.log(np.maximum(right, SMALLEST)))


def squares(predicted: Predicted, targets: Targets) -> NDArray[np.float64]:
    """Return the squared error of each value, in the targets' unit squared: (n, 1), (n,) -> (n,)."""
    return (predicted[:, 0].astype(np.float64) - targets) ** 2


def distances(predicted: Predicted, targets: Targets) -> NDArray[np.float64]:
    """Return the absolute error of each value, in the targets' unit: (n, 1), (n,) -> (n,)."""
    return np.abs(predicted[:, 0].astype(np.float64) - targets)


EACH: dict[str, Callable[[Predicted, Targets], NDArray[np.float64]]] = {
    "accuracy": hits,
    "log_loss": surprises,
    "mse": squares,
    "mae": distances,
}


def each_sample(score: str, predicted: Predicted, targets: Targets) -> NDArray[np.float64]:
    """Return what a score is the mean of: one value for each sample, (n,).

    Args:
        score: one of `MODES`.
        predicted: probabilities (n, classes), or values (n, 1).
        targets: right classes (n,) int64, or right values (n,) float32.

    Raises:
        UserError: there is no such score, or it is not for what is predicted.
    """
    check_score(score, targets)
    return EACH[score](predicted, targets)


def scored(score: str, predicted: Predicted, targets: Targets) -> float:
    """Return a score by name; arguments and errors as those of `each_sample`."""
    return float(each_sample(score, predicted, targets).mean())


def accuracy(predicted: Predicted, targets: Targets) -> float:
    """Return the fraction of samples whose likeliest class is right: (n, classes), (n,)."""
    return float(hits(predicted, targets).mean())


def log_loss(predicted: Predicted, targets: Targets) -> float:
    """Return the mean negative log probability of the right class, nats: (n, classes), (n,)."""
    return float(surprises(predicted, targets).mean())


def mse(predicted: Predicted, targets: Targets) -> float:
    """Return the mean squared error: (n, 1), (n,)."""
    return float(squares(predicted, targets).mean())


def better(score: str, value: float, other: float) -> float:
    """Return by how much `value` is better than `other` in the score's own unit; negative: worse."""
    return value - other if MODES[score] == "max" else other - value


def merit(score: str, predicted: Predicted, targets: Targets) -> Merit:
    """Return what to maximize: the score turned so that higher is better, then (against ties) the log loss.

    With few validation samples many candidates are right equally often, and the surer one is the better one.
    Arguments and errors as those of `each_sample`.
    """
    value = better(score, scored(score, predicted, targets), 0.0)
    return value, (-log_loss(predicted, targets) if score == "accuracy" else 0.0)


def is_classes(targets: Targets) -> bool:
    """Return whether targets are classes (integers) rather than values."""
    return bool(np.issubdtype(targets.dtype, np.integer))


def check_score(score: str, targets: Targets) -> None:
    """Refuse a score that there is not, or that is for another kind of targets.

    Raises:
        UserError: with the nearest right one, or those that fit.
    """
    if score not in MODES:
        raise UserError(f"there is no score '{score}'", key="ensemble.score", hint=nearest(score, MODES))
    fitting = OF_CLASSES if is_classes(targets) else OF_VALUES
    if score not in fitting:
        what = "classes are" if is_classes(targets) else "values are"
        raise UserError(
            f"'{score}' is no score where {what} predicted",
            key="ensemble.score",
            hint=f"Take one of: {', '.join(fitting)}",
        )
