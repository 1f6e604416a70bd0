"""`diagnosis.json`: what is written down in detail of a final run, in its folder of checkpoints."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.sweep.files import write_atomic

if TYPE_CHECKING:
    from torch import nn

NAME = "diagnosis.json"
# Pictures are no larger than this, and so many stand for a first layer.
MOST_PIXELS, MOST_PICTURES = 64, 32


def write(folder: Path, **parts: Any) -> None:
    """Write parts of a run's description, next to those that are there already.

    Args:
        folder: of the run's checkpoints.
        parts: by name, such as predictions; findings may be given as they are. None leaves a part out.
    """
    path = folder / NAME
    known = read(path)
    for name, part in parts.items():
        if part is not None:
            known[name] = plain(part)
    write_atomic(path, json.dumps(known, separators=(",", ":"), allow_nan=False))


def read(path: Path) -> dict[str, Any]:
    """Read what was written; what is missing or damaged is empty, because it only explains."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def plain(value: Any) -> Any:
    """Return a value as strict JSON has it: no arrays, numbers short, None for what is not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def picture(values: NDArray[Any]) -> str | None:
    """Return an array as a PNG in base64, or None where it is no picture.

    Args:
        values: (height, width), or (1 or 3, height, width); any range, which is spread over black to white.
    """
    from PIL import Image

    image = np.asarray(values, dtype=np.float64)
    if image.ndim == 3 and image.shape[0] in (1, 3):
        image = np.moveaxis(image, 0, -1).squeeze(-1) if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        return None
    step = max(1, -(-max(image.shape[:2]) // MOST_PIXELS))
    image = np.nan_to_num(image[::step, ::step], posinf=0.0, neginf=0.0)
    low, high = float(image.min()), float(image.max())
    pixels = np.rint((image - low) * (255 / (high - low or 1.0))).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def as_picture(sample: NDArray[Any]) -> str | None:
    """Return a sample as a PNG in base64: an image, or a vector of as many numbers as a square has pixels."""
    if sample.ndim == 1:
        shape = _square(len(sample))
        return None if shape is None else picture(sample.reshape(shape))
    return picture(sample) if min(sample.shape[-2:], default=0) > 1 else None


def first_layer(model: nn.Module) -> dict[str, Any] | None:
    """Return the weights of the first layer as pictures; None where they are none.

    Those of a convolution are its kernels; those of a linear layer whose inputs are as many as the pixels of
    a square, in one or three channels, are laid out like it.
    """
    from torch import nn

    found = next(
        ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)), (None, None)
    )
    name, layer = found
    if layer is None:
        return None
    weights = layer.weight.detach().float().cpu().numpy()[:MOST_PICTURES]
    if weights.ndim == 2:
        shape = _square(weights.shape[1])
        if shape is None:
            return None
        weights = weights.reshape(len(weights), *shape)
    elif weights.shape[1] not in (1, 3):
        weights = weights[:, :1]
    pictures = [one for kernel in weights if (one := picture(kernel)) is not None]
    return {"layer": name, "pictures": pictures} if pictures else None


def _square(inputs: int) -> Sequence[int] | None:
    for channels in (1, 3):
        side = math.isqrt(inputs // channels)
        if side >= 4 and channels * side * side == inputs:
            return channels, side, side
    return None
