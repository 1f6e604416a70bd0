"""Encoded images to arrays: any format that Pillow reads, of any mode, to one size and one mode.

Grey images come as (1, height, width), colour as (3, height, width), float32, 0 to 1.
"""

from __future__ import annotations

import io
import statistics
import struct
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.hashing import LOOK, hashed
from orchestrator.data.resize import power_of_two
from orchestrator.data.splits import Indices
from orchestrator.errors import UserError, nearest

GREY, COLOR = "grey", "color"
MODES = (GREY, COLOR)
LOOKED_AT = 500
"""Images whose headers tell the size and mode of all of them, where these are not said."""

_GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, TypeError, IndexError, OverflowError)
Opener = Callable[[int], tuple[Path | bytes, str]]  # what image i is in, and its name for messages


class Format(NamedTuple):
    """What all images of a source are brought to."""

    size: tuple[int, int]
    """Height and width in pixels."""
    mode: str
    """GREY or COLOR."""
    resizes: bool = True
    """Images of another size are resized; otherwise they are refused."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: (channels, height, width)."""
        return (1 if self.mode == GREY else 3, *self.size)


def choose_format(count: int, opener: Opener, *, resolution: int | None, mode: str | None) -> Format:
    """Return the format for `count` images: what is said, and otherwise what most of them are.

    The headers of at most LOOKED_AT images, chosen by hash, are read.

    Args:
        count: of images.
        opener: gives the encoded images.
        resolution: pixels of a side; None takes the power of two nearest to the median side (B8).
        mode: GREY or COLOR; None takes the majority's.

    Raises:
        UserError: no such mode or resolution, or an image is damaged.
    """
    if mode is not None and mode not in MODES:
        raise UserError(f"there is no mode '{mode}'", key="datasets.mode", hint=nearest(mode, MODES))
    if resolution is not None and resolution < 1:
        raise UserError(f"{resolution} is no number of pixels", key="datasets.resolution")
    if resolution is not None and mode is not None:
        return Format((resolution, resolution), mode)
    order = np.argsort(hashed(0, LOOK, np.arange(count)), kind="stable")
    sides, grey = [], 0
    looked_at = sorted(order[:LOOKED_AT].tolist())
    for index in looked_at:
        with _opened(*opener(index)) as image:
            sides.append(float(np.sqrt(image.width * image.height)))
            grey += is_grey(image)
    chosen_mode = mode or (GREY if 2 * grey >= len(looked_at) else COLOR)
    side = resolution or power_of_two(statistics.median(sides))
    return Format((side, side), chosen_mode)


def load_images(indices: Indices, opener: Opener, wanted: Format) -> NDArray[np.float32]:
    """Decode images `indices` (k,): (k, channels, side, side), 0 to 1.

    Raises:
        UserError: an image is damaged or half-written; it is named.
    """
    decoded = np.empty((len(indices), *wanted.shape), np.float32)
    for row, index in enumerate(indices.tolist()):
        decoded[row] = decode(*opener(index), wanted)
    return decoded


def decode(content: Path | bytes, name: str, wanted: Format) -> NDArray[np.float32]:
    """Decode one image, upright, to a format: (channels, side, side), 0 to 1.

    Raises:
        UserError: it is damaged or half-written.
    """
    with _opened(content, name) as image:
        try:
            return picture_array(image, wanted)
        except _BROKEN as error:
            raise _damaged(name, error) from error


def picture_array(image: Any, wanted: Format) -> NDArray[np.float32]:
    """Turn a PIL image into an array of a format: (channels, side, side), 0 to 1."""
    from PIL import Image, ImageOps

    # A JPEG can be decoded at a half, a quarter or an eighth of its size, which saves most of the time.
    height, width = wanted.size
    image.draft(None, (2 * width, 2 * height))
    image = ImageOps.exif_transpose(image)
    full = 255.0
    if image.mode.startswith("I;16") or image.mode == "I":
        full, image = 65535.0, image.convert("F")
    elif image.mode == "F":
        full = 1.0
    elif wanted.mode == GREY:
        image = _opaque(image).convert("L")
    else:
        image = _opaque(image).convert("RGB")
    if image.size != (width, height):
        shrinks = image.width >= width and image.height >= height
        # Averaged over areas to shrink, interpolated to enlarge.
        kind = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
        image = image.resize((width, height), kind)
    array = np.asarray(image, dtype=np.float32) / np.float32(full)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return np.broadcast_to(array, wanted.shape)


def is_grey(image: Any) -> bool:
    """Say whether a PIL image has no colour by its mode."""
    return image.mode in _GREY_MODES


def refuse_mixed_sizes(sizes: Sequence[tuple[int, ...]], names: Sequence[str]) -> None:
    """Refuse samples of differing shapes, naming two of them.

    Raises:
        UserError: as said.
    """
    for size, name in zip(sizes, names, strict=True):
        if size != sizes[0]:
            first, other = ("x".join(map(str, each)) for each in (sizes[0], size))
            raise UserError(
                f"{names[0]} is {first} and {name} is {other}: samples should be of one size",
                key="datasets.resolution",
                hint="Images are resized where datasets.resolution says to how many pixels of a side",
            )


def _opaque(image: Any) -> Any:
    """Put what is transparent on white, as viewers do; what lies under it is often arbitrary."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image
    from PIL import Image

    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, (255, 255, 255, 255)), layered)


def _opened(content: Path | bytes, name: str) -> Any:
    """Open an image; its header is read, its pixels are not."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which say nothing of the pixels
            return Image.open(content if isinstance(content, Path) else io.BytesIO(content))
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: BaseException) -> UserError:
    return UserError(
        f"not readable as an image ({error})", file=name, hint="Is it half-written? Replace it or remove it"
    )
