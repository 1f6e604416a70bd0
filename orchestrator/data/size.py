"""How large a dataset is, for planning: from what is declared, or from a table's metadata.

Imports neither torch nor scikit-learn, SciPy or pandas, and reads no sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.data.settings import DatasetSettings, SplitSettings, locate, read_settings, source_arguments
from orchestrator.data.splits import (
    Indices,
    as_fraction,
    at_least_one,
    choose_classes,
    class_counts,
    split_counts,
)
from orchestrator.data.typed import read

PARQUET = "orchestrator.data.sources.parquet"
GLYPHS = "orchestrator.data.glyphs.glyphs"


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSize:
    """What is known of a dataset's size before it is opened; None is unknown.

    Attributes:
        samples: in the whole dataset.
        classes: in the whole dataset.
        train_samples: in the training part at full scale.
        validation_samples: in the validation part at full scale.
        test_samples: in the held-out part.
        counts: samples of each class, where the labels were read; otherwise classes count as equal.
        class_names: where the labels were read.
    """

    samples: int | None = None
    classes: int | None = None
    train_samples: int | None = None
    validation_samples: int | None = None
    test_samples: int | None = None
    counts: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None


def dataset_size(dataset: Mapping[str, Any] | None) -> DatasetSize:
    """Find out the size of a dataset from its config, without opening the data where it is declared.

    Args:
        dataset: the content of a datasets/*.yaml, or None where a sweep has no dataset.

    Raises:
        UserError: a key or value is wrong, or a table cannot be read.
    """
    if not dataset:
        return DatasetSize()
    settings, own = read_settings(dataset)
    if str(dataset.get("_target_")).startswith("orchestrator.data."):
        # Ours import nothing heavy; a user's own function is looked at when the data are opened.
        source_arguments(locate(dataset["_target_"]), dataset)
    counts, names = _counts(dataset, settings, own)
    if counts is None:
        return DatasetSize(samples=settings.samples, classes=settings.num_classes)
    parts = split_counts(counts, settings.split.validation, settings.split.test)
    train, validation, test = (int(part.sum()) for part in parts)
    return DatasetSize(
        samples=int(counts.sum()),
        classes=len(counts),
        train_samples=train,
        validation_samples=validation,
        test_samples=test,
        counts=tuple(counts.tolist()),
        class_names=names,
    )


def _counts(
    dataset: Mapping[str, Any], settings: DatasetSettings, own: Mapping[str, Any]
) -> tuple[Indices | None, tuple[str, ...] | None]:
    """Return the samples of each class and the classes' names, each as far as it is known."""
    if dataset.get("_target_") == PARQUET:
        from orchestrator.data.sources import parquet_labels

        names, labels = parquet_labels(own["path"], own["label"])
        return class_counts(labels, len(names)), tuple(names)
    samples, classes = settings.samples, settings.num_classes
    if samples is None or classes is None:
        return None, None
    if dataset.get("_target_") == GLYPHS and own.get("imbalance", 1) != 1:
        from orchestrator.data.glyphs import glyph_labels

        labels = glyph_labels(samples=samples, num_classes=classes, imbalance=own["imbalance"])
        return class_counts(labels), None
    return _equal(samples, classes), None


def trained_samples(
    size: DatasetSize,
    data: float,
    classes: int | Sequence[int | str] | None,
    split: Mapping[str, Any] | None = None,
    *,
    class_rule: str = "first",
    seed: int = 0,
) -> int | None:
    """Return how many training samples a stage sees in one epoch; None where the size is unknown.

    Args:
        size: from `dataset_size`.
        data: a fraction up to 1 of the training part of those classes, or a count above 1.
        classes: a count, a list, or None for all.
        split: the dataset's `split`; None for the default one.
        class_rule: how a count chooses classes; with `seed`, as in the dataset's config.
        seed: the dataset's `subset_seed`.

    Raises:
        UserError: more data or classes than there are, or a class or rule that does not exist.
    """
    if size.counts is None:
        return None
    parts = read(SplitSettings, split or {}, "datasets.split.")
    train, _, _ = split_counts(np.array(size.counts), parts.validation, parts.test)
    chosen = _chosen(size, classes, class_rule, seed)
    available = np.where(chosen, train, 0)
    return int(at_least_one(available, as_fraction(data, int(available.sum()))).sum())


def validated_samples(
    size: DatasetSize,
    validation_size: float | None,
    classes: int | Sequence[int | str] | None,
    split: Mapping[str, Any] | None = None,
    *,
    class_rule: str = "first",
    seed: int = 0,
) -> int | None:
    """Return how many validation samples a stage sees; arguments as `trained_samples`."""
    if size.counts is None:
        return None
    parts = read(SplitSettings, split or {}, "datasets.split.")
    _, validation, _ = split_counts(np.array(size.counts), parts.validation, parts.test)
    available = np.where(_chosen(size, classes, class_rule, seed), validation, 0)
    total = int(available.sum())
    if validation_size is None or not total:
        return total
    amount = validation_size if validation_size <= 1 else min(validation_size, total)
    return int(at_least_one(available, as_fraction(amount, total)).sum())


def _chosen(
    size: DatasetSize, classes: int | Sequence[int | str] | None, rule: str, seed: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which classes a stage sees: (classes,)."""
    numbers = choose_classes(size.classes or 0, classes, rule=rule, seed=seed, names=size.class_names)
    chosen = np.zeros(size.classes or 0, dtype=np.bool_)
    chosen[numbers] = True
    return chosen


def _equal(samples: int, classes: int) -> Indices:
    """Divide samples over classes as evenly as whole numbers can: (classes,)."""
    return samples // classes + (np.arange(classes) < samples % classes).astype(np.int64)
