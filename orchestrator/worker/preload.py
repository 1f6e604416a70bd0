"""Imported by the fork server before it forks: the user's modules, from the snapshot, once for all trials."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

_SNAPSHOT, _MODULES = "ORCHESTRATOR_SNAPSHOT", "ORCHESTRATOR_PRELOAD"


def announce(snapshot: str, modules: Sequence[str]) -> None:
    """Tell a fork server that is about to start what to import."""
    os.environ[_SNAPSHOT], os.environ[_MODULES] = snapshot, ",".join(modules)


def _import_all() -> None:
    snapshot = os.environ.get(_SNAPSHOT)
    if snapshot is None:
        return
    # Python puts the working directory first, where the user's code may have been edited since.
    sys.path[:] = [snapshot, *(path for path in sys.path if path not in ("", snapshot))]
    for module in os.environ.get(_MODULES, "").split(","):
        # What can't be imported is said by each trial that needs it, with a traceback, as its own failure.
        with contextlib.suppress(Exception, SystemExit):
            import_module(module)


_import_all()
