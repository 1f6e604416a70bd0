"""What the files of a dataset were when its sweep was planned, in a few characters.

Imports nothing heavy and reads little: names, sizes, and the two ends of each file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_END = 1 << 16  # bytes read at either end of a file
_MOST_READ = 64  # of a folder with more files, names and sizes alone
_MOST_SIZED = 4096  # of one with more, all names and about so many sizes: on a network disk each takes a call


def fingerprint(dataset: Mapping[str, Any] | None) -> str | None:
    """Return a short text that changes when the files of a dataset do; None where it has no files.

    Args:
        dataset: the content of a datasets/*.yaml; its `path`, and any key that ends in `_path`, names a file
            or a folder.

    Returns:
        The number of files, the bytes of those looked at, and a hash: "1 file, 183045 bytes, 3f1c9a0b7d52".
    """
    files = [
        found
        for key, value in sorted((dataset or {}).items())
        if (key == "path" or key.endswith("_path")) and isinstance(value, str)
        for found in _files(Path(value))
    ]
    if not files:
        return None  # what is missing is said when the data are opened
    step = max(1, len(files) // _MOST_SIZED)
    digest, total = hashlib.sha256(), 0
    for number, (name, file) in enumerate(files):
        digest.update(f"{name}\0".encode(errors="surrogateescape"))
        if number % step:
            continue
        size = file.stat().st_size
        total += size
        digest.update(f"{size}\0".encode())
        if len(files) <= _MOST_READ:
            digest.update(_ends(file, size))
    plural = "file" if len(files) == 1 else "files"
    return f"{len(files)} {plural}, {total} bytes, {digest.hexdigest()[:12]}"


def _files(path: Path) -> list[tuple[str, Path]]:
    """Return a file, or the files below a folder, each with its name in the folder, by name."""
    if path.is_file():
        return [("", path)]  # moved or renamed as a whole, the data are the same
    found = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sorted((str(each.relative_to(path)), each) for each in found)


def _ends(file: Path, size: int) -> bytes:
    with open(file, "rb") as handle:
        start = handle.read(_END)
        handle.seek(max(len(start), size - _END))
        return start + handle.read()
