"""Which samples a stage takes of a source: the split or fold, the classes, the subsets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.confusable import confusable_order
from orchestrator.data.folds import fold_numbers, number_of_folds
from orchestrator.data.settings import DatasetSettings
from orchestrator.data.source import REGRESSION, Source
from orchestrator.data.splits import CONFUSABLE, Indices, Split, choose_classes, class_counts, split, subset
from orchestrator.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What a stage takes.

    Attributes:
        ids: of each part, ascending.
        classes: the chosen classes' numbers, ascending; none for regression.
        folds: how many there are; 1 for a plain split.
        notes: what a user should know of it.
    """

    ids: dict[str, Indices]
    classes: list[int]
    folds: int
    notes: tuple[str, ...]


def choose(
    source: Source,
    settings: DatasetSettings,
    *,
    fold: int | None,
    load: Callable[[Indices], NDArray[Any]],
) -> Choice:
    """Choose a stage's samples.

    Args:
        source: of the samples.
        settings: what to take.
        fold: which fold is the validation part; None for the plain split.
        load: gives samples, for a rule that needs to see some.

    Raises:
        UserError: the settings do not fit the data.
    """
    labels, cut = source.labels, settings.split
    parts = split(labels, validation=cut.validation, test=cut.test, seed=cut.seed)
    together = np.sort(np.concatenate([parts.train, parts.validation]))
    counts = class_counts(labels, max(len(source.class_names), 1))
    folds = number_of_folds(cut.folds, len(parts.validation), class_counts(labels[together]))
    # By the plain split, whichever fold is asked for: all folds are of the same classes.
    classes = _classes(source, settings, parts, load)
    if fold is not None:
        numbers = fold_numbers(labels[together], together, folds, cut.seed)
        parts = Split(together[numbers != fold], together[numbers == fold], parts.test)
    is_chosen = np.ones(len(counts), dtype=np.bool_)
    if source.task != REGRESSION:
        is_chosen[:] = False
        is_chosen[classes] = True
    return Choice(
        ids=_subsets(labels, is_chosen, parts, settings),
        classes=classes,
        folds=folds,
        notes=_notes(source, counts, folds),
    )


def _classes(
    source: Source, settings: DatasetSettings, parts: Split, load: Callable[[Indices], NDArray[Any]]
) -> list[int]:
    """Return the chosen classes' numbers, ascending; none for regression."""
    if source.task == REGRESSION:
        if settings.classes is not None:
            raise UserError(
                f"{settings.classes!r} asks for classes, and this dataset has values to predict",
                key="datasets.classes",
                hint="Leave it null; `fraction` takes less data",
            )
        return []
    total = len(source.class_names)
    order = None
    some = isinstance(settings.classes, int) and 2 <= settings.classes < total
    if settings.class_rule == CONFUSABLE and some:
        labels = source.labels[parts.train]
        found = confusable_order(
            labels, parts.train, load, vocabulary=source.vocabulary, seed=settings.subset_seed
        )
        order = found + [number for number in range(total) if number not in set(found)]
    return choose_classes(
        total,
        settings.classes,
        rule=settings.class_rule,
        seed=settings.subset_seed,
        names=source.class_names,
        order=order,
    )


def _subsets(
    labels: Indices, is_chosen: NDArray[np.bool_], parts: Split, settings: DatasetSettings
) -> dict[str, Indices]:
    """Return the ids of each part: of the chosen classes, training and validation subsampled."""
    train, validation, test = (
        ids[is_chosen[labels[ids]]] for ids in (parts.train, parts.validation, parts.test)
    )
    train = subset(labels[train], train, settings.fraction, settings.subset_seed)
    if settings.validation_size is not None:
        # At most: a stage with few classes may have fewer, and that is no reason to stop.
        wanted = settings.validation_size
        amount = wanted if wanted <= 1 else min(wanted, max(len(validation), 1))
        validation = subset(labels[validation], validation, amount, settings.subset_seed)
    return {"train": train, "validation": validation, "test": test}


def _notes(source: Source, counts: Indices, folds: int) -> tuple[str, ...]:
    """Say which classes are too small to be in every part."""
    notes = []
    for few, without in ((1, "validation and test have"), (2, "the test has")):
        names = [name for name, count in zip(source.class_names, counts, strict=False) if count == few]
        if names:
            listed = ", ".join(f"'{name}'" for name in names[:5]) + (", ..." if len(names) > 5 else "")
            samples = "one sample" if few == 1 else "two samples"
            notes.append(f"{len(names)} classes with {samples} ({listed}): {without} none of them")
    if folds > 1 and any(count == 1 for count in counts):
        notes.append("a class with one sample is for training in every fold")
    return tuple(notes)
