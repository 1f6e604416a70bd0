"""Cross-validation for small data (A15): training and validation samples divided into stratified folds.

A sample's fold follows from the hash of its number, so it is the same at every scale, whatever classes or
fraction a stage takes; subsets stay nested within a fold. The held-out test part is never touched.
"""

from __future__ import annotations

import numpy as np

from orchestrator.data.hashing import FOLDS, hashed
from orchestrator.data.splits import Indices, class_counts
from orchestrator.errors import UserError

AUTO = "auto"
AUTO_FOLDS = 5
AUTO_BELOW = 100  # validation samples: with fewer, one of them is more than a hundredth of the accuracy


def number_of_folds(wanted: int | str, validation: int, counts: Indices) -> int:
    """Return how many folds there are; 1 is a plain split.

    Args:
        wanted: `split.folds`: a number, or "auto".
        validation: samples of the plain split's validation part, at full scale.
        counts: (classes,) samples of each class in training and validation together.

    Raises:
        UserError: no number of folds, or more folds than samples to divide.
    """
    divisible = int(counts[counts > 1].sum())
    if wanted == AUTO:
        return AUTO_FOLDS if validation < AUTO_BELOW and divisible >= 2 * AUTO_FOLDS else 1
    if isinstance(wanted, str) or wanted < 1:
        raise UserError(f"{wanted!r} is no number of folds", key="datasets.split.folds", hint="Say 5 or auto")
    if wanted > max(divisible, 1):
        raise UserError(
            f"{wanted} folds need {wanted} samples of classes with at least two, and there are {divisible}",
            key="datasets.split.folds",
        )
    return wanted


def fold_numbers(labels: Indices, ids: Indices, folds: int, seed: int) -> Indices:
    """Return the fold whose validation part has the sample: (k,), 0 to folds - 1.

    A class's only sample has fold -1: it is for training in every fold.

    Args:
        labels: (k,) of the training and validation samples, of all classes.
        ids: (k,) their numbers in the whole dataset.
        folds: how many.
        seed: another one divides otherwise.
    """
    order = np.lexsort((hashed(seed, FOLDS, ids), labels))
    order = order[class_counts(labels)[labels[order]] > 1]
    numbers = np.full(len(labels), -1, dtype=np.int64)
    # Dealt like cards, class after class: in every class and in all, folds differ by one sample at most.
    numbers[order] = np.arange(len(order)) % folds
    return numbers


def fold_counts(counts: Indices, folds: int) -> Indices:
    """Return how many samples of each class every fold's validation part has: (folds, classes).

    Args:
        counts: (classes,) samples of each class in training and validation together.
        folds: how many.
    """
    dealt = np.where(counts > 1, counts, 0)
    ends = np.cumsum(dealt)
    number = np.arange(folds)[:, None]
    # Of the cards before place p, fold f has ceil((p - f) / folds).
    upto_end, upto_start = (-((number - place) // folds) for place in (ends, ends - dealt))
    held_out: Indices = np.maximum(upto_end, 0) - np.maximum(upto_start, 0)
    return held_out
