"""A dataset as one stage sees it: split, subsampled, restricted to some classes, transformed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.settings import DatasetSettings, locate, read_settings, source_arguments
from orchestrator.data.sources import Source
from orchestrator.data.splits import Indices, choose_classes, split, subset
from orchestrator.data.transforms import Transform
from orchestrator.errors import UserError, nearest

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Part:
    """Samples of one part.

    Attributes:
        inputs: (n, *shape) float32, transformed.
        labels: (n,) int64, 0 to the number of chosen classes - 1.
        ids: (n,) int64, the samples' numbers in the whole dataset.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


class Splits:
    """The three parts of a dataset. A part's samples are loaded when it is first asked for.

    Attributes:
        shape: of one sample.
        class_names: of the chosen classes, in the order of their labels.
    """

    def __init__(self, source: Source, settings: DatasetSettings) -> None:
        """Choose the samples; load none.

        Raises:
            UserError: the settings do not fit the data.
        """
        chosen = choose_classes(
            len(source.class_names),
            settings.classes,
            rule=settings.class_rule,
            seed=settings.subset_seed,
            names=source.class_names,
        )
        self.shape = source.shape
        self.class_names = tuple(source.class_names[number] for number in chosen)
        self._source = source
        self._new_label = np.full(len(source.class_names), -1, dtype=np.int64)
        self._new_label[chosen] = np.arange(len(chosen))
        self._ids = _chosen_ids(source.labels, self._new_label >= 0, settings)
        self._transform = Transform(settings.transform)

    @property
    def num_classes(self) -> int:
        """The number of chosen classes."""
        return len(self.class_names)

    @functools.cached_property
    def train(self) -> Part:
        """The training part, as subsampled; the transform is fitted to it."""
        raw = self._source.load(self._ids["train"])
        self._transform.fit(raw)
        return self._part("train", self._transform(raw))

    @functools.cached_property
    def validation(self) -> Part:
        """The validation part."""
        return self.part("validation")

    def part(self, name: str) -> Part:
        """Return a part by name; "test" is held out, so ask for it once, at the end.

        Raises:
            UserError: there is no part of that name, or it is empty.
        """
        if name not in PARTS:
            raise UserError(f"there is no part '{name}'", hint=nearest(name, PARTS))
        if not len(self._ids[name]):
            raise UserError(f"the {name} part is empty", key=f"datasets.split.{name}")
        training = self.train  # fits the transform
        return (
            training
            if name == "train"
            else self._part(name, self._transform(self._source.load(self._ids[name])))
        )

    def _part(self, name: str, inputs: NDArray[np.float32]) -> Part:
        ids = self._ids[name]
        return Part(inputs, self._new_label[self._source.labels[ids]], ids)


def open_dataset(config: Mapping[str, Any]) -> Splits:
    """Open the dataset that `config.dataset` of a job describes; samples are loaded when asked for.

    Args:
        config: the content of a datasets/*.yaml, with the stage's scale written into it.

    Raises:
        UserError: a key or value is wrong, the data are not there, or not what was declared.
    """
    function = locate(config.get("_target_"))
    source = function(**source_arguments(function, config))
    if not isinstance(source, Source):
        kind = type(source).__name__
        raise UserError(f"returned {kind}, not a Source", key=str(config["_target_"]))
    settings, _ = read_settings(config)
    _check_declared("samples", settings.samples, len(source.labels))
    _check_declared("num_classes", settings.num_classes, len(source.class_names))
    return Splits(source, settings)


def _chosen_ids(
    labels: Indices, is_chosen: NDArray[np.bool_], settings: DatasetSettings
) -> dict[str, Indices]:
    """Return the ids of each part: of the chosen classes, training and validation subsampled."""
    parts = split(
        labels, validation=settings.split.validation, test=settings.split.test, seed=settings.split.seed
    )
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


def _check_declared(key: str, declared: int | None, actual: int) -> None:
    if declared is not None and declared != actual:
        raise UserError(
            f"{declared} are declared, and the data have {actual}",
            key=f"datasets.{key}",
            hint=f"Correct it to {actual}, or find out why the data changed",
        )
