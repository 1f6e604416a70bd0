"""Timing: how much of a trial is startup, told from when it reported its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from orchestrator.sweep.records import COMPLETED, number


@dataclass(slots=True)
class Steps:
    """What the reports of a trial that is under way say so far: how many, and when the outer ones came."""

    first: float = math.nan
    last: float = math.nan
    count: int = 0

    def add(self, time: float) -> None:
        """Take up a report."""
        if not self.count:
            self.first = time
        self.last = time
        self.count += 1


def startup_of(steps: Steps | None, line: Mapping[str, Any]) -> float | None:
    """Return the seconds of a trial that are not spent in its steps, or None where nothing tells.

    A step is taken to last as long as the mean between the first and the last report of its trial, so a trial
    with one report or none says nothing.

    Args:
        steps: its reports, from its start on.
        line: its outcome.
    """
    if line.get("state") != COMPLETED or steps is None or steps.count < 2:
        return None
    step = (steps.last - steps.first) / (steps.count - 1)
    startup = number(line.get("seconds")) - step * steps.count
    return max(0.0, startup) if math.isfinite(startup) else None


def startup_seconds(startups: Iterable[float]) -> float | None:
    """Return the mean of a phase's trials, None without any."""
    found = list(startups)
    return fmean(found) if found else None
