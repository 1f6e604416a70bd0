"""What a run's predictions say: mistakes, confusion, calibration and coverage (practice, E7 and E10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.diagnosis.detail import as_picture
from orchestrator.errors import UserError

# Bins of confidence, as in Guo et al., "On calibration of modern neural networks" (2017), section 2.
BINS = 15
WORST, MOST_CLASSES, MOST_POINTS, MOST_VALUES = 16, 50, 300, 12
COVERAGES = np.linspace(0.05, 1.0, 20)


def describe(
    probabilities: NDArray[Any],
    targets: NDArray[Any],
    ids: NDArray[Any] | None = None,
    class_names: Sequence[str] = (),
    inputs: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Describe predictions of data that were not trained on, as JSON has it.

    Args:
        probabilities: (n, classes) that sum to 1; or (n,) or (n, 1), predicted values.
        targets: (n,) classes as whole numbers, or values.
        ids: (n,) the samples' numbers in the whole dataset; None: their places.
        class_names: of the classes.
        inputs: (n, ...) the samples, of which the worst are shown.

    Returns:
        Of classes: samples, accuracy, confusion (rows are the true classes), calibration (`error`, the
        expected calibration error, and its bins), coverage with the accuracy of the most confident, and
        `worst`, the most confident mistakes. Of values: samples, rmse, `points` and `worst`.

    Raises:
        UserError: the shapes do not fit together, or a target is no class.
    """
    outputs, wanted = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    if wanted.shape not in ((len(outputs),), (len(outputs), 1)) or outputs.ndim > 2:
        raise UserError(f"predictions of shape {outputs.shape} do not fit targets of {wanted.shape}")
    wanted = wanted.reshape(-1)
    rows = outputs if outputs.ndim == 2 else outputs[:, None]
    numbers = np.arange(len(outputs)) if ids is None else np.asarray(ids)
    sound = np.isfinite(rows).all(1) & np.isfinite(wanted)
    shown = _Shown(numbers[sound], None if inputs is None else np.asarray(inputs), np.flatnonzero(sound))
    whole = {"samples": int(sound.sum()), "not_finite": int((~sound).sum())}
    if not sound.any():
        return whole
    if rows.shape[1] > 1:
        return whole | _of_classes(rows[sound], wanted[sound], class_names, shown)
    return whole | _of_values(rows[sound, 0], wanted[sound].astype(np.float64), shown)


class _Shown:
    """How a sample is shown: its number in the dataset, and its picture or its first numbers."""

    def __init__(self, ids: NDArray[Any], inputs: NDArray[Any] | None, places: NDArray[Any]) -> None:
        self.ids, self.inputs, self.places = ids, inputs, places

    def __call__(self, row: int) -> dict[str, Any]:
        found: dict[str, Any] = {"id": int(self.ids[row])}
        if self.inputs is None:
            return found
        sample = np.asarray(self.inputs[self.places[row]])
        image = as_picture(sample)
        if image is not None:
            return found | {"picture": image}
        return found | {"values": [float(f"{value:.4g}") for value in sample.reshape(-1)[:MOST_VALUES]]}


def _of_classes(
    probabilities: NDArray[Any], targets: NDArray[Any], names: Sequence[str], shown: _Shown
) -> dict[str, Any]:
    classes, labels = probabilities.shape[1], targets.astype(np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"the targets reach from {labels.min()} to {labels.max()}, of {classes} classes")
    called = [str(name) for name in names] if len(names) == classes else [str(k) for k in range(classes)]
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    right = predicted == labels
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
    found: dict[str, Any] = {
        "accuracy": float(right.mean()),
        "calibration": _calibration(confidence, right),
        "coverage": _coverage(confidence, right),
        "worst": [
            {
                "target": called[labels[row]],
                "predicted": called[predicted[row]],
                "confidence": float(confidence[row]),
                **shown(int(row)),
            }
            for row in worst
        ],
    }
    if classes <= MOST_CLASSES:
        counts = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
        found["confusion"] = {"classes": called, "counts": counts.tolist()}
    return found


def _calibration(confidence: NDArray[Any], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the expected calibration error: how far accuracy is from confidence, by bins of confidence."""
    numbers = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = [
        {
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
            "count": int(inside.sum()),
        }
        for number in range(BINS)
        if (inside := numbers == number).any()
    ]
    gaps = [one["count"] * abs(one["accuracy"] - one["confidence"]) for one in bins]
    return {"error": sum(gaps) / len(confidence), "bins": bins}


def _coverage(confidence: NDArray[Any], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the accuracy of the most confident share of the predictions, for growing shares."""
    ordered = np.cumsum(right[np.argsort(-confidence, kind="stable")])
    counts = np.maximum(1, np.rint(COVERAGES * len(ordered)).astype(np.int64))
    return {"share": (counts / len(ordered)).tolist(), "accuracy": (ordered[counts - 1] / counts).tolist()}


def _of_values(values: NDArray[Any], targets: NDArray[Any], shown: _Shown) -> dict[str, Any]:
    missed = np.abs(values - targets)
    order = np.argsort(targets, kind="stable")
    some = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_POINTS)).astype(np.int64))]
    worst = np.argsort(-missed, kind="stable")[:WORST]
    return {
        "rmse": float(np.sqrt(np.mean(missed**2))),
        "points": {"target": targets[some].tolist(), "predicted": values[some].tolist()},
        "worst": [
            {"target": float(targets[row]), "predicted": float(values[row]), **shown(int(row))}
            for row in worst
        ],
    }
