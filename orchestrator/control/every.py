"""Advancing every sweep below a folder, and one sweep as cron sees it: what was done, in plain data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.control.rest import is_finished
from orchestrator.errors import Busy
from orchestrator.sweep.directory import SweepDirectory

# Deeper than anybody keeps sweeps, and an end to links that lead in circles.
MOST_LEVELS = 8
BUSY, FAILED = "busy", "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one call did for one sweep; `state` is a decision's, `busy`, or `error`."""

    directory: str
    state: str
    message: str = ""
    actions: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether somebody has to look at it."""
        return self.state not in ("running", "done", "cancelled", BUSY)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return asdict(self)

    def describe(self) -> str:
        """Return one line, or the message's several."""
        if self.state == BUSY:
            return f"nothing to do: {self.message} is advancing it"
        done = "" if self.state == FAILED else ", ".join(self.actions) or "nothing to do now"
        return ": ".join(part for part in (self.state, done, self.message) if part)


def take_step(directory: SweepDirectory) -> Step:
    """Advance one sweep once; a finished one is not even read.

    Raises:
        UserError: it is no sweep's directory, or something in it has to be put right.
        ClusterUnavailable: the cluster can't be asked just now.
    """
    path = str(directory.path)
    if is_finished(directory):
        return Step(directory=path, state="done")
    from orchestrator.control.drive import advance_once
    from orchestrator.control.opened import open_sweep

    actions: list[str] = []
    try:
        decision = advance_once(open_sweep(directory), lambda action: actions.append(type(action).__name__))
    except Busy as busy:
        return Step(directory=path, state=BUSY, message=str(busy))
    return Step(directory=path, state=decision.state, message=decision.message, actions=tuple(actions))


def take_every_step(folder: Path) -> Iterator[Step]:
    """Advance every sweep below a folder; what goes wrong with one does not touch the others."""
    for directory in sweeps_below(folder):
        try:
            yield take_step(directory)
        except Exception as error:  # also what nobody has thought of: the other sweeps must go on
            name = type(error).__name__
            yield Step(directory=str(directory.path), state=FAILED, message=str(error) or name)


def sweeps_below(folder: Path) -> Iterator[SweepDirectory]:
    """Find the sweeps in a folder, itself among them; what lies inside a sweep is not looked at."""
    start = folder.resolve()
    for path, folders, files in os.walk(start):
        if "plan.json" in files and "sweep.yaml" in files:
            yield SweepDirectory(Path(path))
            folders.clear()
        elif len(Path(path).relative_to(start).parts) >= MOST_LEVELS:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
