"""Pictures read as they are: class folders, encoded columns, IDX files. What cannot be read is told."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.inspection.finding import NOTE, PROBLEM, WARNING, Finding, counted, some
from orchestrator.inspection.raw import IMAGES, Ids, Raw, choose
from orchestrator.inspection.target import PICTURES

MOST_SIDE = 64
"""Pixels: larger pictures are looked at smaller."""
_PEEKED = 500  # pictures whose sizes are looked at before any is read

Load = Callable[[Ids], NDArray[Any]]


def open_folder(path: Path) -> Raw:
    """Open a folder of class folders; a picture that cannot be read is told and looked at as gaps.

    Raises:
        UserError: no picture can be read.
    """
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    files, labels = [], []
    for number, folder in enumerate(folders):
        inside = sorted(each for each in folder.rglob("*") if each.suffix.lower() in PICTURES)
        files += inside
        labels += [number] * len(inside)
    seen = []
    if empty := [each.name for k, each in enumerate(folders) if k not in set(labels)]:
        text = f"{counted(len(empty), 'class folder')} without a picture: {some(empty)}"
        seen.append(Finding(code="empty_class", level=WARNING, text=text, share=len(empty) / len(folders)))
    bad: list[str] = []
    for file in files:  # the headers alone, so it is quick
        try:
            with _opened(file):
                pass
        except _UNREADABLE:
            bad.append(str(file.relative_to(path)))
    if len(bad) == len(files):
        raise UserError(f"none of its {counted(len(files), 'picture')} can be read", file=path)
    load, shape, told = _pictures(lambda number: files[number], len(files))
    return Raw(
        kind=IMAGES,
        count=len(files),
        shape=shape,
        load=load,
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple(each.name for each in folders),
        named=lambda number: str(files[number].relative_to(path)),
        seen=(*seen, *_unreadable(bad, len(files)), *told),
    )


def encoded_pictures(
    read: Callable[[Ids], Any], count: int
) -> tuple[Load, tuple[int, ...], tuple[Finding, ...]]:
    """Return how pictures in a column are loaded, their shape, and what was noticed.

    Args:
        read: gives an Arrow column of bytes, or of structs with `bytes`, of these rows.
        count: of all rows.

    Raises:
        UserError: none of those tried is a picture.
    """

    def fetch(ids: Ids) -> list[Any]:
        raw = read(ids).to_pylist()
        return [io.BytesIO((one.get("bytes") if isinstance(one, dict) else one) or b"") for one in raw]

    return _pictures(None, count, fetch)


def _pictures(
    file: Callable[[int], Path] | None, count: int, fetch: Callable[[Ids], list[Any]] | None = None
) -> tuple[Load, tuple[int, ...], tuple[Finding, ...]]:
    def streams(ids: Ids) -> list[Any]:
        if fetch is not None:
            return fetch(ids)
        return [file(int(number)) for number in ids] if file is not None else []

    sizes, modes, bad = Counter[tuple[int, int]](), Counter[str](), 0
    peeked = choose(count, _PEEKED)
    for stream in streams(peeked):
        try:
            with _opened(stream) as picture:
                sizes[picture.size] += 1
                modes["L" if picture.mode in ("1", "L", "I", "F", "I;16", "LA") else "RGB"] += 1
        except _UNREADABLE:
            bad += 1
    if not sizes:
        raise UserError(f"none of the {len(peeked)} pictures tried can be read")
    mode, (width, height) = modes.most_common(1)[0][0], sizes.most_common(1)[0][0]
    if len(sizes) > 1:
        width = height = _power_of_two(sizes)
    shrink = min(1.0, MOST_SIDE / max(width, height))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    shape = (1 if mode == "L" else 3, size[1], size[0])

    def load(ids: Ids) -> NDArray[Any]:
        pixels = np.full((len(ids), *shape), np.nan, dtype=np.float32)
        for place, stream in enumerate(streams(ids)):
            try:
                with _opened(stream) as picture:
                    small = picture.convert(mode)
                    small = small if small.size == size else small.resize(size)
                    image = np.asarray(small, dtype=np.float32)
            except _UNREADABLE:
                continue  # it stays NaN
            pixels[place] = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        return pixels

    return load, shape, _noticed(sizes, modes, bad if fetch is not None else 0, len(peeked), size)


def _power_of_two(sizes: Counter[tuple[int, int]]) -> int:
    """Return the power of two nearest to the median side (B8)."""
    middle = float(np.median([side for size in sizes.elements() for side in size]))
    return int(2 ** round(math.log2(max(middle, 1.0))))


def _noticed(
    sizes: Counter[tuple[int, int]], modes: Counter[str], bad: int, looked: int, size: tuple[int, int]
) -> tuple[Finding, ...]:
    found = []
    if len(sizes) > 1:
        (a, _), (b, _) = sizes.most_common(2)
        low, high = min(min(each) for each in sizes), max(max(each) for each in sizes)
        text = (
            f"{looked} pictures looked at have {len(sizes)} sizes, such as {a[0]}x{a[1]} and {b[0]}x{b[1]}; "
            f"sides from {low} to {high} pixels"
        )
        advice = f"Say resolution: {_power_of_two(sizes)}"
        found.append(Finding(code="mixed_sizes", level=NOTE, text=text, advice=advice, share=1.0))
    if len(modes) > 1:
        text = f"grey and colour pictures are mixed ({modes['L']} and {modes['RGB']} of {looked} looked at)"
        advice = "If colour goes with the class, a network learns that: convert all to one mode"
        found.append(Finding(code="mixed_modes", level=WARNING, text=text, advice=advice, share=1.0))
    if bad:
        found += _unreadable([f"{bad} of {looked} looked at"], looked)
    if max(size) >= MOST_SIDE and sizes.most_common(1)[0][0] != size:
        text = f"pictures were looked at {size[0]}x{size[1]} pixels large"
        found.append(Finding(code="shrunk", level=NOTE, text=text, share=0.0))
    return tuple(found)


def _unreadable(names: list[str], count: int) -> list[Finding]:
    if not names:
        return []
    text = f"pictures cannot be read: {some(names)}"
    text = text if "of" in names[0].split() else f"{len(names)} of {count:,} {text}"
    advice = "Write them again or remove them: training stops at the first"
    return [Finding(code="unreadable", level=PROBLEM, text=text, advice=advice, share=len(names) / count)]


def _opened(stream: Any) -> Any:
    from PIL import Image

    return Image.open(stream)


# What Pillow raises about broken pictures of one kind or another.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, TypeError)


def open_idx(path: Path, given: Mapping[str, Any]) -> Raw:
    """Open IDX files: one of pictures, with the labels beside it under the usual name; or a folder.

    `given` may have labels_path.

    Raises:
        UserError: a file is damaged or half written, or there are no samples among them.
    """
    images, label = _idx_files(path)
    label = Path(str(given["labels_path"])) if "labels_path" in given else label
    pixels = read_idx(images)
    if pixels.ndim < 2 or not len(pixels):
        raise UserError("holds no samples", file=images, hint="Give the file of pictures, not that of labels")
    labels = read_idx(label) if label is not None else None
    if labels is not None and labels.shape != pixels.shape[:1]:
        raise UserError(f"has {labels.shape[0]} labels for {len(pixels)} pictures", file=label)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels
    seen = [
        Finding(code="no_labels", level=WARNING, text="no file of labels lies beside the pictures", share=1.0)
    ]
    names, numbers = np.unique(labels, return_inverse=True) if labels is not None else (np.array([]), None)
    return Raw(
        kind=IMAGES if pixels.ndim == 4 else "table",
        count=len(pixels),
        shape=pixels.shape[1:],
        load=lambda ids: pixels[ids].astype(np.float32),
        labels=None if numbers is None else numbers.astype(np.int64),
        class_names=tuple(str(each) for each in names.tolist()),
        columns=tuple(f"column {k}" for k in range(pixels.shape[1])) if pixels.ndim == 2 else (),
        named=lambda number: f"sample {number}",
        seen=() if labels is not None else tuple(seen),
    )


def _idx_files(path: Path) -> tuple[Path, Path | None]:
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.is_file())
        pictures = [each for each in files if "images" in each.name]
        # Training pictures where there are test pictures too.
        image = next(
            (each for each in pictures if "train" in each.name), pictures[0] if pictures else files[0]
        )
    else:
        image = path
    beside = image.with_name(image.name.replace("images", "labels").replace("idx3", "idx1"))
    return image, beside if beside != image and beside.exists() else None


def read_idx(path: Path) -> NDArray[Any]:
    """Read an IDX file, .gz or not: a magic number with type and dimensions, the sizes, the values.

    Raises:
        UserError: it is none, or it is damaged or half written.
    """
    kinds = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
    try:
        content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"not readable ({error})", file=path, hint="Download or write it again") from None
    if (
        len(content) < 4
        or content[:2] != b"\0\0"
        or content[2] not in kinds
        or len(content) < 4 + 4 * content[3]
    ):
        raise UserError("is no IDX file: it does not begin as one", file=path)
    sizes = struct.unpack(f">{content[3]}I", content[4 : 4 + 4 * content[3]])
    kind = np.dtype(kinds[content[2]])
    values = content[4 + 4 * content[3] :]
    wanted = int(np.prod(sizes, dtype=np.int64)) * kind.itemsize
    if len(values) != wanted:
        raise UserError(f"has {len(values):,} bytes of values, and its head says {wanted:,}", file=path)
    return np.frombuffer(values, kind).reshape(sizes).astype(kind.newbyteorder("="))
