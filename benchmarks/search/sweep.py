"""The sweep itself in the benchmark: the project's own planning code, trial by trial, with no cluster.

Each stage is drawn as `orchestrate advance` draws it (ranges narrowed from the stages before, agreement
between scales, promotion, new settings in waves), and each trial is a metered evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from meter import Meter, Outcome, Spent
from task import Task

from orchestrator.planning.narrowing.evidence import StageResults
from orchestrator.planning.narrowing.narrow import narrow
from orchestrator.planning.narrowing.trust import agreement
from orchestrator.planning.plan import Phase, Scale
from orchestrator.planning.promotion import Finished, Known, final_trials, wave_trials
from orchestrator.planning.sampling.samplers import Observation
from orchestrator.sweep.directory import FINAL, STAGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """A ladder: scales with their shares of the budget that is left beside the final runs."""

    scales: tuple[float, ...] = (1 / 27, 1 / 9, 1 / 3)
    shares: tuple[float, ...] = ()
    finals: float = 0.25
    waves: int = 4
    sampler: str = "model"
    survivors: float = 0.0
    controls: float = 0.0
    narrowing: bool = True
    fresh: bool = True


def run(task: Task, budget: float, seed: int, design: Design = Design()) -> Outcome:
    """Run one sweep and return the setting it ends with, trained at full scale."""
    meter = Meter(task, budget, seed)
    finals = min(max(1, round(design.finals * budget)), max(1, int(budget) - 1))
    scales = [scale for scale in design.scales if scale >= task.lowest * 0.99]
    shares = design.shares[-len(scales) :] or tuple(1.0 for _ in scales)
    explored = budget - finals
    space = task.space
    stages: list[StageResults] = []
    history: list[Observation] = []
    before: list[Finished] = []
    earlier: list[Finished] = []
    phase = None
    for place, scale in enumerate(scales):
        allowed = (explored - meter.spent) * shares[place] / sum(shares[place:])
        trials = int(allowed / task.snap(scale) + 1e-9)
        if trials < 1:
            continue
        if stages:
            trust = agreement(*stages[-2:]) if len(stages) > 1 else None
            if design.narrowing:
                space = narrow(space, stages, keep=0.25, margin=0.2, trust=trust)
        else:
            trust = None
        promoted = min(trials, round(design.survivors * trials)) if before else 0
        watched = min(trials - promoted, round(design.controls * trials)) if before else 0
        phase = Phase(
            kind=STAGE,
            name=f"s{place}",
            trials=trials,
            scale=Scale(data=scale),
            sampler="sobol" if design.sampler == "model" and not before else design.sampler,
            waves=max(1, min(design.waves, trials)),
            survivors=promoted,
            controls=watched,
        )
        own: list[Finished] = []
        for wave in range(phase.waves):
            known = Known(
                before=before, own=own, history=[*history, *_seen(own, scale)], trust=trust, drawn=len(own)
            )
            drawn = replace(phase, sampler=design.sampler) if wave else phase
            for spec in wave_trials(drawn, wave, space, seed, known):
                try:
                    error = meter.evaluate(dict(spec.params), scale)
                except Spent:
                    break
                own.append(Finished(spec=spec, objective=-error if math.isfinite(error) else -math.inf))
        stages.append(StageResults(name=phase.name, scale=scale, observations=tuple(_seen(own, scale))))
        history += _seen(own, scale)
        earlier, before = [*earlier, *before], own
    top = Phase(kind=FINAL, name=FINAL, trials=finals, scale=Scale(), survivors=1000)
    found = []
    for spec in final_trials(
        top, 1, seed, space, design.sampler, Known(before=before, earlier=earlier, history=history)
    ):
        try:
            found.append((meter.evaluate(dict(spec.params), 1.0), dict(spec.params)))
        except Spent:
            break
    best = min(found, key=lambda pair: pair[0])
    return Outcome(best[1], meter.spent)


def _seen(finished: list[Finished], scale: float) -> list[Observation]:
    return [Observation(item.spec.params, item.objective, scale, item.settled) for item in finished]


VARIANTS: dict[str, Callable[[Task, float, int], Outcome]] = {
    "sweep": run,
    "sweep-no-narrowing": partial(run, design=Design(narrowing=False)),
}
