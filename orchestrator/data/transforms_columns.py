"""Transforms of each column by itself: scaling, and spreading what is skewed; by scikit-learn where it can.

For all of them: a column that is constant in training stays at what it became there, and a value that is
further outside the training range than that range is wide counts as one at that distance. Without this a
single odd value in other parts of the data would become a huge input, or, under `power`, infinite.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import skew
from sklearn.preprocessing import (
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

Inputs = NDArray[np.float32]
Rows = NDArray[np.float64]
Apply = Callable[[Inputs], Inputs]

SKEWED = 1.0
"""A column whose skewness is above this is skewed, as the usual rule of thumb has it."""

_QUANTILES = 1000
# Values that order statistics and powers are fitted on; more would cost time and change no digit that counts.
_MOST_SORTED = 1 << 22
_GOLDEN_RATIO = 0.6180339887498949


def unit(training: Inputs) -> Apply:
    """Scale each column from 0 to 1 in training."""
    return _columnwise(training, lambda rows: _scaling(MinMaxScaler((0, 1)).fit(rows)))


def symmetric(training: Inputs) -> Apply:
    """Scale each column from -1 to 1 in training."""
    return _columnwise(training, lambda rows: _scaling(MinMaxScaler((-1, 1)).fit(rows)))


def standardize(training: Inputs) -> Apply:
    """Give each column mean 0 and deviation 1 in training."""
    return _columnwise(training, lambda rows: _scaling(StandardScaler().fit(rows)))


def robust(training: Inputs) -> Apply:
    """Give each column median 0 and a middle half of width 1 in training, which outliers do not move.

    A column whose middle half is one value has no such width; it is divided by its deviation.
    """

    def fit(rows: Rows) -> Callable[[Rows], Any]:
        scaler = RobustScaler().fit(_fewer(rows))
        low, high = np.percentile(_fewer(rows), (25, 75), axis=0)
        deviation = rows.std(axis=0)
        scaler.scale_ = np.where((high == low) & (deviation > 0), deviation, scaler.scale_)
        return _scaling(scaler)

    return _columnwise(training, fit)


def log(training: Inputs) -> Apply:
    """Take the logarithm of the columns that are skewed and not negative in training; leave the others.

    It is log(1 + x / m), where a tenth of the column's values above 0 lie below m: a logarithm for most of
    them, and finite at 0. What unit a column is in (metres or millimetres) makes no difference. Values below
    0, if any come, go the same way down.
    """

    def fit(rows: Rows) -> Callable[[Rows], Any]:
        chosen = skewed_columns(rows)
        small = np.ones(rows.shape[1])
        for column in np.flatnonzero(chosen):
            values = rows[:, column]
            small[column] = np.quantile(values[values > 0], 0.1)
        return functools.partial(logged, chosen=chosen, small=small)

    return _columnwise(training, fit)


def skewed_columns(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which columns of (n, columns) `log` is for: never negative, and skewed to the right."""
    values = np.asarray(rows, dtype=np.float64)
    chosen: NDArray[np.bool_] = (values.min(axis=0) >= 0) & (values.max(axis=0) > values.min(axis=0))
    # Scaled first: the third power of small numbers is lost in rounding, and of large ones overflows.
    largest = np.where(chosen, values.max(axis=0), 1.0)
    chosen[chosen] = skew(values[:, chosen] / largest[chosen], axis=0) > SKEWED
    return chosen


def uniform_quantiles(training: Inputs) -> Apply:
    """Replace each value by the share of training values below it, from 0 to 1.

    Values at or beyond either end of the training range have the middle of the share that lies there. So a
    column that is mostly zero does not have most of its samples at the very edge.
    """
    return _columnwise(training, _quantiles)


def normal_quantiles(training: Inputs) -> Apply:
    """Replace each value by the normal quantile of the share of training values below it.

    The ends as in `uniform_quantiles`, so that nothing is further out than a sample of that size can tell.
    """

    return _columnwise(training, lambda rows: functools.partial(normal, shares=_quantiles(rows)))


