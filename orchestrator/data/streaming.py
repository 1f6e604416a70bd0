"""Parts larger than memory: transformed chunk by chunk, and kept in a temporary file where they must be.

The file has no name: the system removes it when the process ends, however it ends. It lies where TMPDIR says,
which on most clusters is the node's own disk.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError

GB = 1 << 30
FIT_BYTES = 256 << 20
"""Of samples, at most, that a transform is fitted to. Not a share of the memory: machines differ in that, and
the same data should be transformed in the same way on all of them."""
CHUNK_BYTES = 32 << 20
_SHARE = 4  # of the memory for one part: 1/4; training, validation and a copy on the way should fit


def memory_limit(memory_gb: float | None) -> int:
    """Return how many bytes of a part are kept in memory.

    Raises:
        UserError: `memory_gb` is not above 0.
    """
    if memory_gb is None:
        return available_memory() // _SHARE
    if not memory_gb > 0:
        raise UserError(f"{memory_gb:g} is not above 0", key="datasets.memory_gb")
    return int(memory_gb * GB)


def available_memory(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes this process may use: the machine's, or its cgroup's where that is less.

    A cgroup's limit holds for those below it too, so all of them on the way up are looked at.
    """
    least = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return least
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, name = mount / "memory", "memory.limit_in_bytes"
        elif not controllers:
            root, name = mount, "memory.max"
        else:
            continue
        group = Path(own.lstrip("/"))
        for folder in (group, *group.parents):
            try:
                least = min(least, int((root / folder / name).read_text()))
            except (OSError, ValueError):  # the root has no such file, and "max" is no number
                continue
    return least


def rows_of(size: int, sample_bytes: int, memory_gb: float | None) -> int:
    """Return how many samples make up `size` bytes, or an eighth of `memory_gb` if less; 2 at least.

    Raises:
        UserError: as `memory_limit`.
    """
    if memory_gb is not None:
        size = min(size, memory_limit(memory_gb) // 8)
    return max(2, size // max(sample_bytes, 1))


def gather(chunk: Callable[[slice], NDArray[Any]], count: int, rows: int, limit: int) -> NDArray[Any]:
    """Put chunks together: (count, *shape), in memory up to `limit` bytes and else in a temporary file.

    Args:
        chunk: gives samples from place to place of the part.
        count: samples of the part.
        rows: samples of a chunk.
        limit: bytes.

    Raises:
        UserError: the disk for temporary files is full, or cannot be written.
    """
    first = chunk(slice(0, min(rows, count)))
    if count <= rows:
        return first
    size = count * math.prod(first.shape[1:]) * first.itemsize
    rest = (slice(start, min(start + rows, count)) for start in range(rows, count, rows))
    if size <= limit:
        whole = np.empty((count, *first.shape[1:]), first.dtype)
        whole[:rows] = first
        for places in rest:
            whole[places] = chunk(places)
        return whole
    with _temporary(size) as file:
        _write(file, first, size)
        for places in rest:
            _write(file, chunk(places), size)
        return np.memmap(file, first.dtype, "r+", shape=(count, *first.shape[1:]))


def _temporary(size: int) -> IO[bytes]:
    try:
        # Not buffered, so that what is written is there for the map, and for a full disk to refuse.
        return tempfile.TemporaryFile(prefix="orchestrate-", buffering=0)
    except OSError as error:
        raise _no_room(size, error) from error


def _write(file: IO[bytes], samples: NDArray[Any], size: int) -> None:
    """Write samples; not by assigning to a map, where a full disk is no exception but a crash."""
    left = np.ascontiguousarray(samples).data.cast("B")
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _no_room(size, error) from error


def _no_room(size: int, error: OSError) -> UserError:
    return UserError(
        f"{size / GB:.2g} GB of samples do not fit into temporary files ({error.strerror or error})",
        file=tempfile.gettempdir(),
        hint="Point TMPDIR to a larger disk, or allow more memory with datasets.memory_gb",
    )
