"""Scaling of inputs, fitted on training data alone. scikit-learn does the arithmetic.

Tables are scaled feature by feature. Images are scaled channel by channel: a pixel that is always black
has no deviation to divide by, and neighbouring pixels should keep their relation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from orchestrator.errors import UserError, nearest

Inputs = NDArray[np.float32]

TRANSFORMS: dict[str, Callable[[], Any]] = {
    "none": FunctionTransformer,
    "unit": lambda: MinMaxScaler((0, 1)),
    "symmetric": lambda: MinMaxScaler((-1, 1)),
    "standardize": StandardScaler,
}


class Transform:
    """A transform by name: fit it to training data once, then apply it to any part."""

    def __init__(self, name: str) -> None:
        """Choose a transform.

        Raises:
            UserError: there is none of that name.
        """
        if name not in TRANSFORMS:
            hint = nearest(name, TRANSFORMS)
            raise UserError(f"there is no transform '{name}'", key="datasets.transform", hint=hint)
        self._scaler = TRANSFORMS[name]()

    def fit(self, training: Inputs) -> Transform:
        """Learn from training data (n, *shape) and return itself."""
        self._scaler.fit(_columns(training))
        return self

    def __call__(self, inputs: Inputs) -> Inputs:
        """Return inputs (k, *shape), transformed, as a new float32 array of that shape."""
        if not len(inputs):
            return inputs
        scaled = np.asarray(self._scaler.transform(_columns(inputs)), dtype=np.float32)
        if inputs.ndim <= 2:
            return scaled
        channels_last = (len(inputs), *inputs.shape[2:], inputs.shape[1])
        return np.ascontiguousarray(np.moveaxis(scaled.reshape(channels_last), -1, 1))


def _columns(inputs: Inputs) -> Inputs:
    """Lay inputs out as rows of what is scaled together: (n, features), or (n * pixels, channels)."""
    if inputs.ndim <= 2:
        return inputs
    return np.moveaxis(inputs, 1, -1).reshape(-1, inputs.shape[1])
