"""Any map-style dataset as a source: `len(dataset)` pairs `dataset[i]` of (input, label).

That is what a torch Dataset is, and a list of pairs is one too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.hashing import LOOK, hashed
from orchestrator.data.images import (
    COLOR,
    GREY,
    Format,
    is_grey,
    picture_array,
    refuse_mixed_sizes,
)
from orchestrator.data.labels import encode
from orchestrator.data.resize import resize
from orchestrator.data.source import CLASSIFICATION, Source
from orchestrator.data.splits import Indices
from orchestrator.errors import UserError

_LOOKED_AT = 32  # samples that tell what all of them are


def map_style(
    dataset: Any, *, task: str | None = None, resolution: int | None = None, name: str = "dataset"
) -> Source:
    """Wrap a map-style dataset whose inputs are arrays, tensors or PIL images of one size.

    Labels are taken from `dataset.targets` or `dataset.labels` where it has them, and otherwise by one pass
    over all of it. Class names are those in `dataset.classes` where it has them.

    Args:
        dataset: has `__len__` and `__getitem__`, which gives (input, label).
        task: CLASSIFICATION or REGRESSION; None is CLASSIFICATION.
        resolution: images are resized to so many pixels of a side, and may then be of any size. PIL images
            come as (channels, height, width), 0 to 1.
        name: of the dataset, for messages.

    Raises:
        UserError: it is empty, its items are no pairs, its inputs are not numbers or not of one size, or its
            labels do not fit the task.
    """
    count = len(dataset)
    if not count:
        raise UserError("has no samples", key=name)
    encoded = encode(_raw_labels(dataset, name), task or CLASSIFICATION, "labels", name)
    looked_at = sorted(np.argsort(hashed(0, LOOK, np.arange(count)), kind="stable")[:_LOOKED_AT].tolist())
    some = [_input(dataset, index, name) for index in looked_at]
    vocabulary = getattr(dataset, "vocabulary", None)
    sample: Callable[[Any, int], NDArray[Any]]
    if _is_picture(some[0]):
        sample = functools.partial(_picture, wanted=_common_format(some, looked_at, resolution))
    else:
        kind = np.float32 if vocabulary is None else np.int64
        sample = functools.partial(_array, kind=kind, resolution=resolution, name=name)
    first = sample(some[0], looked_at[0])

    def load(indices: Indices) -> NDArray[Any]:
        loaded = np.empty((len(indices), *first.shape), first.dtype)
        for row, index in enumerate(indices.tolist()):
            array = sample(_input(dataset, index, name), index)
            refuse_mixed_sizes([first.shape, array.shape], [f"sample {looked_at[0]}", f"sample {index}"])
            loaded[row] = array
        return loaded

    for each, index in zip(some, looked_at, strict=True):
        shape = sample(each, index).shape
        refuse_mixed_sizes([first.shape, shape], [f"sample {looked_at[0]}", f"sample {index}"])
    return Source(
        labels=encoded.labels,
        class_names=_class_names(dataset, encoded.class_names),
        targets=encoded.targets,
        shape=first.shape,
        load=load,
        vocabulary=vocabulary,
    )


def _common_format(some: list[Any], indices: list[int], resolution: int | None) -> Format:
    """Return the format of PIL images: the majority's mode, and their size where none is said."""
    mode = GREY if 2 * sum(is_grey(each) for each in some) >= len(some) else COLOR
    if resolution is None:
        return Format((some[0].height, some[0].width), mode, resizes=False)
    return Format((resolution, resolution), mode)


def _picture(picture: Any, index: int, *, wanted: Format) -> NDArray[np.float32]:
    size = (picture.height, picture.width)
    if not wanted.resizes:
        refuse_mixed_sizes([wanted.size, size], ["one sample", f"sample {index}"])
    return picture_array(picture, wanted)


def _raw_labels(dataset: Any, name: str) -> NDArray[Any]:
    """Return the labels as the dataset has them: (n,)."""
    for attribute in ("targets", "labels"):
        found = getattr(dataset, attribute, None)
        if found is not None and not callable(found):
            labels = np.asarray(found)
            if labels.shape == (len(dataset),):
                return labels
    return np.asarray([_label(_item(dataset, index, name)[1]) for index in range(len(dataset))])


def _label(label: Any) -> Any:
    """Return a label as a plain value: torch and NumPy give their own."""
    return label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label


def _class_names(dataset: Any, found: tuple[str, ...]) -> tuple[str, ...]:
    """Return the dataset's own names of its classes where its labels are their numbers."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, Mapping) or callable(names) or names is None or not found:
        return found
    names = tuple(str(each) for each in names)
    return names if found == tuple(str(number) for number in range(len(names))) else found


def _item(dataset: Any, index: int, name: str) -> tuple[Any, Any]:
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise UserError(
            f"sample {index} is a {type(item).__name__}, not a pair (input, label)",
            key=name,
            hint="Its __getitem__ should return both",
        )
    return item[0], item[1]


def _input(dataset: Any, index: int, name: str) -> Any:
    return _item(dataset, index, name)[0]


def _is_picture(sample: Any) -> bool:
    """Say whether it is a PIL image, without importing PIL for those that have none."""
    return hasattr(sample, "getbands") and hasattr(sample, "mode")


def _array(
    sample: Any, index: int, *, kind: type[np.generic], resolution: int | None, name: str
) -> NDArray[Any]:
    """Return an input as an array of a kind; torch tensors are arrays to NumPy."""
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(sample.detach().cpu() if hasattr(sample, "detach") else sample)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{array.dtype}")
            array = array.astype(kind)
    except (TypeError, ValueError) as error:
        raise UserError(f"the input of sample {index} is not numbers ({error})", key=name) from error
    if resolution is not None and array.ndim == 3:
        array = resize(array[None], resolution)[0]
    return array if array.ndim else array[None]
