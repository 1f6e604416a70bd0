"""Arrays of the user's own, in a NumPy archive."""

from __future__ import annotations

import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.files import existing
from orchestrator.data.labels import Encoded, encode
from orchestrator.data.source import CLASSIFICATION, Source
from orchestrator.errors import UserError, nearest

LAYOUTS = ("grey", "channels_last")
_DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def npz(
    *,
    path: str,
    inputs: str = "x",
    labels: str = "y",
    task: str = CLASSIFICATION,
    layout: str | None = None,
    vocabulary: int | None = None,
) -> Source:
    """Return arrays from a NumPy archive: `inputs` (n, ...) numbers, `labels` (n,) classes or values.

    An array that `np.savez` stored without compression is mapped, not read, so it may be larger than memory.

    Args:
        path: of the archive.
        inputs: the array of samples.
        labels: the array of classes (whole numbers or text), or of values where the task is regression.
        task: CLASSIFICATION or REGRESSION.
        layout: None takes samples as they are; "grey" adds the channel to images (n, height, width), and
            "channels_last" turns (n, height, width, channels) to (n, channels, height, width).
        vocabulary: for samples that are sequences of tokens: how many there are, with 0, which is padding.

    Raises:
        UserError: the file or an array is missing or damaged, or the two do not fit.
    """
    samples, raw_labels = _arrays(path, inputs=inputs, labels=labels)
    if samples.dtype.kind not in "fiub":
        raise UserError(f"array '{inputs}' holds {samples.dtype}, not numbers", file=path)
    if raw_labels.ndim != 1 or len(raw_labels) != len(samples) or samples.ndim < 2:
        raise UserError(
            f"'{inputs}' {samples.shape} and '{labels}' {raw_labels.shape} do not fit",
            file=path,
            hint="They should be (samples, ...) and (samples,)",
        )
    encoded = encode(raw_labels, task, labels, path)
    samples = _laid_out(samples, layout, path)
    if vocabulary is not None and (samples.ndim != 2 or samples.dtype.kind not in "iu"):
        raise UserError(
            f"'{inputs}' {samples.shape} of {samples.dtype} is no array (samples, length) of tokens",
            file=path,
            key="vocabulary",
        )
    return in_memory(samples, *encoded, vocabulary=vocabulary)


def npz_labels(*, path: str, labels: str = "y", task: str = CLASSIFICATION) -> Encoded:
    """Read the labels of an archive alone; arguments as `npz`.

    Raises:
        UserError: the file or the array is missing or damaged, or it does not fit the task.
    """
    (raw_labels,) = _arrays(path, labels=labels)
    return encode(raw_labels.ravel(), task, labels, path)


def read_inputs(path: str, inputs: str, labels: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the samples of an archive, and its labels where it has them: (n, ...) and (n,), as stored.

    Raises:
        UserError: the file or the array of samples is missing or damaged.
    """
    existing(path, named="a NumPy archive")
    try:
        with zipfile.ZipFile(path) as archive:
            has_labels = f"{labels}.npy" in archive.namelist()
    except _DAMAGED as error:
        raise UserError(f"not readable as a NumPy archive ({error})", file=path) from error
    found = _arrays(path, inputs=inputs, **({"labels": labels} if has_labels else {}))
    return found[0], found[1] if has_labels else None


def _arrays(path: str, **names: str) -> list[NDArray[Any]]:
    """Return arrays of an archive, each by the key that says its name; a column of labels as (n,)."""
    existing(path, named="a NumPy archive")
    try:
        with open(path, "rb") as handle:
            archive = np.load(handle, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise UserError("holds one array, not an archive of two", file=path, hint="Use np.savez")
            found = []
            for key, name in names.items():
                if name not in archive.files:
                    hint = nearest(name, archive.files)
                    raise UserError(f"has no array '{name}'", file=path, key=key, hint=hint)
                array = _mapped(path, name)
                array = archive[name] if array is None else array
                is_column = key == "labels" and array.ndim == 2 and array.shape[1] == 1
                found.append(array[:, 0] if is_column else array)
            return found
    except _DAMAGED as error:
        raise UserError(f"not readable as a NumPy archive ({error})", file=path) from error


def in_memory(
    samples: NDArray[Any],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    targets: NDArray[np.float32] | None = None,
    *,
    vocabulary: int | None = None,
    columns: tuple[str, ...] = (),
    divide: float = 1.0,
) -> Source:
    """Wrap arrays that are in memory or mapped: samples (n, *shape); the rest as in `Source`.

    Samples become float32 (int64 for tokens) when they are loaded, divided by `divide`.
    """

    def load(indices: NDArray[np.int64]) -> NDArray[Any]:
        if vocabulary is not None:
            return samples[indices].astype(np.int64)
        with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
            chosen = samples[indices].astype(np.float32)
        if divide != 1.0:
            chosen /= np.float32(divide)
        return chosen

    return Source(
        labels=labels,
        class_names=class_names,
        shape=samples.shape[1:],
        load=load,
        targets=targets,
        vocabulary=vocabulary,
        columns=columns,
    )


def _laid_out(samples: NDArray[Any], layout: str | None, path: str) -> NDArray[Any]:
    """Return samples as images (n, channels, height, width) where a layout is said."""
    if layout is None:
        return samples
    if layout not in LAYOUTS:
        raise UserError(f"there is no layout '{layout}'", key="layout", hint=nearest(layout, LAYOUTS))
    wanted = 3 if layout == "grey" else 4
    if samples.ndim != wanted:
        raise UserError(f"samples {samples.shape} do not have the layout '{layout}'", file=path, key="layout")
    return samples[:, None] if layout == "grey" else np.moveaxis(samples, -1, 1)


def _mapped(path: str, name: str) -> NDArray[Any] | None:
    """Map an array that is stored in an archive without compression; None where it is compressed.

    A zip archive's own headers say where a member's header is, and that one says where its bytes are.
    """
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
    with open(path, "rb") as handle:
        handle.seek(member.header_offset)
        local = handle.read(30)
        handle.seek(int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little"), 1)
        version = np.lib.format.read_magic(handle)
        if version == (1, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(handle)
        elif version == (2, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(handle)
        else:
            return None
        if dtype.hasobject or not shape or 0 in shape:
            return None
        return np.memmap(path, dtype, "r", handle.tell(), shape, "F" if is_fortran else "C")
