"""Which samples: stratified splits, nested subsets and the choice of classes.

All of it follows from two rules. A sample's place in the order of its class is a hash of (seed, sample), so
it does not depend on the other samples. And a part takes the first so many of each class, where the number
grows with the fraction. So a smaller fraction is always contained in a larger one, whatever was asked before.

Nothing here reads a sample; labels are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.hashing import CLASSES, SPLIT, SUBSET, hashed
from orchestrator.errors import UserError, nearest

Indices = NDArray[np.int64]

FIRST, RANDOM, CONFUSABLE = "first", "random", "confusable"
CLASS_RULES = (FIRST, RANDOM, CONFUSABLE)

# Each class rounds at an offset of its own (multiples of the golden ratio fill the unit interval evenly), so
# that many equal classes don't all round up together: 62 classes at 1.5 samples give 93, not 124.
_GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Split:
    """Sample ids of the three parts, each ascending, disjoint, together all samples."""

    train: Indices
    validation: Indices
    test: Indices


def class_counts(labels: Indices, num_classes: int | None = None) -> Indices:
    """Return the number of samples of each class: (num_classes,)."""
    return np.bincount(labels, minlength=num_classes or 0).astype(np.int64)


def quota(counts: Indices, fraction: float) -> Indices:
    """Return how many of each class make up a fraction: (num_classes,), each within one of its share.

    Grows with the fraction in every class, which is what makes subsets nested; all of them at 1.
    """
    offsets = (0.5 + np.arange(len(counts)) * _GOLDEN_RATIO) % 1.0
    return np.minimum(np.floor(counts * fraction + offsets).astype(np.int64), counts)


def at_least_one(counts: Indices, fraction: float) -> Indices:
    """Return `quota`, with at least one sample of every class that has any."""
    return np.maximum(quota(counts, fraction), np.minimum(counts, 1))


def split_counts(counts: Indices, validation: float, test: float) -> tuple[Indices, Indices, Indices]:
    """Return how many of each class go to train, validation and test, three arrays (num_classes,).

    Training has at least one of every class; then validation, then test, as far as there are samples.

    Raises:
        UserError: a fraction is negative, or nothing is left for training.
    """
    for name, value in (("validation", validation), ("test", test)):
        if not 0 <= value < 1:
            raise UserError(f"{value} is not a fraction from 0 to below 1", key=f"split.{name}")
    if validation + test >= 1:
        raise UserError(f"validation {validation} and test {test} leave nothing to train on", key="split")
    spare = np.maximum(counts - 1, 0)
    held_out = np.minimum(at_least_one(counts, validation), spare) if validation else 0 * counts
    tested = np.minimum(at_least_one(counts, test), spare - held_out) if test else 0 * counts
    return counts - held_out - tested, held_out, tested


def split(labels: Indices, *, validation: float, test: float, seed: int) -> Split:
    """Divide samples (n,) into train, validation and held-out test, stratified by label.

    Raises:
        UserError: as `split_counts`.
    """
    ids = np.arange(len(labels), dtype=np.int64)
    ranks = ranks_within_class(labels, hashed(seed, SPLIT, ids))
    _, held_out, tested = split_counts(class_counts(labels), validation, test)
    is_test = ranks < tested[labels]
    is_validation = ~is_test & (ranks < (tested + held_out)[labels])
    return Split(ids[~is_test & ~is_validation], ids[is_validation], ids[is_test])


def subset(labels: Indices, ids: Indices, amount: float, seed: int) -> Indices:
    """Choose a stratified part of the samples `ids` (k,), whose labels are `labels` (k,).

    Args:
        labels: class of each sample, numbered as in the whole dataset.
        ids: the samples' numbers in the whole dataset; they decide which ones are taken.
        amount: a fraction up to 1, or a count above 1; each class has at least one sample.
        seed: another seed takes other samples.

    Returns:
        The chosen ids, in the order of `ids`. The part for a smaller amount is contained in that for a
        larger one; each class is within one sample of its share.

    Raises:
        UserError: more than there is, or nothing at all.
    """
    fraction = as_fraction(amount, len(ids))
    ranks = ranks_within_class(labels, hashed(seed, SUBSET, ids))
    taken = at_least_one(class_counts(labels), fraction)
    return ids[ranks < taken[labels]]


def as_fraction(amount: float, available: int) -> float:
    """Turn an amount (a fraction up to 1, a count above 1) into a fraction of the samples available.

    Raises:
        UserError: more than there is, or nothing at all.
    """
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount > 0:
        raise UserError(
            f"{amount!r} is not an amount of data", hint="A fraction up to 1.0 or a count above 1"
        )
    if amount <= 1:
        return float(amount)
    if amount != int(amount):
        raise UserError(f"{amount} is above 1, so it is a count, and a count is a whole number")
    if amount > available:
        raise UserError(f"{int(amount)} samples are asked for, and there are {available}")
    return amount / available


def choose_classes(
    num_classes: int,
    classes: int | Sequence[int | str] | None,
    *,
    rule: str = "first",
    seed: int = 0,
    names: Sequence[str] | None = None,
    order: Sequence[int] | None = None,
) -> list[int]:
    """Choose classes by count or by list and return their numbers, ascending.

    Args:
        num_classes: how many there are.
        classes: a count, a list of names (or, where no name is a number, of numbers), or None for all.
        rule: how a count chooses: "first", "random" (seeded), or "confusable", which goes by `order`. Fewer
            classes are contained in more.
        seed: for "random".
        names: the classes' names, where they are known.
        order: for "confusable", all classes as orchestrator.data.confusable orders them; where the data
            are not at hand (planning), None takes the first ones, of which there are as many.

    Raises:
        UserError: more classes than there are, fewer than two, a name or rule that does not exist.
    """
    if rule not in CLASS_RULES:
        raise UserError(f"'{rule}' is no rule to choose classes", hint=nearest(rule, CLASS_RULES))
    if classes is None:
        return list(range(num_classes))
    if isinstance(classes, str) or not isinstance(classes, int | Sequence):
        raise UserError(f"{classes!r} is neither a count of classes nor a list of them")
    if not isinstance(classes, int):
        return _listed_classes(num_classes, list(classes), names)
    if classes > num_classes:
        raise UserError(f"{classes} classes are asked for, and there are {num_classes}")
    if classes < 2:
        raise UserError(f"{classes} classes cannot be told apart", hint="Ask for at least 2")
    numbers = np.arange(num_classes)
    if rule == RANDOM:
        numbers = np.argsort(hashed(seed, CLASSES, numbers), kind="stable")
    elif rule == CONFUSABLE and order is not None:
        numbers = np.asarray(order)
    return sorted(numbers[:classes].tolist())


def _listed_classes(num_classes: int, listed: list[Any], names: Sequence[str] | None) -> list[int]:
    """Look listed classes up by name; by number only where the names themselves are no numbers."""
    known = list(names) if names is not None else [str(number) for number in range(num_classes)]
    numbered = not any(name.lstrip("-").isdigit() for name in known)
    chosen = set()
    for item in listed:
        if str(item) in known:
            chosen.add(known.index(str(item)))
        elif numbered and isinstance(item, int) and 0 <= item < num_classes:
            chosen.add(item)
        else:
            raise UserError(f"there is no class '{item}'", hint=nearest(str(item), known))
    if len(chosen) < 2:
        raise UserError(f"the classes {listed} cannot be told apart", hint="List at least 2 different ones")
    return sorted(chosen)


def ranks_within_class(labels: Indices, keys: NDArray[np.uint64]) -> Indices:
    """Return each sample's place, from 0, among those of its class, by ascending key: (n,)."""
    order = np.lexsort((keys, labels))
    counts = class_counts(labels)
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return ranks
