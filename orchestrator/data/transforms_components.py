"""Principal components and whitening: transforms that look at all values of a sample together.

Tables and images are taken as a whole, all pixels of all channels; of sequences each step by itself.
Computed in double precision on one thread, so that the bits do not depend on the machine's cores.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from orchestrator.errors import UserError

Inputs = NDArray[np.float32]
Rows = NDArray[np.float64]
Apply = Callable[[Inputs], Inputs]

VARIANCE = 0.99
"""What the components kept by `pca` and `pca_whiten` explain of the training data's variance."""

REGULARIZATION = 0.1
"""Of the mean variance, added to each component's by `zca_whiten`: without it whitening turns the directions
that hardly vary, which are mostly noise, into ones as loud as the others. Coates and Ng 2012 take as
much after contrast normalization."""

# A matrix of components takes the square of this many doubles: 512 MB.
_MOST_COMPONENTS = 8192


def pca(training: Inputs) -> Apply:
    """Replace a sample by its principal components, those that explain 99% of the variance.

    The shape becomes (components,), or (length, components) for sequences.
    """
    return _projection("pca", training, whiten=False)


def pca_whiten(training: Inputs) -> Apply:
    """As `pca`, with each component scaled to deviation 1 in training."""
    return _projection("pca_whiten", training, whiten=True)


def zca_whiten(training: Inputs) -> Apply:
    """Make values uncorrelated while changing them as little as can be (Bell and Sejnowski 1997); same shape.

    Images stay images. What lies outside the training data's components, where samples are fewer than values,
    is treated like a component without variance.
    """
    with threadpool_limits(1):
        fitted = _fitted("zca_whiten", training, None)
        variance = fitted.explained_variance_
        floor = REGULARIZATION * variance.sum() / fitted.n_features_in_
        rest = 1 / math.sqrt(floor)
        gains = 1 / np.sqrt(variance + floor) - rest
        turn = (fitted.components_.T * gains) @ fitted.components_

    return functools.partial(whitened, mean=fitted.mean_, turn=turn, rest=rest)


def _projection(name: str, training: Inputs, *, whiten: bool) -> Apply:
    """Fit components and return what projects inputs on them."""
    with threadpool_limits(1):
        fitted = _fitted(name, training, VARIANCE, whiten=whiten)

    return functools.partial(projected, on=fitted)


def whitened(inputs: Inputs, *, mean: Rows, turn: Rows, rest: float) -> Inputs:
    """Apply a fitted `zca_whiten`: turn what is centred, and scale by `rest` what lies outside."""
    with threadpool_limits(1):
        centred = _rows(inputs) - mean
        white: Inputs = (centred @ turn + rest * centred).astype(np.float32)
    return white.reshape(inputs.shape)


def projected(inputs: Inputs, *, on: PCA) -> Inputs:
    """Apply a fitted `pca` or `pca_whiten`."""
    with threadpool_limits(1):
        rows: Inputs = np.ascontiguousarray(on.transform(_rows(inputs)), dtype=np.float32)
    return rows.reshape(*inputs.shape[:2], -1) if inputs.ndim == 3 else rows


APPLIED = (whitened, projected)
"""What fitted transforms of this module are partial applications of: see transforms.Apply."""


def _fitted(name: str, training: Inputs, components: float | None, *, whiten: bool = False) -> PCA:
    """Fit components to training data.

    Raises:
        UserError: samples are too few, all equal, or too large.
    """
    rows = _rows(training)
    if min(rows.shape) > _MOST_COMPONENTS:
        raise UserError(
            f"{name} of {rows.shape[1]} values in a sample takes too much memory",
            key="datasets.transform",
            hint="Use smaller images, or standardize",
        )
    if len(rows) < 2 or (rows == rows[0]).all():
        raise UserError(
            f"{name} needs training samples that differ, and there are {len(rows)}"
            + (", all equal" if len(rows) > 1 else ""),
            key="datasets.transform",
            hint="Take more data, or transform: none",
        )
    return PCA(components, whiten=whiten, random_state=0).fit(rows)


def _rows(inputs: Inputs) -> Rows:
    """Lay inputs out as (samples, values); sequences as (steps, features)."""
    width = inputs.shape[-1] if inputs.ndim == 3 else math.prod(inputs.shape[1:])
    return inputs.reshape(-1, width).astype(np.float64)
