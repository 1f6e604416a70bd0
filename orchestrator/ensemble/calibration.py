"""Confidence: how well it agrees with accuracy, and what accuracy is when the unsure samples are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble.scores import SMALLEST, log_loss

Probabilities = NDArray[np.floating]
Labels = NDArray[np.int64]

BINS = 15
POINTS = 20

# Temperatures are looked for between 1/20 and 20.
_LIMIT = np.log(20.0)


def temperature(probabilities: Probabilities, labels: Labels) -> float:
    """Return the temperature that makes probabilities likeliest: below 1 makes them surer.

    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2. Of
    probabilities p it is softmax(log p / T), which for one network's softmax is the same as of its logits.

    Args:
        probabilities: (n, classes) on validation data.
        labels: (n,) right classes.
    """
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))
    found = minimize_scalar(
        lambda heat: log_loss(_softmax(logs / np.exp(heat)), labels),
        bounds=(-_LIMIT, _LIMIT),
        method="bounded",
    )
    return float(np.exp(found.x))


def scaled(probabilities: Probabilities, heat: float) -> NDArray[np.float64]:
    """Return probabilities at a temperature: (n, classes)."""
    return _softmax(np.log(np.maximum(probabilities.astype(np.float64), SMALLEST)) / heat)


def reliability(probabilities: Probabilities, labels: Labels) -> tuple[float, list[dict[str, float]]]:
    """Return the expected calibration error, and the bins that it is of.

    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI
    2015: in bins of equal width of confidence, the mean distance of confidence from accuracy, weighed by
    samples. It is between 0 and 1.

    Args:
        probabilities: (n, classes).
        labels: (n,) right classes.

    Returns:
        The error, and {confidence, accuracy, count} of each bin that has samples.
    """
    confidence, right = _confidence(probabilities, labels)
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sure = np.bincount(place, weights=confidence, minlength=BINS)
    hits = np.bincount(place, weights=right, minlength=BINS)
    error = float(np.abs(sure - hits).sum() / len(labels))
    bins = [
        {
            "confidence": float(sure[each] / counts[each]),
            "accuracy": float(hits[each] / counts[each]),
            "count": int(counts[each]),
        }
        for each in np.flatnonzero(counts)
    ]
    return error, bins


def coverage(probabilities: Probabilities, labels: Labels) -> list[list[float]]:
    """Return accuracy against coverage: [[coverage, accuracy], ...] where the least sure are refused first.

    Geifman and El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017, with the
    likeliest class's probability as confidence. Equal confidences are refused together.

    Args:
        probabilities: (n, classes).
        labels: (n,) right classes.
    """
    confidence, right = _confidence(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    confidence, accuracy = confidence[order], np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    wanted = np.ceil(np.arange(1, POINTS + 1) / POINTS * len(order)).astype(np.int64)
    # Up to the last of those that are as sure as the one that was wanted.
    ends = np.unique(np.searchsorted(-confidence, -confidence[wanted - 1], side="right"))
    return [[float(end / len(order)), float(accuracy[end - 1])] for end in ends]


def calibrated(probabilities: Probabilities, labels: Labels, heat: float) -> dict[str, Any]:
    """Return the calibration error before and after a temperature, and the bins before it."""
    error, bins = reliability(probabilities, labels)
    return {"ece": error, "ece_scaled": reliability(scaled(probabilities, heat), labels)[0], "bins": bins}


def _confidence(
    probabilities: Probabilities, labels: Labels
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how sure each prediction is, and 1 where it is right."""
    values = probabilities.astype(np.float64)
    return values.max(axis=1), (values.argmax(axis=1) == labels).astype(np.float64)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
