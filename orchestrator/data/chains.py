"""Generated sequences of tokens whose classes differ in nothing but the order of the tokens.

Each class is a Markov chain of its own, and all chains have the same stationary distribution (uniform), so
counts of tokens say nothing of the class: a model must read the sequence. A sample depends on (seed, index)
alone, so drawing some gives the same bytes as drawing all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.hashing import DRAWING, NOISE, hashed, uniform
from orchestrator.data.source import Source
from orchestrator.errors import UserError

_CHUNK = 8192


def chains(
    *,
    samples: int = 20_000,
    num_classes: int = 4,
    tokens: int = 12,
    length: int = 32,
    shortest: int | None = None,
    order: float = 0.5,
    seed: int = 0,
) -> Source:
    """Return the generated sequences as a source of shape (length,), int64, 0 for padding at the end.

    A chain goes on by its class's own rule, a permutation of the tokens, with the chance `order`, and
    otherwise to any token. Permutations keep the uniform distribution, and any two of them differ for every
    token.

    Args:
        samples: any number; a dataset of fewer samples is the beginning of one of more.
        num_classes: 2 or more, fewer than there are tokens.
        tokens: different ones, from 1 up; the vocabulary is one larger, for the padding.
        length: of the longest sequences.
        shortest: of the shortest; None is half of `length`. Lengths in between are equally likely.
        order: the chance that a token follows from the one before; near 0 classes can't be told apart.
        seed: another one gives other sequences with the same labels.

    Raises:
        UserError: a setting out of range.
    """
    least = max(length // 2, 1) if shortest is None else shortest
    _check(samples, num_classes, tokens, length, least, order)
    labels = np.arange(samples, dtype=np.int64) % num_classes

    def load(indices: NDArray[np.int64]) -> NDArray[np.int64]:
        drawn = np.zeros((len(indices), length), np.int64)
        for at in range(0, len(indices), _CHUNK):
            part = indices[at : at + _CHUNK]
            drawn[at : at + _CHUNK] = _draw(part, labels[part], tokens, length, least, order, seed)
        return drawn

    return Source(
        labels=labels,
        class_names=tuple(f"chain {number}" for number in range(num_classes)),
        shape=(length,),
        load=load,
        vocabulary=tokens + 1,
    )


def _draw(
    indices: NDArray[np.int64],
    labels: NDArray[np.int64],
    tokens: int,
    length: int,
    least: int,
    order: float,
    seed: int,
) -> NDArray[np.int64]:
    """Draw sequences `indices` (k,) of classes `labels` (k,): (k, length)."""
    places = indices[:, None] * length + np.arange(length)
    follows = uniform(seed, NOISE, places) < order
    anything = (hashed(seed, DRAWING, places) % np.uint64(tokens)).astype(np.int64)
    # The tokens stand in a hidden circle, the same for all classes; class c goes c + 1 places on.
    circle = np.argsort(hashed(0, NOISE, np.arange(tokens)), kind="stable")
    place_of = np.argsort(circle)
    sequence = np.empty((len(indices), length), np.int64)
    sequence[:, 0] = anything[:, 0]
    for step in range(1, length):
        by_rule = circle[(place_of[sequence[:, step - 1]] + labels + 1) % tokens]
        sequence[:, step] = np.where(follows[:, step], by_rule, anything[:, step])
    # Lengths have a stream of their own seed: every place of the two above is taken by a token.
    spread = np.uint64(length - least + 1)
    lengths = least + (hashed(~seed, DRAWING, indices) % spread).astype(np.int64)
    return np.where(np.arange(length) < lengths[:, None], sequence + 1, 0)


def _check(samples: int, num_classes: int, tokens: int, length: int, least: int, order: float) -> None:
    if not 2 <= num_classes < tokens:
        raise UserError(
            f"{num_classes} is not from 2 to below {tokens}, the number of tokens", key="num_classes"
        )
    if samples < num_classes:
        raise UserError(f"{samples} samples are fewer than the {num_classes} classes", key="samples")
    if not 1 <= least <= length:
        raise UserError(f"{least} is not from 1 to {length}, the longest", key="shortest")
    if length < 2:
        raise UserError(f"{length} has no order", key="length", hint="Say 2 or more")
    if not 0 <= order <= 1:
        raise UserError(f"{order:g} is not from 0 to 1", key="order")
