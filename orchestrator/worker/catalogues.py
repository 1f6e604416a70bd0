"""Catalogues beside a sweep file (`jobs/`, `datasets/`, `slurm/`) hold YAML files, and are no packages.

To Python any folder on its path is one, without content, where no other of that name is installed. A library
that looks whether another is there (`importlib.util.find_spec("datasets")`, as Hugging Face's Trainer does)
would take the catalogue for it, and fail at what it lacks. An installed package is found before such a folder
by Python itself, wherever it lies (PEP 420).
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, all_suffixes
from types import ModuleType

NAMES = ("datasets", "jobs", "slurm")
# A folder of data is not looked through to its end: with more than this it is what Python takes it for.
MOST_ENTRIES = 1000
_CODE = tuple(all_suffixes())


def pass_over_catalogues() -> None:
    """Let this process take no catalogue for a package; a folder of that name with code in it is one."""
    sys.meta_path[:] = [_Paths if finder is PathFinder else finder for finder in sys.meta_path]


class _Paths(PathFinder):
    """Python's own finder, but for the catalogues."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is, None where it is none, or only a catalogue."""
        spec = super().find_spec(fullname, path, target)
        return None if fullname in NAMES and spec is not None and _is_catalogue(spec) else spec


def _is_catalogue(spec: ModuleSpec) -> bool:
    folders = spec.submodule_search_locations
    return spec.origin is None and folders is not None and not any(map(_may_hold_code, folders))


def _may_hold_code(folder: str) -> bool:
    left, waiting = MOST_ENTRIES, deque([folder])
    while waiting:
        try:
            with os.scandir(waiting.popleft()) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0 or entry.name.endswith(_CODE):
                        return True
                    if entry.is_dir() and entry.name.isidentifier():
                        waiting.append(entry.path)
        except OSError:
            return True
    return False
