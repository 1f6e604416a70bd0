"""Timing: how much of a trial is startup, told from when it reported its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean

from orchestrator.sweep.records import COMPLETED, RecordFile, number


def startup_seconds(files: Iterable[RecordFile]) -> float | None:
    """Return the mean seconds of a trial that are not spent in its steps, or None where nothing tells.

    A step is taken to last as long as the mean between the first and the last report of its trial, so trials
    with one report or none say nothing.
    """
    startups = []
    for file in files:
        reports: dict[str, list[float]] = {}
        for line in file.lines:
            trial = str(line.get("trial"))
            if line["kind"] == "start":
                reports[trial] = []
            elif line["kind"] == "report" and trial in reports:
                reports[trial].append(number(line.get("time")))
            elif line["kind"] == "outcome" and line.get("state") == COMPLETED:
                times, seconds = reports.get(trial, []), number(line.get("seconds"))
                if len(times) < 2:
                    continue
                step = (times[-1] - times[0]) / (len(times) - 1)
                startup = seconds - step * len(times)
                if math.isfinite(startup):
                    startups.append(max(0.0, startup))
    return fmean(startups) if startups else None
