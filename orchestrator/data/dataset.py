"""A dataset as one stage sees it: split, subsampled, restricted to some classes, transformed."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.choice import Choice, choose
from orchestrator.data.opening import open_source
from orchestrator.data.resize import check_resolution, resize
from orchestrator.data.settings import DatasetSettings, read_settings
from orchestrator.data.source import REGRESSION, Source
from orchestrator.data.splits import CONFUSABLE, Indices, subset
from orchestrator.data.streaming import CHUNK_BYTES, FIT_BYTES, gather, memory_limit, rows_of
from orchestrator.data.transforms import Transform
from orchestrator.errors import UserError, nearest

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Part:
    """Samples of one part.

    Attributes:
        inputs: (n, *shape) float32, transformed; int64 for tokens. An `np.memmap` where they take more
            than the dataset's `memory_gb`.
        targets: (n,) int64, the class, 0 to the number of chosen classes - 1; or float32, the value.
        ids: (n,) int64, the samples' numbers in the whole dataset.
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    ids: NDArray[np.int64]


class Splits:
    """The three parts of a dataset. A part's samples are loaded when it is first asked for.

    Attributes:
        task: "classification" or "regression".
        class_names: of the chosen classes, in the order of their labels; () for regression.
        vocabulary: the number of different tokens, for sequences of tokens; None otherwise.
        folds: 1 for a plain split; otherwise `fold` gives each of them.
        notes: what a user should know of the split, each in one sentence.
    """

    def __init__(self, source: Source, settings: DatasetSettings, *, fold: int | None = None) -> None:
        """Choose the samples; load none, unless the classes' rule needs a look at some.

        Args:
            source: of the samples.
            settings: what to take of them.
            fold: which one is held out as validation; None for the plain split.

        Raises:
            UserError: the settings do not fit the data.
        """
        if settings.resolution is not None:
            check_resolution(settings.resolution, source.shape)
        self._source, self._settings = source, settings
        choice: Choice = choose(source, settings, fold=fold, load=self._load)
        self._ids, self.folds, self.notes = choice.ids, choice.folds, choice.notes
        self.task, self.vocabulary = source.task, source.vocabulary
        self.class_names = tuple(source.class_names[number] for number in choice.classes)
        self._new_label = np.full(len(source.class_names), -1, dtype=np.int64)
        self._new_label[choice.classes] = np.arange(len(choice.classes))
        self._transform = Transform(settings.transform)
        self._is_fitted = False
        self._held: NDArray[Any] | None = None

    @property
    def num_classes(self) -> int:
        """The number of chosen classes; 0 for regression."""
        return len(self.class_names)

    @property
    def outputs(self) -> int:
        """How many numbers a model says of a sample: one for each class, or 1 for a value."""
        return 1 if self.task == REGRESSION else self.num_classes

    @property
    def transform(self) -> Transform:
        """What is done to the inputs, fitted to the training part."""
        self._fit()
        return self._transform

    @property
    def source(self) -> Source:
        """Where the samples come from, before anything is taken, resized or transformed."""
        return self._source

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample after the transform, which is fitted to know it."""
        self._fit()
        return tuple(self._transform.shape)

    @functools.cached_property
    def train(self) -> Part:
        """The training part, as subsampled; the transform is fitted to it."""
        self._fit()
        raw, self._held = self._held, None
        return self._part("train", raw)

    @functools.cached_property
    def validation(self) -> Part:
        """The validation part."""
        return self._part("validation", None)

    def part(self, name: str) -> Part:
        """Return a part by name; "test" is held out, so ask for it once, at the end.

        Raises:
            UserError: there is no part of that name, or it is empty.
        """
        if name not in PARTS:
            raise UserError(f"there is no part '{name}'", hint=nearest(name, PARTS))
        if name == "train":
            return self.train
        return self.validation if name == "validation" else self._part(name, None)

    def ids(self, name: str) -> Indices:
        """Return the numbers, in the whole dataset, of the samples of a part: (n,); reads none of them.

        Raises:
            UserError: there is no part of that name.
        """
        if name not in PARTS:
            raise UserError(f"there is no part '{name}'", hint=nearest(name, PARTS))
        return self._ids[name]

    def raw(self, name: str, at_most: int | None = None) -> Part:
        """Return a part before the transform, or a stratified sample of it; for looking at data.

        Raises:
            UserError: as `part`.
        """
        if name not in PARTS:
            raise UserError(f"there is no part '{name}'", hint=nearest(name, PARTS))
        ids = self._ids[name]
        if at_most is not None and len(ids) > at_most >= 2:
            ids = subset(self._source.labels[ids], ids, at_most, self._settings.subset_seed)
        return Part(self._load(ids), self._targets(ids), ids)

    def fold(self, number: int) -> Splits:
        """Return the same dataset with that fold held out as validation; the test part stays what it is.

        Raises:
            UserError: there is no fold of that number.
        """
        if not 0 <= number < self.folds:
            raise UserError(f"there is no fold {number}", hint=f"They are 0 to {self.folds - 1}")
        settings = self._settings
        if settings.class_rule == CONFUSABLE and isinstance(settings.classes, int):
            settings = replace(settings, classes=self.class_names)  # looked for once, not once more a fold
        return Splits(self._source, settings, fold=number if self.folds > 1 else None)

    def _fit(self) -> None:
        """Fit the transform, once; hold the training part's samples where all of them were read for it."""
        if self._is_fitted:
            return
        ids = self._ids["train"]
        most = rows_of(FIT_BYTES, self._sample_bytes, self._settings.memory_gb)
        sample = ids
        if len(ids) > most:
            sample = subset(self._source.labels[ids], ids, most, self._settings.subset_seed)
        raw = self._load(sample)
        self._transform.fit(raw)
        self._held, self._is_fitted = (raw if sample is ids else None), True

    def _part(self, name: str, raw: NDArray[Any] | None) -> Part:
        ids = self._ids[name]
        if not len(ids):
            raise UserError(f"the {name} part is empty", key=f"datasets.split.{name}")
        self._fit()

        def chunk(places: slice) -> NDArray[Any]:
            return self._transform(self._load(ids[places]) if raw is None else raw[places])

        rows = rows_of(CHUNK_BYTES, self._sample_bytes, self._settings.memory_gb)
        inputs = gather(chunk, len(ids), rows, memory_limit(self._settings.memory_gb))
        return Part(inputs, self._targets(ids), ids)

    def _targets(self, ids: Indices) -> NDArray[Any]:
        if self._source.targets is not None:
            return self._source.targets[ids]
        return self._new_label[self._source.labels[ids]]

    @property
    def _sample_bytes(self) -> int:
        """Bytes of one sample as it is read."""
        side, shape = self._settings.resolution, self._source.shape
        size = math.prod(shape if side is None else (shape[0], side, side))
        return size * (4 if self.vocabulary is None else 8)

    def _load(self, ids: Indices) -> NDArray[Any]:
        """Load samples, checked: (k, *shape) before the transform.

        Raises:
            UserError: they are not what the source declared, or not finite.
        """
        samples = self._source.load(ids)
        check_samples(samples, ids, self._source)
        side = self._settings.resolution
        return samples if side is None else resize(samples, side)


