"""Generated images: characters drawn from the TrueType fonts that matplotlib ships.

Any number of samples and up to 62 classes (0-9, A-Z, a-z) without a download. Each sample is a character
from one of 21 fonts, shifted, turned, scaled, dimmed and covered with noise. A sample depends on
(seed, index) and nothing else, so drawing some gives the same bytes as drawing all.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.hashing import DRAWING, NOISE, hashed, uniform
from orchestrator.data.source import Source
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase

# Text fonts with all 62 characters; the others in that folder hold symbols.
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"),
)

SIDE = 28  # pixels
SHIFT = 2.5  # pixels, either way
TURN = math.radians(15)  # either way
SCALE = (0.75, 1.15)
CONTRAST = (0.5, 1.0)
NOISE_DEVIATION = 0.2  # of the full range, at most

# Characters are drawn once at twice the size and shrunk by the affine map, which keeps edges smooth.
_MASTER_SIDE = 2 * SIDE
_MASTER_FONT = 40  # pixels
_CHUNK = 2048  # samples whose noise is held in memory at a time: 28 * 28 * 8 B * 2048 = 13 MB
_PARAMETERS = 7  # random numbers that one sample takes
_GOLDEN_RATIO = 0.6180339887498949


def glyphs(*, samples: int = 62_000, num_classes: int = 62, imbalance: float = 1.0, seed: int = 0) -> Source:
    """Return the generated characters as a source of shape (1, 28, 28), values 0 to 1.

    Args:
        samples: any number; a dataset of fewer samples is the beginning of one of more.
        num_classes: 2 to 62, in the order 0-9, A-Z, a-z.
        imbalance: how many times the largest class is larger than the smallest; sizes fall
            geometrically from class to class. 1 is balanced.
        seed: another seed gives other images, with the same labels.

    Raises:
        UserError: a setting out of range, or a class that would be left without a sample.
    """
    labels = glyph_labels(samples=samples, num_classes=num_classes, imbalance=imbalance)

    def load(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return draw(indices, labels[indices], seed)

    return Source(
        labels=labels, class_names=tuple(CHARACTERS[:num_classes]), shape=(1, SIDE, SIDE), load=load
    )


def glyph_labels(*, samples: int, num_classes: int, imbalance: float = 1.0) -> NDArray[np.int64]:
    """Return the class of every sample: (samples,). Nothing is drawn.

    Raises:
        UserError: as `glyphs`.
    """
    if not 2 <= num_classes <= len(CHARACTERS):
        raise UserError(f"{num_classes} is not from 2 to {len(CHARACTERS)}", key="num_classes")
    if not imbalance >= 1:
        raise UserError(f"{imbalance} is below 1", key="imbalance", hint="1 is balanced")
    indices = np.arange(samples, dtype=np.int64)
    if imbalance == 1:
        labels = indices % num_classes
    else:
        # Multiples of the golden ratio fill the unit interval evenly, so that any number of samples
        # from the start has nearly the wanted shares.
        shares = imbalance ** (-np.arange(num_classes) / (num_classes - 1))
        bounds = np.cumsum(shares / shares.sum())[:-1]
        labels = np.searchsorted(bounds, (0.5 + indices * _GOLDEN_RATIO) % 1.0, side="right").astype(np.int64)
    if missing := num_classes - len(np.unique(labels)):
        raise UserError(
            f"{missing} of {num_classes} classes have no sample",
            key="samples",
            hint=f"Ask for more than {samples} samples, or less imbalance than {imbalance:g}",
        )
    return labels


def draw(indices: NDArray[np.int64], labels: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """Draw samples `indices` (k,) of classes `labels` (k,): (k, 1, 28, 28), values 0 to 1."""
    images = np.empty((len(indices), 1, SIDE, SIDE), dtype=np.float32)
    for start in range(0, len(indices), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        images[chunk, 0] = _draw_chunk(indices[chunk], labels[chunk], seed)
    return images


def _draw_chunk(indices: NDArray[np.int64], labels: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """Draw one chunk: (k, 28, 28)."""
    numbers = indices[:, None] * _PARAMETERS + np.arange(_PARAMETERS)
    chances = uniform(seed, DRAWING, numbers)
    inked = np.empty((len(indices), SIDE, SIDE), dtype=np.uint8)
    for row, (label, chance) in enumerate(zip(labels.tolist(), chances.tolist(), strict=True)):
        inked[row] = _ink(CHARACTERS[label], chance)
    contrast = CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * chances[:, 5]
    deviation = NOISE_DEVIATION * chances[:, 6]
    noise = _noise(indices, seed)
    noise *= deviation[:, None, None].astype(np.float32)
    noise += inked * (contrast / 255)[:, None, None].astype(np.float32)
    return np.clip(noise, 0, 1, out=noise)


def _ink(character: str, chance: list[float]) -> NDArray[np.uint8]:
    """Draw one character, moved by the chances (0 to 1) of font, turn, scale and shift: (28, 28)."""
    from PIL import Image

    font, turn, scale, right, down = chance[:5]
    angle = TURN * (2 * turn - 1)
    # The affine map goes from the pixels of the result to those of the master.
    step = _MASTER_SIDE / SIDE / (SCALE[0] + (SCALE[1] - SCALE[0]) * scale)
    along, across = step * math.cos(angle), step * math.sin(angle)
    x, y = SIDE / 2 + SHIFT * (2 * right - 1), SIDE / 2 + SHIFT * (2 * down - 1)
    middle = _MASTER_SIDE / 2
    matrix = (along, across, middle - along * x - across * y, -across, along, middle + across * x - along * y)
    master = _master(character, FONTS[int(font * len(FONTS))])
    image = master.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(SIDE, SIDE)


def _noise(indices: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """Return noise with mean 0 and deviation 1 for samples `indices` (k,): (k, 28, 28).

    The sum of the four 16-bit parts of a hash: near enough to a normal distribution, and exact in every
    step, so that its bytes are the same everywhere.
    """
    pixels = indices[:, None] * (SIDE * SIDE) + np.arange(SIDE * SIDE)
    parts = hashed(seed, NOISE, pixels).view(np.uint16).reshape(len(indices), SIDE, SIDE, 4)
    total: NDArray[np.float32] = parts.sum(axis=-1, dtype=np.uint32).astype(np.float32)
    total -= np.float32(2 * 65535)
    total /= np.float32(65536 * math.sqrt(4 / 12))
    return total


@functools.cache
def _master(character: str, font: str) -> Image.Image:
    """Return a character in one font, white on black, 56x56; letters keep their relative heights."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (_MASTER_SIDE, _MASTER_SIDE), 0)
    middle = _MASTER_SIDE / 2
    ImageDraw.Draw(image).text((middle, middle), character, fill=255, font=_font(font), anchor="mm")
    return image


@functools.cache
def _font(name: str) -> Any:
    """Load a font from matplotlib's own, without importing matplotlib, which takes longer than drawing."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise UserError("the generated characters need matplotlib's fonts", hint="pip install matplotlib")
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"
    # Basic layout: the same bytes whether or not Pillow was built with a text shaper.
    return ImageFont.truetype(str(path), _MASTER_FONT, layout_engine=ImageFont.Layout.BASIC)
