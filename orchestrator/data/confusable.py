"""The classes that are hardest to tell apart: a choice for the stages that see only some classes (A3).

Two easy classes are told apart by any setting, and then the stage says nothing about settings. The confusable
ones are found by a quick linear model on a small sample of the training part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.hashing import LOOK, hashed
from orchestrator.data.splits import Indices, subset

SAMPLES = 2000  # that are looked at: the model takes a second at most
_SIDE = 16  # pixels: larger images are averaged
_PENALTY = 0.1  # of the ridge, as a share of the features' mean square
_CHUNK = 256


def confusable_order(
    labels: Indices,
    ids: Indices,
    load: Callable[[Indices], NDArray[Any]],
    *,
    vocabulary: int | None = None,
    seed: int = 0,
) -> list[int]:
    """Return all classes, the two most confused first, then one after another what is most like those before.

    So a smaller choice is contained in a larger one. The model is one ridge regression for each class against
    the rest, fitted to one half of a sample and asked about the other; the counts of its mistakes decide,
    then those of its second choices, then the classes' order.

    Args:
        labels: (k,) of the training part, of all classes.
        ids: (k,) the samples' numbers in the whole dataset.
        load: gives the samples with some numbers.
        vocabulary: of sequences of tokens.
        seed: the dataset's `subset_seed`.
    """
    number = int(labels.max()) + 1
    chosen = subset(labels, ids, min(max(SAMPLES, 2 * number), len(ids)), seed) if len(ids) > SAMPLES else ids
    chosen_labels = labels[np.searchsorted(ids, chosen)]
    features = np.concatenate(
        [_features(load(chosen[at : at + _CHUNK]), vocabulary) for at in range(0, len(chosen), _CHUNK)]
    )
    # Every second one of each class, in an order that says nothing of the samples.
    by_class = np.lexsort((hashed(seed, LOOK, chosen), chosen_labels))
    half = np.empty(len(chosen), dtype=np.int64)
    half[by_class] = np.arange(len(chosen)) % 2
    confused = np.zeros((number, number))
    for one in (0, 1):
        scores = _ridge(features[half != one], chosen_labels[half != one], features[half == one], number)
        confused += _mistakes(scores, chosen_labels[half == one])
    share = confused / np.maximum(np.bincount(chosen_labels, minlength=number), 1)[:, None]
    return _greedy(share + share.T)


def _greedy(confused: NDArray[np.float64]) -> list[int]:
    """Order classes by a symmetric matrix of confusion (classes, classes), from the most confused pair on."""
    classes = len(confused)
    confused = confused.copy()
    np.fill_diagonal(confused, -1.0)
    order = [int(number) for number in divmod(int(confused.argmax()), classes)]
    while len(order) < classes:
        near = confused[order].sum(axis=0)
        near[order] = -np.inf
        order.append(int(near.argmax()))
    return order


def _features(samples: NDArray[Any], vocabulary: int | None) -> NDArray[np.float64]:
    """Return few numbers for each sample: (k, features)."""
    if vocabulary is not None:  # how often each token occurs
        rows = np.arange(len(samples))[:, None] * vocabulary
        counts = np.bincount((rows + samples).ravel(), minlength=len(samples) * vocabulary)
        return counts.reshape(len(samples), vocabulary)[:, 1:].astype(np.float64)
    if samples.ndim == 4 and max(samples.shape[2:]) > _SIDE:
        from orchestrator.data.resize import resize

        samples = resize(samples, _SIDE)
    return samples.reshape(len(samples), -1).astype(np.float64)


def _ridge(
    known: NDArray[np.float64], labels: Indices, asked: NDArray[np.float64], classes: int
) -> NDArray[np.float64]:
    """Fit a ridge regression to each class's indicator and return scores for `asked`: (k, classes).

    In the dual, for samples are fewer than SAMPLES and features may be many.
    """
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    deviation[deviation == 0] = 1.0
    known, asked = (known - mean) / deviation, (asked - mean) / deviation
    wanted = (labels[:, None] == np.arange(classes)).astype(np.float64)
    offset = wanted.mean(axis=0)
    kernel = known @ known.T
    penalty = _PENALTY * max(float(np.trace(kernel)), 1.0) / len(known)
    weights = np.linalg.solve(kernel + penalty * np.eye(len(known)), wanted - offset)
    scores: NDArray[np.float64] = asked @ (known.T @ weights) + offset
    return scores


def _mistakes(scores: NDArray[np.float64], labels: Indices) -> NDArray[np.float64]:
    """Count what each class was taken for: (classes, classes); near misses count a thousandth."""
    rows = np.arange(len(labels))
    own = scores[rows, labels]
    others = scores.copy()
    others[rows, labels] = -np.inf
    second = others.argmax(axis=1)
    counted = np.zeros((scores.shape[1], scores.shape[1]))
    np.add.at(counted, (labels, second), np.where(scores[rows, second] > own, 1.0, 0.001))
    return counted
