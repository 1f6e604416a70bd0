"""Images to another resolution: smaller inputs first (A5), and powers of two (B8)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError

LARGEST_CHOSEN = 256
"""Pixels of a side, at most, that are chosen where no resolution is said; any may be asked for."""


def power_of_two(side: float) -> int:
    """Return the power of two nearest to a side in pixels, by ratio, from 8 to LARGEST_CHOSEN."""
    return int(min(max(2 ** round(math.log2(max(side, 1))), 8), LARGEST_CHOSEN))


def check_resolution(resolution: int, shape: tuple[int, ...]) -> None:
    """Refuse a resolution below 1, or one for samples that are no images.

    Raises:
        UserError: as said.
    """
    if resolution < 1:
        raise UserError(f"{resolution} is no number of pixels", key="datasets.resolution")
    if len(shape) != 3:
        raise UserError(
            f"samples of shape {shape} are no images (channels, height, width)",
            key="datasets.resolution",
            hint="Leave it null",
        )


def resize(images: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Return images (k, channels, height, width) as float32 (k, channels, side, side).

    Smaller by averaging over areas, so that no pixel is overlooked; larger by bilinear interpolation.
    """
    if images.shape[2:] == (side, side):
        return np.asarray(images, dtype=np.float32)
    import torch
    from torch.nn.functional import interpolate

    given = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    if min(images.shape[2:]) >= side:
        return interpolate(given, (side, side), mode="area").numpy()
    return interpolate(given, (side, side), mode="bilinear", antialias=True).numpy()
