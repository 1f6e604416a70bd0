"""Spending: what the phases behind have taken, and by that what one trial of each costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.planning.budget import Budget, run_cost
from orchestrator.planning.cost import Price
from orchestrator.planning.plan import Phase, Plan
from orchestrator.sweep.facts import PhaseFacts
from orchestrator.sweep.records import COMPLETED


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What one phase has spent so far.

    `drawn` trials of so many `settings` are frozen, in `waves` waves. `whole` of them ran to their end in
    `whole_seconds` together; `partial` ended before (pruned, diverged, failed). The rest are taken to cost
    what a whole one does.
    """

    drawn: int = 0
    settings: int = 0
    waves: int = 0
    whole: int = 0
    whole_seconds: float = 0.0
    partial: int = 0
    partial_seconds: float = 0.0
    # of a trial, before its first epoch and after its last one; None where the reports don't tell
    startup_seconds: float | None = None

    @property
    def mean_seconds(self) -> float | None:
        """The seconds of a whole trial, None before the first one."""
        if self.whole and self.whole_seconds > 0:
            return self.whole_seconds / self.whole
        # None ran to its end: what those took that ended before is the least that one takes.
        return self.partial_seconds / self.partial if self.partial and self.partial_seconds > 0 else None

    @property
    def trials(self) -> float:
        """What was spent, in whole trials; of those that ended early the part that their seconds are."""
        pending = self.drawn - self.whole - self.partial
        if self.mean_seconds is None:
            return self.drawn
        return pending + self.whole + min(self.partial, self.partial_seconds / self.mean_seconds)


def spent(known: PhaseFacts, price: Price) -> Spent:
    """Add up what a phase has spent, from its records, in seconds of a stage's trials."""
    weight = price.weight(known.phase.kind)
    whole = [weight * o.seconds for o in known.outcomes.values() if o.state == COMPLETED]
    partial = [weight * o.seconds for o in known.outcomes.values() if o.state != COMPLETED]
    return Spent(
        drawn=len(known.trials),
        settings=len({trial.setting_id for trial in known.trials}),
        waves=known.waves,
        whole=len(whole),
        whole_seconds=_sum(whole),
        partial=len(partial),
        partial_seconds=_sum(partial),
        startup_seconds=None if known.startup_seconds is None else weight * known.startup_seconds,
    )


def _sum(seconds: list[float]) -> float:
    return sum(value for value in seconds if math.isfinite(value) and value > 0)


def run_costs(
    plan: Plan, measured: Mapping[str, Spent], budget: Budget, price: Price
) -> dict[str, float | None]:
    """Return what one trial of each phase costs, in the budget's unit; hours by what was measured."""
    if not budget.in_hours:
        return {phase.name: run_cost(phase, budget) for phase in plan.phases}
    seconds = {phase.name: _run_seconds(plan, phase, measured, price) for phase in plan.phases}
    return {name: None if s is None else s * price.share / 3600 for name, s in seconds.items()}


def used_so_far(plan: Plan, measured: Mapping[str, Spent], budget: Budget, price: Price) -> float:
    """Return what is spent, and what the trials that run now are taken to, in the budget's unit."""
    costs = run_costs(plan, measured, budget, price)
    used = 0.0
    for phase in plan.phases:
        past, cost = measured.get(phase.name, Spent()), costs[phase.name] or 0.0
        if budget.in_hours:
            pending = past.drawn - past.whole - past.partial
            used += (past.whole_seconds + past.partial_seconds) * price.share / 3600 + pending * cost
        else:
            used += past.trials * cost
    return used


def _run_seconds(plan: Plan, phase: Phase, measured: Mapping[str, Spent], price: Price) -> float | None:
    """Return the seconds of one trial, as if a stage's: its phase's mean, or a forecast.

    A forecast is made from the largest scale measured.
    The forecast is a startup and a rate: told apart by the trials' own reports, else by two scales, else as
    they were declared. Where nothing tells, all of it grows with the scale: rather too dear than too cheap.
    """
    if not phase.trains:
        return 0.0
    if (own := _mean(measured, phase)) is not None:
        return own
    timed = sorted(
        (p for p in plan.phases if p.share is not None and _mean(measured, p)), key=lambda p: p.share or 0.0
    )
    if not timed:
        return _declared(phase, price)
    last = timed[-1]
    mean, share = _mean(measured, last) or 0.0, last.share or 1.0
    startup = measured[last.name].startup_seconds
    smaller = next((p for p in reversed(timed) if (p.share or 0.0) < 0.99 * share), None)
    if startup is None and smaller is not None:
        rate = (mean - (_mean(measured, smaller) or 0.0)) / (share - (smaller.share or 0.0))
        startup = mean - max(0.0, rate) * share
    ahead, there = _declared(phase, price), _declared(last, price)
    if startup is None and ahead and there:
        return mean * ahead / there
    if phase.share is None:
        return None
    startup = min(max(0.0, startup or 0.0), mean)
    return startup + (mean - startup) * phase.share / share


def _mean(measured: Mapping[str, Spent], phase: Phase) -> float | None:
    return measured[phase.name].mean_seconds if phase.name in measured else None


def _declared(phase: Phase, price: Price) -> float | None:
    seconds = phase.cost.seconds
    return None if seconds is None else price.weight(phase.kind) * seconds / phase.runs
