"""What `ensemble.json` says, read and vetted; light to import, because `status` shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import UserError
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import read_json

NEWEST_ENSEMBLE = 2  # version of ensemble.json


def read_ensemble(sweep: SweepDirectory) -> Mapping[str, Any] | None:
    """Return what the ensemble step chose and measured, of either version; None until it has.

    Raises:
        UserError: the file is damaged, or a newer version wrote it.
    """
    path = sweep.ensemble_result
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, Mapping):
        raise UserError("this is no result of an ensemble", file=path, hint="Run: orchestrate ensemble DIR")
    if not isinstance(version := found.get("version", 1), int) or version > NEWEST_ENSEMBLE:
        raise UserError(
            f"version {version} of this file is newer than this program, which reads {NEWEST_ENSEMBLE}",
            file=path,
            hint="Update the orchestrator",
        )
    return found