def power(training: Inputs) -> Apply:
    """Bring each column near a normal distribution by a power (Yeo and Johnson 2000), mean 0, deviation 1.

    Columns are standardized before as well: the power depends on the unit otherwise, and overflows for values
    far from zero.
    """

    def fit(rows: Rows) -> Callable[[Rows], Any]:
        scaler = StandardScaler().fit(rows)
        shaper = PowerTransformer("yeo-johnson").fit(scaler.transform(_fewer(rows)))
        return functools.partial(scaled, by=(scaler, shaper))

    return _columnwise(training, fit)


def _quantiles(rows: Rows) -> Callable[[Rows], Any]:
    """Fit shares of (n, columns), between half the share at the lowest value and half that at the highest."""
    fitted = _fewer(rows)
    count = min(_QUANTILES, len(fitted))
    shares = QuantileTransformer(n_quantiles=count, subsample=None).fit(fitted)
    lowest = (fitted == fitted.min(axis=0)).mean(axis=0) / 2
    highest = 1 - (fitted == fitted.max(axis=0)).mean(axis=0) / 2
    return functools.partial(clipped, by=shares, lowest=lowest, highest=highest)


def _columnwise(training: Inputs, fit: Callable[[Rows], Callable[[Rows], Any]]) -> Apply:
    """Fit to the columns of training data and return what applies it to inputs of the same shape."""
    rows = _rows(training)
    low, high = rows.min(axis=0), rows.max(axis=0)
    reach = high - low
    return functools.partial(by_columns, apply=fit(rows), lowest=low - reach, highest=high + reach)


def by_columns(inputs: Inputs, *, apply: Callable[[Rows], Any], lowest: Rows, highest: Rows) -> Inputs:
    """Apply what was fitted to columns to inputs of the same shape, clipped to what counts: (columns,)."""
    return _like(np.asarray(apply(np.clip(_rows(inputs), lowest, highest))), inputs)


def scaled(rows: Rows, *, by: tuple[Any, ...]) -> Any:
    """Apply scikit-learn's scalers to (n, columns), one after another."""
    for scaler in by:
        rows = scaler.transform(rows)
    return rows


def logged(rows: Rows, *, chosen: NDArray[np.bool_], small: Rows) -> Any:
    """Apply a fitted `log` to the columns that it chose, by each one's small value."""
    return np.where(chosen, np.sign(rows) * np.log1p(np.abs(rows) / small), rows)


def clipped(rows: Rows, *, by: QuantileTransformer, lowest: Rows, highest: Rows) -> Any:
    """Return shares of (n, columns), clipped to what each column's ends have."""
    return np.clip(by.transform(rows), lowest, highest)


def normal(rows: Rows, *, shares: Callable[[Rows], Any]) -> Any:
    """Return the normal quantiles of shares of (n, columns)."""
    return ndtri(shares(rows))


APPLIED = (by_columns, scaled, logged, clipped, normal)
"""What fitted transforms of this module are partial applications of: see transforms.Apply."""


def _scaling(scaler: Any) -> Callable[[Rows], Any]:
    return functools.partial(scaled, by=(scaler,))


def _rows(inputs: Inputs) -> Rows:
    """Lay inputs out as (values, columns): features of tables and sequences, channels of images."""
    if inputs.ndim > 3:
        inputs = np.moveaxis(inputs, 1, -1)
    return inputs.reshape(-1, inputs.shape[-1] if inputs.ndim > 1 else 1).astype(np.float64)


def _like(rows: NDArray[Any], inputs: Inputs) -> Inputs:
    """Lay (values, columns) out as the inputs that they came from."""
    if inputs.ndim > 3:
        channels_last = (len(inputs), *inputs.shape[2:], inputs.shape[1])
        rows = np.moveaxis(rows.reshape(channels_last), -1, 1)
    return np.ascontiguousarray(rows.reshape(inputs.shape), dtype=np.float32)


def _fewer(rows: Rows) -> Rows:
    """Return rows (k, columns) spread over (n, columns), as many as sorting them should take.

    Multiples of the golden ratio reach all of them evenly, and never the same pixels of each image.
    """
    count = min(len(rows), max(1, _MOST_SORTED // rows.shape[1]))
    if count == len(rows):
        return rows
    spread: Rows = rows[(np.arange(count) * _GOLDEN_RATIO % 1.0 * len(rows)).astype(np.int64)]
    return spread
