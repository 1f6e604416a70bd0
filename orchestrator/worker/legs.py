"""Legs: a trial that is longer than a task's time limit runs in several, each from the last one's checkpoint.

A trial that begins anew in each leg would do so for ever. What tells the two apart is the step at which a leg
takes up, which is the first that it reports. The highest step does not: legs that all begin at step 1 end a
little further or nearer by chance. Nor do files below the checkpoint folder: a trial that saves and never
resumes has new ones in each leg. They only speak for a leg that reported nothing at all, which may be within
one long epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.sweep.records import FAILED, NO_PROGRESS, RecordFile, number, whole
from orchestrator.worker.ending import Ending

# A leg that was cut short, by a preemption say, shows little: so many of them count as one.
SHORT_LEGS = 10
# A leg is short below this share of the time limit.
SHORT = 0.5
# Clocks of the nodes and of the file server may differ by so much.
CLOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Leg:
    """One run of a trial that ended without an outcome.

    Attributes:
        began: seconds since the epoch.
        seconds: how long it is known to have run.
        took_up: the first step that it reported, None when it reported none.
        saved: it reported no step, but wrote something below the trial's checkpoint folder.
    """

    began: float
    seconds: float
    took_up: int | None
    saved: bool = False


def read_legs(files: Sequence[RecordFile], trial: str, checkpoints: Path, after: int = 0) -> list[Leg]:
    """Return a trial's legs in the order in which they began.

    Args:
        files: the record files in which it may have started.
        trial: its id.
        checkpoints: its folder.
        after: the submission up to which nothing counts any more: it failed in it, and a person asked for
            another run.
    """
    legs: list[Leg] = []
    for file in files:
        lines = [line for line in file.lines if line.get("trial") == trial]
        times = [number(line["time"]) for line in lines if "time" in line]
        steps = [whole(line.get("step")) for line in lines if line["kind"] == "report"]
        if times and whole(file.header.get("submission")) > after:
            legs.append(Leg(times[0], max(times) - times[0], steps[0] if steps else None))
    legs.sort(key=lambda leg: leg.began)
    reported = max((place for place, leg in enumerate(legs, 1) if leg.took_up is not None), default=0)
    silent = legs[reported:]
    if silent and _newest(checkpoints) >= silent[-1].began - CLOCK_SECONDS:
        # What the ones before it wrote it may have replaced.
        silent = [replace(leg, saved=True) for leg in silent]
    return [*legs[:reported], *silent]


def _newest(folder: Path) -> float:
    """Return when the newest file below a folder was written; 0 when there is none."""
    newest = 0.0
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                newest = max(newest, path.stat().st_mtime)
        except OSError:  # it was replaced just now
            continue
    return newest


def fruitless(legs: Sequence[Leg], timeout_min: float) -> int:
    """Count the legs at the end of a row that took up no further than the first of them did.

    A leg that was cut short, or that may be within a long epoch, counts one tenth (`SHORT_LEGS`).
    """
    steps = [-1 if leg.took_up is None else leg.took_up for leg in legs]
    row = legs[steps.index(max(steps)) :] if legs else ()
    whole_legs = sum(leg.seconds >= SHORT * 60 * timeout_min and not leg.saved for leg in row)
    return whole_legs + (len(row) - whole_legs) // SHORT_LEGS


def no_progress(legs: Sequence[Leg], timeout_min: float, allowed: int) -> Ending | None:
    """Return the ending of a trial that gets no further leg after leg; None while it may still get through.

    Args:
        legs: as `read_legs` gives them.
        timeout_min: the time limit of its tasks.
        allowed: so many legs in a row may gain nothing (`slurm.attempts`).
    """
    row = fruitless(legs, timeout_min)
    if row < max(1, allowed):
        return None
    steps = [leg.took_up for leg in legs if leg.took_up is not None]
    where = f"took up after step {max(steps)}, where one did before" if steps else "reported a step"
    return Ending(
        FAILED,
        error=f"it did not end within {len(legs)} legs of slurm.timeout_min: {timeout_min:g} minutes, and "
        f"none of the last {row} {where}. Save to trial.checkpoint_dir, and begin with what lies there; "
        "or raise slurm.timeout_min",
        cause=NO_PROGRESS,
    )
