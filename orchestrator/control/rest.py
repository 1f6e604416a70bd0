"""Whether a sweep is finished, told by two small files: what cron asks every few minutes, for ever."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import compacted_path, retries_path
from orchestrator.sweep.files import read_json, write_json


def note_end(directory: SweepDirectory) -> None:
    """Write down that a sweep is done, with all that was asked of it so far."""
    if not is_finished(directory):
        write_json(_path(directory), _asked_for(directory))


def is_finished(directory: SweepDirectory) -> bool:
    """Say whether a sweep was done and nobody has asked for anything since."""
    try:
        seen = read_json(_path(directory))
    except (FileNotFoundError, UserError):
        return False
    # `orchestrate retry` takes the note about the results away, also where it finds no failed trial.
    return bool(seen == _asked_for(directory) and compacted_path(directory).exists())


def _path(directory: SweepDirectory) -> Path:
    return directory.path / "done.json"


def _asked_for(directory: SweepDirectory) -> dict[str, int]:
    return {"retries": sum(1 for _ in retries_path(directory).glob("[0-9]*.json"))}
