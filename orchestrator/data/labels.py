"""From a column of raw labels to numbered classes, or of raw values to targets and the bins that stratify."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.source import CLASSIFICATION, REGRESSION, TASKS
from orchestrator.errors import UserError, nearest

MOST_BINS = 10
_SAMPLES_OF_A_BIN = 10  # so that every bin has some for validation and for the test


class Encoded(NamedTuple):
    """What a column of labels comes to; the fields as in `Source`."""

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    targets: NDArray[np.float32] | None


def encode(values: NDArray[Any], task: str, name: str, path: object) -> Encoded:
    """Turn raw labels or values (n,) into what a source gives.

    Args:
        values: classes (whole numbers, text or booleans) or, for regression, numbers.
        task: CLASSIFICATION or REGRESSION.
        name: of the array or column, for messages.
        path: of the file, for messages.

    Raises:
        UserError: no such task, no samples, or values that do not fit the task.
    """
    if task not in TASKS:
        raise UserError(f"there is no task '{task}'", key="datasets.task", hint=nearest(task, TASKS))
    if not len(values):
        raise UserError("has no samples", file=path)
    if task == REGRESSION:
        targets = finite_values(values, name, path)
        return Encoded(quantile_bins(targets), (), targets)
    names, numbers = encode_labels(values, name, path)
    return Encoded(numbers, tuple(names), None)


def encode_labels(values: NDArray[Any], name: str, path: object) -> tuple[list[str], NDArray[np.int64]]:
    """Number the classes in their sorted order; return their names and the class of every sample (n,).

    Raises:
        UserError: measurements instead of classes, or fewer than two classes.
    """
    if values.dtype.kind not in "fiubUS":
        raise UserError(f"'{name}' holds {values.dtype}, which is no class", file=path, hint=_ASKED)
    if values.dtype.kind == "f":
        odd = values[values != np.floor(values)]  # NaN among them, which equals nothing
        if len(odd):
            some = f"measurements such as {odd[0]:g}" if np.isfinite(odd[0]) else "gaps (NaN)"
            raise UserError(f"'{name}' holds {some}, not classes", file=path, hint=_advice(odd[0]))
        if not np.isfinite(values).all():
            raise UserError(f"'{name}' holds infinite values, not classes", file=path, hint=_ASKED)
        values = values.astype(np.int64)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    classes, numbers = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"'{name}' has {len(classes)} class, and two are needed", file=path)
    return [str(each) for each in classes.tolist()], numbers.astype(np.int64)


def finite_values(values: NDArray[Any], name: str, path: object) -> NDArray[np.float32]:
    """Return the values to be predicted as float32 (n,).

    Raises:
        UserError: text, gaps, infinite values, or the same value everywhere.
    """
    if values.dtype.kind not in "fiub":
        raise UserError(f"'{name}' holds {values.dtype}, not numbers", file=path, hint="See datasets.task")
    with np.errstate(over="ignore"):
        targets = values.astype(np.float32)
    if wrong := int((~np.isfinite(targets)).sum()):
        raise UserError(
            f"'{name}' is empty or not finite in {wrong} of {len(targets)} samples",
            file=path,
            hint="Fill the gaps or leave the samples out",
        )
    if len(targets) > 1 and targets.min() == targets.max():
        raise UserError(f"'{name}' is {targets[0]:g} everywhere: there is nothing to predict", file=path)
    return targets


def bins_of(samples: int) -> int:
    """Return how many quantile bins stratify so many values: at most 10, fewer for fewer samples."""
    return max(1, min(MOST_BINS, samples // _SAMPLES_OF_A_BIN))


def quantile_bins(targets: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the quantile bin of every value: (n,), numbered from 0 without gaps; equal values share one.

    Bins are by rank, so one far outlier does not take a bin of its own.
    """
    first_rank = np.searchsorted(np.sort(targets), targets)  # the same for equal values
    bins = first_rank * bins_of(len(targets)) // max(len(targets), 1)
    return np.unique(bins, return_inverse=True)[1].astype(np.int64)


def declared_classes_problem(declared: int, names: tuple[str, ...]) -> str:
    """Say how the classes found differ from those declared, by number where their names are numbers."""
    problem = f"{declared} are declared, and the data have {len(names)}"
    if not all(name.lstrip("-").isdigit() for name in names):
        return problem
    numbers = {int(name) for name in names}
    outside = sorted(number for number in numbers if not 0 <= number < declared)
    missing = sorted(set(range(declared)) - numbers)
    if outside:
        return f"{problem}: label {outside[0]} is not from 0 to {declared - 1}"
    return f"{problem}: no sample has label {missing[0]}" if missing else problem


_ASKED = "The label should be whole numbers, text or booleans"


def _advice(odd: float) -> str:
    if not np.isfinite(odd):
        return "Leave out the samples without a label"
    return f"{_ASKED}; to predict values say datasets.task={REGRESSION} instead of {CLASSIFICATION}"
