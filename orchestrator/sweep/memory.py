"""Memory: what a process has read of files that have not changed since. Dropping it costs time alone."""

from __future__ import annotations

import contextlib
import gc
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from orchestrator.sweep.digest import Stamp

# Phases of several sweeps, for `advance --all`; each holds the outcomes of all its trials.
MOST_REMEMBERED = 12

Value = TypeVar("Value")


def listing(folder: Path, ending: str) -> dict[str, Stamp]:
    """Return the stamps of a folder's files, by name in order; of those alone whose name starts with a digit.

    A folder that is not there has none.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {
        name: stamp(folder / name) for name in sorted(names) if name[:1].isdigit() and name.endswith(ending)
    }
    # One that is no longer there was moved away just now.
    return {name: known for name, known in found.items() if known is not None}


def stamp(path: Path) -> Stamp | None:
    """Return a file's stamp, None where there is no such file."""
    try:
        # NFS shows what was last written to whoever opens a file; who merely looks gets an old answer.
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Stamp.of(os.fstat(handle))
    finally:
        os.close(handle)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Make many objects without the garbage collector looking through all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Remembered(Generic[Value]):
    """The last values that were worked out, each with what it was worked out from."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, tuple[object, Value]] = OrderedDict()

    def get(self, path: Path, key: object, work_out: Callable[[], Value]) -> Value:
        """Return the value for a path, worked out anew where its key has changed."""
        kept = self._kept.get(path)
        value = kept[1] if kept is not None and kept[0] == key else work_out()
        self.put(path, key, value)
        return value

    def last(self, path: Path) -> Value | None:
        """Return the last value for a path, whatever it was worked out from."""
        kept = self._kept.get(path)
        return kept[1] if kept is not None else None

    def put(self, path: Path, key: object, value: Value) -> None:
        """Keep a value, and forget the one that was not asked for the longest."""
        self._kept[path] = key, value
        self._kept.move_to_end(path)
        while len(self._kept) > MOST_REMEMBERED:
            self._kept.popitem(last=False)