def check_samples(samples: NDArray[Any], ids: Indices, source: Source) -> None:
    """Refuse samples of another shape than declared, values that are not finite, tokens that do not exist.

    Raises:
        UserError: as said, with the number of a sample.
    """
    if samples.shape != (len(ids), *source.shape):
        raise UserError(f"the source gave samples {samples.shape} and declared {(len(ids), *source.shape)}")
    if not len(ids):
        return
    if source.vocabulary is not None:
        if samples.min() < 0 or samples.max() >= source.vocabulary:
            wrong = int(samples.max() if samples.min() >= 0 else samples.min())
            raise UserError(f"token {wrong} is not from 0 to {source.vocabulary - 1}", key="vocabulary")
        return
    # The sum of finite numbers is finite in float64, and needs no second array.
    with np.errstate(invalid="ignore"):
        if math.isfinite(samples.sum(dtype=np.float64)):
            return
    wrong_samples = ~np.isfinite(samples.reshape(len(samples), -1))
    if not wrong_samples.any():
        return
    column = int(wrong_samples.any(axis=0).argmax())
    count = int(wrong_samples.any(axis=1).sum())
    where = f"column '{source.columns[column]}'" if source.columns else "the input"
    if source.columns:
        count = int(wrong_samples[:, column].sum())
    raise UserError(
        f"{where} is empty or not finite in {count} of the {len(ids)} samples read, "
        f"first in sample {ids[wrong_samples.any(axis=1).argmax()]}",
        hint="Fill the gaps or leave the column out" if source.columns else "Fill the gaps",
    )


def open_dataset(config: Mapping[str, Any]) -> Splits:
    """Open the dataset that `config.dataset` of a job describes; samples are loaded when asked for.

    Args:
        config: the content of a datasets/*.yaml, with the stage's scale written into it.

    Raises:
        UserError: a key or value is wrong, the data are not there, not what was declared, or not what they
            were when the sweep was planned.
    """
    settings, _ = read_settings(config)
    return Splits(open_source(config), settings)
