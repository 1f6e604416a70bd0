"""A finished trial as planning sees it: what promotion, merit and the choice of final runs go by."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.sweep.directory import TrialSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A finished trial: its spec and objective, larger always better, -inf when it diverged."""

    spec: TrialSpec
    objective: float
    # False: stopped at `step`, so that the objective is only an early value
    settled: bool = True
    step: int = 0
