"""Samples of any kind as a few numbers each, so that distances between them mean something."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.inspection.raw import IMAGES, SERIES, TOKENS

Rows = NDArray[np.float64]

MOST_FEATURES = 64
_GREY_SIDE, _COLOUR_SIDE, _LENGTH = 16, 10, 32
_MOST_FITTED = 5000
_MOST_TOKENS = 256
_MOST_PAIRS = 32  # with a vocabulary up to this, neighbouring pairs are counted too


def embed(inputs: NDArray[Any], kind: str, vocabulary: int | None = None) -> Rows:
    """Return samples as (n, at most 64 features), finite whatever the samples are.

    Images are shrunk to 16x16 (10x10 in colour); columns are brought to one scale by median and quartiles,
    with far values pulled in (asinh), and gaps filled with the median; tokens are counted.

    Args:
        inputs: (n, *shape).
        kind: as `Raw.kind`.
        vocabulary: the number of tokens.
    """
    if not len(inputs):
        return np.empty((0, 0))
    if kind == TOKENS:
        rows = _counts(inputs, vocabulary or 1)
    elif kind == IMAGES:
        rows = _shrunk_images(inputs)
    elif kind == SERIES:
        rows = _pooled(np.asarray(inputs, dtype=np.float64), 1, _LENGTH).reshape(len(inputs), -1)
        rows = _one_scale(rows)
    else:
        rows = _one_scale(np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1))
    return _projected(rows)


def _shrunk_images(inputs: NDArray[Any]) -> Rows:
    side = _GREY_SIDE if inputs.shape[1] == 1 else _COLOUR_SIDE
    images = np.asarray(inputs, dtype=np.float32)
    rows = _pooled(_pooled(images, 2, side), 3, side).reshape(len(inputs), -1).astype(np.float64)
    rows = np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    scaled: Rows = rows / (rows.std() or 1.0)
    return scaled  # pixels have one unit, so they keep their relation


def _pooled(values: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """Average along an axis down to `size` places."""
    length = values.shape[axis]
    if length <= size:
        return values
    edges = np.linspace(0, length, size + 1).astype(int)
    widths = np.diff(edges).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    with np.errstate(invalid="ignore", over="ignore"):
        pooled: NDArray[Any] = np.add.reduceat(values, edges[:-1], axis=axis) / widths
    return pooled


def _one_scale(rows: Rows) -> Rows:
    rows = np.where(np.isfinite(rows), rows, np.nan)
    if not len(rows):
        return rows
    with warnings.catch_warnings():  # a column of gaps alone has no median
        warnings.simplefilter("ignore", RuntimeWarning)
        low, median, high = np.nanpercentile(rows, (25, 50, 75), axis=0)
        deviation = np.nanstd(rows, axis=0)
        width = (high - low) / 1.35
        width = np.where(width > 0, width, deviation)
        scaled = np.arcsinh((rows - median) / np.where(width > 0, width, 1.0))
    filled: Rows = np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0)
    return filled


def _counts(inputs: NDArray[Any], vocabulary: int) -> Rows:
    """Count tokens, and pairs of neighbours where there are few tokens; 0 is padding and not counted."""
    size = min(vocabulary, _MOST_TOKENS)
    tokens = np.clip(np.asarray(inputs, dtype=np.int64), 0, None)
    folded = np.where(tokens < size, tokens, 1 + tokens % max(size - 1, 1))
    which = [(folded, size)]
    if vocabulary <= _MOST_PAIRS and tokens.shape[1] > 1:
        both = (tokens[:, :-1] > 0) & (tokens[:, 1:] > 0)
        which.append(
            (np.where(both, tokens[:, :-1] * vocabulary + tokens[:, 1:], 0), vocabulary * vocabulary)
        )
    blocks = []
    for codes, kinds in which:
        flat = (np.arange(len(codes))[:, None] * kinds + codes).ravel()
        counts = np.bincount(flat, minlength=len(codes) * kinds).reshape(len(codes), kinds)[:, 1:]
        blocks.append(np.sqrt(counts))
    return np.concatenate(blocks, axis=1).astype(np.float64)


def _projected(rows: Rows) -> Rows:
    if rows.shape[1] <= MOST_FEATURES or len(rows) <= MOST_FEATURES:
        return rows
    from sklearn.decomposition import PCA

    step = max(1, len(rows) // _MOST_FITTED)
    some = rows[::step]
    if not some.std(axis=0).any():
        return rows[:, :MOST_FEATURES]
    fitted = PCA(MOST_FEATURES, svd_solver="randomized", random_state=0).fit(some)
    result: Rows = fitted.transform(rows)
    return result
