"""A stage's part of a user's own dataset: the same sampling as of the datasets that come with a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.confusable import confusable_order
from orchestrator.data.splits import CONFUSABLE, FIRST, Indices, choose_classes, class_counts, subset
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from torch.utils.data import Subset

# Values are cut into so many parts of equal size, of which a subset then has its share.
BINS = 10


def stage_subset(dataset: Any, labels: Any, scale: Mapping[str, Any], *, seed: int = 0) -> Subset[Any]:
    """Return the samples of a dataset that a stage's scale takes: of its classes, and of them a part.

    The part is stratified by class (or by ranges of the values), the same for a seed on every machine, and
    contains what a smaller scale takes. Labels keep their numbers: a model needs an output for every class.

    Args:
        dataset: map-style: with a length, and samples by number.
        labels: (n,) whole numbers for classes, or numbers to predict; None: the dataset's own `targets` or
            `labels`, and where it has neither, no class is told from another.
        scale: `data`, `classes` and `class_rule`, as far as they are there.
        seed: another one takes other samples.

    Raises:
        UserError: the dataset has no length, the labels do not fit it, or classes are asked for that are not
            there.
    """
    from torch.utils.data import Subset

    try:
        length = len(dataset)
    except TypeError:
        raise UserError(
            f"{type(dataset).__name__} has no length, so no part of it can be taken",
            hint="Give a map-style dataset, with __len__ and __getitem__",
        ) from None
    known = _labels(dataset, labels)
    if known is not None and len(known) != length:
        raise UserError(f"there are {len(known)} labels for {length} samples")
    ids = np.arange(length, dtype=np.int64)
    numbers = np.zeros(length, dtype=np.int64)
    if known is not None:
        numbers = known.astype(np.int64) if known.dtype.kind in "iub" else _bins(known)
    if scale.get("classes") is not None:
        if known is None or known.dtype.kind not in "iub":
            raise UserError(
                "this stage takes some of the classes, and the dataset's classes are not known",
                hint="Give them: trial.subset(dataset, labels)",
            )
        chosen = _classes(dataset, numbers, scale, seed)
        ids = ids[np.isin(numbers, chosen)]
    amount = scale.get("data", 1.0)
    # At most: fewer classes may have fewer samples than are asked for.
    part = subset(numbers[ids], ids, amount if amount <= 1 else min(amount, len(ids)), seed)
    return Subset(dataset, part.tolist())


def _labels(dataset: Any, labels: Any) -> NDArray[Any] | None:
    """Return the labels that are given, or that the dataset has, as an array (n,)."""
    if labels is None:
        tensors = getattr(dataset, "tensors", None)
        last = tensors[-1] if isinstance(tensors, tuple) and len(tensors) > 1 else None
        named = [getattr(dataset, name, None) for name in ("targets", "labels")]
        labels = next((found for found in named if found is not None), last)
    if labels is None:
        return None
    known = np.asarray(labels)
    if known.ndim == 2 and known.shape[1] == 1:
        known = known[:, 0]
    if known.ndim != 1 or known.dtype.kind not in "iubf":
        raise UserError(
            f"labels of shape {known.shape} and type {known.dtype} are neither classes nor values",
            hint="Give one whole number for each sample, or one value to predict",
        )
    if known.dtype.kind == "f" and not np.isfinite(known).all():
        raise UserError(f"{int((~np.isfinite(known)).sum())} labels are not finite")
    if known.dtype.kind in "iu" and len(known) and known.min() < 0:
        raise UserError(f"the label {known.min()} is below 0", hint="Number classes from 0")
    return known


def _bins(values: NDArray[Any]) -> Indices:
    """Cut values (n,) into parts of equal size by rank: their numbers (n,)."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks * BINS // max(len(values), 1)


def _classes(dataset: Any, labels: Indices, scale: Mapping[str, Any], seed: int) -> list[int]:
    total, rule = len(class_counts(labels)), scale.get("class_rule") or FIRST
    names = getattr(dataset, "classes", None)
    order = None
    if rule == CONFUSABLE and isinstance(scale["classes"], int) and 2 <= scale["classes"] < total:

        def load(ids: Indices) -> NDArray[Any]:
            return np.stack([np.asarray(dataset[int(number)][0], dtype=np.float32) for number in ids])

        found = confusable_order(labels, np.arange(len(labels)), load, vocabulary=None, seed=seed)
        order = found + [number for number in range(total) if number not in set(found)]
    return choose_classes(
        total,
        scale["classes"],
        rule=rule,
        seed=seed,
        names=[str(name) for name in names] if names is not None and len(names) == total else None,
        order=order,
    )
