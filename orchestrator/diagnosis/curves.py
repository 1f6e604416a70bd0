"""What the loss and the metrics of the epochs say: the learning rate, underfitting and overfitting.

The shapes are those of practice (E1 to E3). A shape alone does not tell a rate that is too small from a
hard problem, so where the update-to-weight ratio is known it must agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.diagnosis.finding import (
    LR_TOO_LARGE,
    LR_TOO_SMALL,
    OVERFITTING,
    UNDERFITTING,
    Finding,
    finding,
)
from orchestrator.diagnosis.losses import Losses

# Too few updates, or epochs, to speak of a curve's shape.
FEWEST_UPDATES, FEWEST_EPOCHS = 30, 5
# An explosion is a growth to so many times the first loss within so many updates.
EXPLOSION, EARLY = 10.0, 100
# A loss that ends above this share of the first one is high.
HIGH = 0.5
# A curve is flat where its last quarter is lower than the third by less than this share.
FLAT = 0.05
# A falling curve is straight where a line explains so much of it, and its halves fall alike.
STRAIGHT, HALF = 0.9, (0.3, 0.7)
# Accuracy that training has and validation has not; growth of the validation loss over its lowest.
GAP, RISE = 0.1, 1.3

Epochs = Sequence[Mapping[str, float]]


def judge_rate(losses: Losses, ratio: float | None, fresh: bool = True) -> Finding | None:
    """Judge the learning rate by the loss of each update (E1).

    Args:
        losses: of all updates.
        ratio: the typical update-to-weight ratio; None where it is not known.
        fresh: the training began here; False where it was taken up again.
    """
    return _explodes(losses, ratio) or (_shape(losses, ratio) if fresh else None)


def _explodes(losses: Losses, ratio: float | None) -> Finding | None:
    first = losses.first[:EARLY]
    if len(first) < 2 or not 0 < first[0] < math.inf or (ratio is not None and ratio < 1e-2):
        return None
    start, highest = first[0], first[0]
    for update, value in enumerate(first[1:], 2):
        if not math.isfinite(value):
            # Out of the blue it is something else: see `origin`.
            if highest > 3 * start:
                said = f"the loss rose from {start:.3g} to {highest:.3g} and beyond in {update} updates"
                return finding(LR_TOO_LARGE, said, update)
            return None
        highest = max(highest, value)
        # One batch may be odd; three in a row are not.
        recent = min(first[max(1, update - 3) : update])
        if update >= 4 and recent > EXPLOSION * start:
            said = f"the loss rose from {start:.3g} to {recent:.3g} in {update} updates"
            return finding(LR_TOO_LARGE, said, update)
    return None


def _shape(losses: Losses, ratio: float | None) -> Finding | None:
    if losses.count < FEWEST_UPDATES or losses.broken or losses.first[0] <= 0:
        return None
    start, parts = losses.first[0], losses.parts(8)
    third, late = float(parts[4:6].mean()), float(parts[6:].mean())
    if late <= HIGH * start:
        return None
    tells = f"from {start:.3g} to {late:.3g} in {losses.count} updates"
    flat = third - late < FLAT * abs(third)
    if flat and ratio is not None and ratio > 3e-2:
        said = f"the loss stalls high: {tells}, at updates of {ratio:.1%} of the weights"
        return finding(LR_TOO_LARGE, said, losses.count)
    slow = ratio < 1e-3 if ratio is not None else losses.count >= 10 * FEWEST_UPDATES
    if slow and (_straight(parts) or (ratio is not None and ratio < 1e-4 and late > 0.9 * start)):
        at = f", at updates of {ratio:.1g} of the weights" if ratio is not None else ""
        return finding(LR_TOO_SMALL, f"the loss falls slowly and straight: {tells}{at}", losses.count)
    return None


def _straight(parts: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bool:
    """Say whether a curve of 8 parts falls along a line."""
    fall = parts[0] - parts[-1]
    if not fall > 0 or parts.std() == 0:
        return False
    correlation = float(np.corrcoef(np.arange(len(parts)), parts)[0, 1])
    middle = (parts[3] + parts[4]) / 2
    return correlation < 0 and correlation**2 > STRAIGHT and HALF[0] < (parts[0] - middle) / fall < HALF[1]


def judge_fit(epochs: Epochs, first_loss: float | None, updates: int) -> Finding | None:
    """Judge by the metrics of the epochs whether the model fits too little (E2) or too closely (E3).

    Args:
        epochs: each epoch's metrics, by the names that `plain` gives them.
        first_loss: of the first update; None where it is not known, or a model was taken up again.
        updates: how many there have been.
    """
    if len(epochs) < FEWEST_EPOCHS:
        return None
    train, validation = ([one.get(f"{part}/loss", math.nan) for one in epochs] for part in ("train", "val"))
    if not np.isfinite([*train, *validation]).all():
        return None
    return _overfits(epochs, train, validation, first_loss, updates) or _underfits(
        train, validation, first_loss, updates
    )


def _overfits(
    epochs: Epochs,
    train: Sequence[float],
    validation: Sequence[float],
    first_loss: float | None,
    updates: int,
) -> Finding | None:
    seen, held = (epochs[-1].get(f"{part}/accuracy", math.nan) for part in ("train", "val"))
    if seen - held >= GAP:
        said = f"accuracy is {seen:.3g} on training data and {held:.3g} on validation data"
        return finding(OVERFITTING, said, updates)
    best = int(np.argmin(validation))
    lowest, last = validation[best], validation[-1]
    # Where accuracy keeps up it is overconfidence, and next to the first loss it may be nothing to speak of.
    much = last > RISE * lowest and last - lowest > GAP * max(validation[0], first_loss or 0.0)
    grown = much and not seen - held < GAP / 4
    if grown and best < 0.75 * len(epochs) and train[-1] < train[best]:
        said = (
            f"validation loss rose from {lowest:.3g} (epoch {best + 1}) to {last:.3g}, "
            f"while training loss fell to {train[-1]:.3g}"
        )
        return finding(OVERFITTING, said, updates)
    return None


def _underfits(
    train: Sequence[float], validation: Sequence[float], first_loss: float | None, updates: int
) -> Finding | None:
    if first_loss is None or not first_loss > 0:
        return None
    third = max(1, len(train) // 3)
    before, after = float(np.mean(train[-2 * third : -third])), float(np.mean(train[-third:]))
    poor = after > HIGH * first_loss and validation[-1] > 0.8 * HIGH * first_loss
    if not poor or before - after >= FLAT * before or validation[-1] > 1.25 * train[-1]:
        return None
    said = (
        f"training loss stays at {after:.3g} of {first_loss:.3g} at the start, "
        f"and validation loss at {validation[-1]:.3g}"
    )
    return finding(UNDERFITTING, said, updates)


_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
_KINDS = {"loss": "loss", "acc": "accuracy", "accuracy": "accuracy"}


def plain(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics by names such as train/loss, however their writer parts the words."""
    found = {}
    for name, value in metrics.items():
        words = name.lower().replace("_", "/").replace("-", "/").replace(".", "/").split("/")
        known = [_PARTS.get(words[0]), _KINDS.get(words[-1])] if len(words) == 2 else [None]
        found[f"{known[0]}/{known[1]}" if all(known) else name] = value
    return found
