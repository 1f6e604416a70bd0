"""Samples as small PNG pictures inside a page: as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 72  # pixels that a picture is at least wide, in whole multiples of its own
_GAP = 2


def limits(inputs: NDArray[Any]) -> tuple[float, float]:
    """Return the values that are black and white: 0 and 1 or 255 where they fit, otherwise the ends."""
    finite = inputs[np.isfinite(inputs)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if low >= 0:
        return 0.0, 1.0 if high <= 1 else 255.0 if 64 < high <= 255 else high
    return low, high


def png(image: NDArray[Any], ends: tuple[float, float]) -> str:
    """Return one image (channels, height, width) as a data URI."""
    return _encoded(_large(image, ends))


def sheet(images: NDArray[Any], ends: tuple[float, float]) -> str:
    """Return several images (n, channels, height, width) in one row as a data URI."""
    pictures = [_large(image, ends) for image in images]
    height, width = pictures[0].shape[:2]
    whole = np.zeros(
        (height, len(pictures) * (width + _GAP) - _GAP, 4), dtype=np.uint8
    )  # gaps are transparent
    for place, picture in enumerate(pictures):
        start = place * (width + _GAP)
        whole[:, start : start + width, :3], whole[:, start : start + width, 3] = picture, 255
    return _encoded(whole)


def _large(image: NDArray[Any], ends: tuple[float, float]) -> NDArray[np.uint8]:
    """Return (height, width, 3) bytes, each pixel as large as it takes to be seen."""
    low, high = ends
    with np.errstate(invalid="ignore"):
        scaled = np.clip((np.asarray(image, np.float64) - low) / ((high - low) or 1.0), 0, 1)
    levels = (np.nan_to_num(scaled, nan=0.5) * 255).round().astype(np.uint8)
    colours = levels[:3] if len(levels) >= 3 else np.repeat(levels[:1], 3, axis=0)
    times = max(1, math.ceil(SIDE / max(colours.shape[1:])))
    return np.repeat(np.repeat(colours.transpose(1, 2, 0), times, axis=0), times, axis=1)


def _encoded(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
