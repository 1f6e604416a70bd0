"""Where a sweep stands: counts, the best so far, what was spent and what is left. Read from facts alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.control.agreements import agreements
from orchestrator.control.decide import Decision
from orchestrator.control.finished import has_result
from orchestrator.planning.narrowing import trust
from orchestrator.planning.plan import Phase, Plan
from orchestrator.sweep.directory import FINAL, STAGE
from orchestrator.sweep.facts import Facts, PhaseFacts
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, PRUNED


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseStanding:
    """One phase: its trials by state, and its best. `hours` are GPU-hours or core-hours held by trials."""

    name: str
    kind: str
    planned: int
    # waves of trials: those that are drawn, and all
    wave: int = 0
    waves: int = 1
    completed: int = 0
    pruned: int = 0
    diverged: int = 0
    failed: int = 0
    running: int = 0
    best: float | None = None
    best_trial: str = ""
    best_params: Mapping[str, Any] | None = None
    hours: float = 0.0
    seconds: float = 0.0
    unreadable: int = 0

    @property
    def done(self) -> int:
        """Trials with a result."""
        return self.completed + self.pruned + self.diverged + self.failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One sweep. `seconds_left` is None while nothing was measured or declared."""

    name: str
    state: str
    message: str
    metric: str
    mode: str
    unit: str
    phases: tuple[PhaseStanding, ...]
    hours: float
    planned_hours: float | None
    seconds_left: float | None
    # tasks in the cluster's queue, by its own word for why they wait
    waiting: Mapping[str, int] = field(default_factory=dict)
    # how far rankings carry over, for each two phases that follow each other
    agreements: tuple[trust.Agreement, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {**asdict(self), "agreements": [trust.told(one) for one in self.agreements]}


def standing(
    facts: Facts, decision: Decision, attempts: int, slots: int, shares: Mapping[str, float]
) -> Standing:
    """Work out where a sweep stands.

    Args:
        facts: what the directory says.
        decision: what was decided from them.
        attempts: how often a trial is started before it is given up.
        slots: trials that run side by side in a task.
        shares: GPUs (or cores) that one trial holds, by the kind of its phase.
    """
    plan = facts.plan
    phases = tuple(_phase(known, plan, attempts, shares) for known in facts.phases)
    return Standing(
        name=plan.name,
        state=decision.state,
        message=decision.message or facts.note or _without_result(facts),
        metric=plan.metric,
        mode=plan.mode,
        unit=plan.unit,
        phases=phases,
        hours=sum(phase.hours for phase in phases),
        planned_hours=plan.total.hours,
        seconds_left=_seconds_left(plan, phases, slots),
        waiting=decision.waiting,
        agreements=agreements(plan, facts.phases),
    )


def _without_result(facts: Facts) -> str:
    """Say which stages gave nothing to go by, and what was done without them; empty where all gave some."""
    metric = facts.plan.metric
    ended = [k for k in facts.phases if k.phase.kind == STAGE and k.outcomes]
    empty = [k.phase.name for k in ended if len(k.outcomes) == len(k.trials) and not has_result(k, metric)]
    if not empty:
        return ""
    names = " or ".join(f"'{name}'" for name in empty)
    told = f"no trial of {names} gave a finite {metric}"
    sound = [known.phase.name for known in ended if has_result(known, metric)]
    if sound and ended[-1].phase.name in empty and any(k.phase.kind == FINAL for k in facts.phases):
        told += f": the final runs take the settings of '{sound[-1]}'"
    return told


def _phase(known: PhaseFacts, plan: Plan, attempts: int, shares: Mapping[str, float]) -> PhaseStanding:
    phase = known.phase
    given_up = known.given_up(attempts)
    states = Counter(outcome.state for outcome in known.outcomes.values())
    seconds = sum(outcome.seconds for outcome in known.outcomes.values())
    sign = 1 if plan.mode == "max" else -1
    ranked = (
        (sign * outcome.metrics[plan.metric], outcome.trial)
        for outcome in known.outcomes.values()
        if outcome.state == COMPLETED and math.isfinite(outcome.metrics.get(plan.metric, math.nan))
    )
    best = max(ranked, default=(0.0, ""))[1]
    begun = {trial for trials in known.started.values() for trial in trials}
    lost = {t for s in known.submissions for index in s.losses for t in s.intent.tasks[index]}
    return PhaseStanding(
        name=phase.name,
        kind=phase.kind,
        planned=known.planned,
        wave=known.waves,
        waves=len(phase.wave_sizes),
        completed=states[COMPLETED],
        pruned=states[PRUNED],
        diverged=states[DIVERGED],
        failed=states[FAILED] + len(given_up),
        running=len(begun - set(known.outcomes) - lost),
        best=known.outcomes[best].metrics[plan.metric] if best else None,
        best_trial=best,
        best_params=next((dict(t.params) for t in known.trials if t.trial_id == best), None),
        hours=seconds * shares[phase.kind] / 3600,
        seconds=seconds,
        unreadable=known.unreadable,
    )


def _seconds_left(plan: Plan, phases: tuple[PhaseStanding, ...], slots: int) -> float | None:
    """Estimate from what finished trials took, and the plan's price corrected by it for the phases ahead."""
    estimated = measured = 0.0
    for phase, now in zip(plan.phases, phases, strict=True):
        if phase.cost.seconds is not None and now.done:
            estimated += phase.cost.seconds / phase.runs * now.done
            measured += now.seconds
    factor = measured / estimated if estimated else 1.0
    left = 0.0
    for phase, now in zip(plan.phases, phases, strict=True):
        todo = now.planned - now.done
        if todo <= 0 or not phase.trains:
            continue
        one = now.seconds / now.done if now.done else _one_trial(phase, factor)
        if one is None:
            return None
        left += todo * one / min(todo, phase.array * slots)
    return left


def _one_trial(phase: Phase, factor: float) -> float | None:
    return None if phase.cost.seconds is None else phase.cost.seconds / phase.runs * factor
