"""How large a dataset is, for planning: from what is declared, or from the labels of its files.

Imports neither torch nor scikit-learn, SciPy or pandas, and reads no sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.data.folds import fold_counts, number_of_folds
from orchestrator.data.labels import Encoded, bins_of
from orchestrator.data.settings import DatasetSettings, SplitSettings, locate, read_settings, source_arguments
from orchestrator.data.source import CLASSIFICATION, REGRESSION
from orchestrator.data.splits import (
    Indices,
    as_fraction,
    at_least_one,
    choose_classes,
    class_counts,
    split_counts,
)
from orchestrator.data.typed import read
from orchestrator.errors import UserError

SOURCES = "orchestrator.data.sources."
GLYPHS = "orchestrator.data.glyphs.glyphs"


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSize:
    """What is known of a dataset's size before it is opened; None is unknown.

    Attributes:
        samples: in the whole dataset.
        classes: in the whole dataset; None for regression.
        task: "classification" or "regression".
        train_samples: in the training part at full scale; of the smallest fold where there are folds.
        folds: in which one trial trains; 1 for a plain split.
        counts: samples of each class, where the labels were read; otherwise classes count as equal. For
            regression those of each quantile bin.
        class_names: where the labels were read.
    """

    samples: int | None = None
    classes: int | None = None
    task: str = CLASSIFICATION
    train_samples: int | None = None
    folds: int = 1
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
    task, counts, names = _counts(dataset, settings, own)
    if counts is None:
        return DatasetSize(samples=settings.samples, classes=settings.num_classes, task=task)
    parts = _parts(counts, settings.split)
    return DatasetSize(
        samples=int(counts.sum()),
        classes=len(counts) if task == CLASSIFICATION else None,
        task=task,
        train_samples=min(int(train.sum()) for train, _ in parts),
        folds=len(parts),
        counts=tuple(counts.tolist()),
        class_names=names,
    )


def _counts(
    dataset: Mapping[str, Any], settings: DatasetSettings, own: Mapping[str, Any]
) -> tuple[str, Indices | None, tuple[str, ...] | None]:
    """Return the task, the samples of each class, and the classes' names, each as far as it is known."""
    task, samples, classes = settings.task or CLASSIFICATION, settings.samples, settings.num_classes
    target = str(dataset.get("_target_"))
    if (encoded := _labels(target, task, own)) is not None:
        return task, class_counts(encoded.labels), encoded.class_names
    if samples is None or samples < 1:
        return task, None, None
    if task == REGRESSION:
        return task, _equal(samples, bins_of(samples)), ()
    if classes is None or classes < 1:
        return task, None, None
    if target == GLYPHS and own.get("imbalance", 1) != 1:
        from orchestrator.data.glyphs import glyph_labels

        labels = glyph_labels(samples=samples, num_classes=classes, imbalance=own["imbalance"])
        return task, class_counts(labels), None
    return task, _equal(samples, classes), None


def _labels(target: str, task: str, own: Mapping[str, Any]) -> Encoded | None:
    """Read the labels of a source that keeps them apart from its samples; None for another."""
    if target == SOURCES + "parquet":
        from orchestrator.data.tables import check_features, read_labels

        check_features(own["path"], own["label"], own.get("features"))
        return read_labels(own["path"], own["label"], task)
    if target == SOURCES + "npz":
        from orchestrator.data.arrays import npz_labels

        return npz_labels(path=own["path"], labels=own.get("labels", "y"), task=task)
    if target == SOURCES + "idx":
        from orchestrator.data.idx import idx_labels

        return idx_labels(labels_path=own["labels_path"], task=task)
    if target == SOURCES + "image_folder":
        from orchestrator.data.folders import list_images

        names, _, labels = list_images(own["path"])
        return Encoded(labels, names, None)
    return None


def _parts(counts: Indices, cut: SplitSettings) -> list[tuple[Indices, Indices]]:
    """Return how many of each class train and validate, (classes,) each, for every fold."""
    train, validation, _ = split_counts(counts, cut.validation, cut.test)
    folds = number_of_folds(cut.folds, int(validation.sum()), train + validation)
    if folds == 1:
        return [(train, validation)]
    return [(train + validation - held_out, held_out) for held_out in fold_counts(train + validation, folds)]


def trained_samples(
    size: DatasetSize,
    data: float,
    classes: int | Sequence[int | str] | None,
    split: Mapping[str, Any] | None = None,
    *,
    class_rule: str = "first",
    seed: int = 0,
    all_folds: bool = True,
) -> int | None:
    """Return how many training samples a trial sees in one epoch; None where the size is unknown.

    A trial that trains in folds sees those of all its folds, for that is what it costs.

    Args:
        size: from `dataset_size`.
        data: a fraction up to 1 of the training part of those classes, or a count above 1.
        classes: a count, a list, or None for all.
        split: the dataset's `split`; None for the default one.
        class_rule: how a count chooses classes; with `seed`, as in the dataset's config.
        seed: the dataset's `subset_seed`.
        all_folds: False for a run that trains in the first fold alone, as one that keeps checkpoints does.

    Raises:
        UserError: more data or classes than there are, or a class or rule that does not exist.
    """
    if size.counts is None:
        return None
    chosen = _chosen(size, classes, class_rule, seed)
    total = 0
    parts = _parts(np.array(size.counts), read(SplitSettings, split or {}, "datasets.split."))
    for train, _ in parts if all_folds else parts[:1]:
        available = np.where(chosen, train, 0)
        total += int(at_least_one(available, as_fraction(data, int(available.sum()))).sum())
    return total


def _chosen(
    size: DatasetSize, classes: int | Sequence[int | str] | None, rule: str, seed: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which classes a stage sees: (classes,); for regression all the bins."""
    if size.task == REGRESSION:
        if classes is not None:
            raise UserError(
                f"{classes!r} asks for classes, and this dataset has values to predict",
                key="classes",
                hint="Leave it null; `data` takes less",
            )
        return np.ones(len(size.counts or ()), dtype=np.bool_)
    numbers = choose_classes(size.classes or 0, classes, rule=rule, seed=seed, names=size.class_names)
    chosen = np.zeros(size.classes or 0, dtype=np.bool_)
    chosen[numbers] = True
    return chosen


def _equal(samples: int, classes: int) -> Indices:
    """Divide samples over classes as evenly as whole numbers can: (classes,)."""
    return samples // classes + (np.arange(classes) < samples % classes).astype(np.int64)
