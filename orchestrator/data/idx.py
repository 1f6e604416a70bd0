"""IDX files, in which MNIST and its kin come: a magic number, the sizes, the numbers.

The format is that of http://yann.lecun.com/exdb/mnist: two zero bytes, a byte for the type, a byte for the
number of dimensions, each dimension as a big-endian 32-bit number, then the data, big-endian.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.arrays import in_memory
from orchestrator.data.files import existing
from orchestrator.data.labels import Encoded, encode
from orchestrator.data.source import CLASSIFICATION, Source
from orchestrator.errors import UserError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


def idx(*, path: str, labels_path: str, task: str = CLASSIFICATION) -> Source:
    """Return the samples of one IDX file with the labels of another; either may be gzipped.

    Grey images (n, height, width) of bytes come as (1, height, width), bytes of any shape as 0 to 1. A file
    that is not gzipped is mapped, not read.

    Args:
        path: of the samples: numbers (n, ...).
        labels_path: of the labels: (n,).
        task: CLASSIFICATION or REGRESSION.

    Raises:
        UserError: a file is missing, damaged, or no IDX; or the two do not fit.
    """
    samples, raw_labels = read_idx(path), read_idx(labels_path)
    if raw_labels.ndim != 1:
        raise UserError(
            f"holds an array {raw_labels.shape}, not one label for each sample",
            file=labels_path,
            hint=f"Are the two files the wrong way round? '{path}' holds {samples.shape}",
        )
    if len(raw_labels) != len(samples) or samples.ndim < 2:
        raise UserError(
            f"{samples.shape} samples and the {len(raw_labels)} labels of '{labels_path}' do not fit",
            file=path,
        )
    is_bytes = samples.dtype.itemsize == 1 and samples.dtype.kind == "u"
    if samples.ndim == 3 and is_bytes:
        samples = samples[:, None]
    encoded = _encoded(raw_labels, task, labels_path)
    return in_memory(samples, *encoded, divide=255.0 if is_bytes else 1.0)


def idx_labels(*, labels_path: str, task: str = CLASSIFICATION) -> Encoded:
    """Read the file of labels alone; arguments as `idx`.

    Raises:
        UserError: the file is missing, damaged, or no IDX, or it does not fit the task.
    """
    return _encoded(read_idx(labels_path).ravel(), task, labels_path)


def _encoded(raw_labels: NDArray[Any], task: str, path: str) -> Encoded:
    return encode(raw_labels.astype(raw_labels.dtype.newbyteorder("=")), task, "labels", path)


def read_idx(path: str) -> NDArray[Any]:
    """Return the array in an IDX file, mapped where it is not gzipped.

    Raises:
        UserError: the file is missing, damaged, or no IDX.
    """
    existing(path, named="an IDX file")
    if not Path(path).is_file():
        raise UserError("is a folder, not an IDX file", file=path)
    try:
        with open(path, "rb") as handle:
            start = handle.read(4 + 4 * 255)
        if not start.startswith(_GZIP):
            kind, shape, offset = _header(start, path)
            _check_size(Path(path).stat().st_size - offset, kind, shape, path)
            if 0 in shape:
                return np.empty(shape, kind)
            return np.memmap(path, kind, "r", offset, shape)
        with gzip.open(path) as unpacked:
            content = unpacked.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"not readable as an IDX file ({error})", file=path) from error
    kind, shape, offset = _header(content[: len(start)], path)
    _check_size(len(content) - offset, kind, shape, path)
    return np.frombuffer(content, kind, offset=offset).reshape(shape)


def _header(start: bytes, path: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return type, shape and the place where the numbers begin."""
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES or not start[3]:
        raise UserError(f"begins with {start[:4].hex() or 'nothing'}, not as an IDX file does", file=path)
    end = 4 + 4 * start[3]
    if len(start) < end:
        raise UserError("ends within its header", file=path, hint="Was it copied to the end?")
    shape = tuple(int(size) for size in np.frombuffer(start[4:end], ">u4"))
    return np.dtype(_TYPES[start[2]]), shape, end


def _check_size(found: int, kind: np.dtype[Any], shape: tuple[int, ...], path: str) -> None:
    wanted = math.prod(shape) * kind.itemsize
    if found != wanted:
        raise UserError(
            f"has {found} bytes of data, and its header promises {wanted} for {shape}",
            file=path,
            hint="Was it copied to the end?" if found < wanted else "",
        )
