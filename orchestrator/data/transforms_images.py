"""Contrast normalization of images: each by itself, so that hardly anything is learned from training."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from orchestrator.errors import UserError

Inputs = NDArray[np.float32]
Apply = Callable[[Inputs], Inputs]

WINDOW = (2.0, 4)
"""Deviation and radius, in pixels, of the neighbourhood of `local_contrast`: 9x9, as in the paper."""

# Of the training images' mean deviation: the least that an image is divided by, so that a blank one stays so.
_FLOOR = 0.01


def global_contrast(training: Inputs) -> Apply:
    """Give each image mean 0 and deviation 1 over all its pixels and channels (Coates, Lee and Ng 2011)."""
    _refuse_others("global_contrast", training)
    return functools.partial(contrast_of_image, floor=_FLOOR * _deviation(training))


def local_contrast(training: Inputs) -> Apply:
    """Subtract the mean of each pixel's neighbourhood and divide by its deviation (Jarrett et al. 2009, 2.2).

    The neighbourhood is Gaussian and over all channels. Where its deviation is below the image's mean
    deviation, that mean is taken, so that flat regions are not blown up.
    """
    _refuse_others("local_contrast", training)
    return functools.partial(contrast_of_window, floor=_FLOOR * _deviation(training))


def contrast_of_image(inputs: Inputs, *, floor: float) -> Inputs:
    """Apply a fitted `global_contrast`, whose least deviation is `floor`."""
    values = inputs.astype(np.float64)
    values -= values.mean(axis=(1, 2, 3), keepdims=True)
    values /= np.maximum(values.std(axis=(1, 2, 3), keepdims=True), floor)
    return values.astype(np.float32)


def contrast_of_window(inputs: Inputs, *, floor: float) -> Inputs:
    """Apply a fitted `local_contrast`, whose least deviation is `floor`."""
    values = inputs.astype(np.float64)
    values -= _neighbourhood(values)
    around = np.sqrt(_neighbourhood(values**2))
    least = np.maximum(around.mean(axis=(1, 2, 3), keepdims=True), floor)
    normalized: Inputs = (values / np.maximum(around, least)).astype(np.float32)
    return normalized


APPLIED = (contrast_of_image, contrast_of_window)
"""What fitted transforms of this module are partial applications of: see transforms.Apply."""


def _neighbourhood(values: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation, radius = WINDOW
    smooth = gaussian_filter(values.mean(axis=1), (0, deviation, deviation), radius=(0, radius, radius))
    return np.asarray(smooth)[:, None]


def _deviation(training: Inputs) -> float:
    """Return the mean deviation of images (n, channels, height, width), 1 where all are blank."""
    return float(training.astype(np.float64).std(axis=(1, 2, 3)).mean()) or 1.0


def _refuse_others(name: str, inputs: Inputs) -> None:
    if inputs.ndim != 4:
        raise UserError(
            f"{name} takes images (channels, height, width), and a sample's shape is {inputs.shape[1:]}",
            key="datasets.transform",
            hint="Use standardize",
        )
