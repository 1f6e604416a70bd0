"""What is done to inputs before a network sees them, fitted on training data alone.

A transform is a name, or a list of names in the order in which they are applied: `[log, standardize]`.

- none.
- Columns (transforms_columns): unit, symmetric, standardize, robust; log, uniform_quantiles, normal_quantiles
  and power for skewed ones. A column is a feature of a table or of a sequence, or a channel of images:
  a pixel that is always black has no deviation to divide by, and neighbours should keep their relation.
- Components (transforms_components): pca, pca_whiten, zca_whiten; of tables after standardize, as a rule,
  because the column with the largest numbers is the first component otherwise.
- Images alone (transforms_images): global_contrast, local_contrast.

Shapes: tables (n, features), sequences of numbers (n, length, features), images (n, channels, height, width).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data import transforms_columns as columns
from orchestrator.data import transforms_components as components
from orchestrator.data import transforms_images as images
from orchestrator.errors import UserError, nearest

Inputs = NDArray[np.float32]
Apply = Callable[[Inputs], Inputs]
"""Maps inputs (k, *shape) to (k, *new shape), a new float32 array.

A fitted one is a partial application of a function that its module lists in APPLIED, and what it has learned
are the keywords: so it can be written down and read back without pickle (orchestrator.export.preprocessing).
"""

KEY = "datasets.transform"


def _nothing(training: Inputs) -> Apply:
    return lambda inputs: inputs


TRANSFORMS: dict[str, Callable[[Inputs], Apply]] = {
    "none": _nothing,
    "unit": columns.unit,
    "symmetric": columns.symmetric,
    "standardize": columns.standardize,
    "robust": columns.robust,
    "log": columns.log,
    "uniform_quantiles": columns.uniform_quantiles,
    "normal_quantiles": columns.normal_quantiles,
    "power": columns.power,
    "pca": components.pca,
    "pca_whiten": components.pca_whiten,
    "zca_whiten": components.zca_whiten,
    "global_contrast": images.global_contrast,
    "local_contrast": images.local_contrast,
}
"""Each learns from training data (n, *shape) and returns what applies it."""

# What is fitted sees at most so many values, of samples spread evenly over the training data: 128 MB, and no
# more memory for data that have more than that.
_MOST_FITTED = 1 << 25
# Values transformed at a time; arithmetic is in float64, so 32 MB.
_CHUNK = 1 << 22


class Transform:
    """Transforms by name: fit them to training data once, then apply them to any part.

    Attributes:
        names: in the order of application, without `none`.
    """

    def __init__(self, name: str | Sequence[str]) -> None:
        """Choose transforms.

        Raises:
            UserError: there is none of a name.
        """
        listed = [name] if isinstance(name, str) else list(name)
        for each in listed:
            if each not in TRANSFORMS:
                hint = nearest(str(each), TRANSFORMS)
                raise UserError(f"there is no transform '{each}'", key=KEY, hint=hint)
        self.names = tuple(each for each in listed if each != "none")
        self._steps: list[Apply] = []
        self._shape: tuple[int, ...] | None = None

    @classmethod
    def restored(cls, names: Sequence[str], steps: Sequence[Apply], shape: Sequence[int]) -> Transform:
        """Return a transform as it was once fitted: its names, what applies each of them, and `shape`."""
        transform = cls(list(names))
        transform._steps, transform._shape = list(steps), tuple(shape)
        return transform

    @property
    def steps(self) -> tuple[Apply, ...]:
        """What applies each of `names`; empty until it is fitted."""
        return tuple(self._steps)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample after the transform; known once it is fitted."""
        if self._shape is None:
            raise RuntimeError("fit the transform first")
        return self._shape

    def fit(self, training: NDArray[Any]) -> Transform:
        """Learn from training data (n, *shape), which may be memory-mapped, and return itself.

        Raises:
            UserError: there are no samples, values that are not finite, tokens, or samples of a shape that a
                transform cannot take.
        """
        self._steps = []
        if not self.names:
            self._shape = training.shape[1:]
            return self
        inputs = _sample(training)
        for name in self.names:
            apply = TRANSFORMS[name](inputs)
            self._steps.append(apply)
            inputs = apply(inputs)
        self._shape = inputs.shape[1:]
        return self

    def __call__(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return inputs (k, *shape) transformed, (k, *self.shape) float32; unchanged where it is `none`."""
        shape = self.shape
        if not self.names:
            return inputs
        outputs = np.empty((len(inputs), *shape), dtype=np.float32)
        size = max(1, _CHUNK // max(1, math.prod(inputs.shape[1:])))
        for start in range(0, len(inputs), size):
            chunk = np.asarray(inputs[start : start + size])
            for apply in self._steps:
                chunk = apply(chunk)
            outputs[start : start + size] = chunk
        return outputs


def _sample(training: NDArray[Any]) -> Inputs:
    """Return what the transforms are fitted on: all samples, or as many as memory allows, evenly spread."""
    if not np.issubdtype(training.dtype, np.floating):
        raise UserError(
            f"the samples are tokens or codes ({training.dtype}), which have no scale",
            key=KEY,
            hint="Say transform: none",
        )
    if not len(training):
        raise UserError("there are no training samples to fit it to", key=KEY)
    values = math.prod(training.shape[1:])
    count = min(len(training), max(1, _MOST_FITTED // max(1, values)))
    spread = np.arange(count, dtype=np.int64) * len(training) // count
    chosen = np.asarray(training if count == len(training) else training[spread], dtype=np.float32)
    if not np.isfinite(chosen).all():
        wrong = int((~np.isfinite(chosen.reshape(count, -1))).any(axis=1).sum())
        raise UserError(
            f"{wrong} training samples have values that are missing or infinite",
            key=KEY,
            hint="Fill the gaps, or leave these samples or columns out",
        )
    return chosen
