"""The sweep itself in the benchmark: the project's own planning code, trial by trial, with no cluster.

The ladder is that of `stages: auto` with the budget in trainings. Each stage is drawn as `orchestrate
advance` draws it (ranges narrowed from the stages before, agreement between scales, promotion, new settings
in waves), and each trial is a metered evaluation at the stage's scale.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from meter import Meter, Outcome, Spent
from task import Task

from orchestrator.planning import auto
from orchestrator.planning.auto import AutoLadder, AutoStage, auto_stages
from orchestrator.planning.finished import Finished
from orchestrator.planning.narrowing.evidence import StageResults
from orchestrator.planning.narrowing.narrow import narrow
from orchestrator.planning.narrowing.trust import agreement
from orchestrator.planning.plan import Phase, Scale
from orchestrator.planning.promotion import SURVIVOR, Known, final_trials, wave_trials
from orchestrator.planning.sampling.observation import Observation
from orchestrator.schema import StageConfig
from orchestrator.space import CHOICE, Parameter
from orchestrator.sweep.directory import FINAL, STAGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What of the sweep is left out."""

    narrowing: bool = True
    # without it the samplers that learn nothing and ranks decide
    model: bool = True
    # without it every stage has new settings only
    promotion: bool = True
    # without new settings after the first stage, ranges don't matter either: successive halving over scales
    fresh: bool = True
    # as a person may who guesses wrong: each number is declared with one half of its range, and may leave it
    halved: bool = False


@dataclass(slots=True)
class Progress:
    """What a sweep knows so far."""

    space: tuple[Parameter, ...]
    stages: list[StageResults] = field(default_factory=list)
    before: list[Finished] = field(default_factory=list)
    earlier: list[Finished] = field(default_factory=list)

    @property
    def history(self) -> list[Observation]:
        return [seen for stage in self.stages for seen in stage.observations]


def run(task: Task, budget: float, seed: int, variant: Variant = Variant()) -> Outcome:
    """Run one sweep and return the setting it ends with, trained at full scale."""
    space = _halved(task.space, seed) if variant.halved else task.space
    meter, progress = Meter(task, budget, seed), Progress(space)
    epochs = len(task.levels) if task.resumable else None
    ladder = auto_stages(budget, None, epochs, data=not task.resumable, seeds=1)
    for stage in ladder.stages:
        _stage(meter, progress, stage, variant, seed)
    finals = _final(meter, progress, ladder, variant, seed)
    return Outcome(max(finals, key=lambda item: item.objective).spec.params, meter.spent)


def _final(
    meter: Meter, progress: Progress, ladder: AutoLadder, variant: Variant, seed: int
) -> list[Finished]:
    phase = Phase(
        kind=FINAL, name=FINAL, trials=ladder.top, scale=Scale(), survivors=ladder.top,
        waves=ladder.final_waves,
    )  # fmt: skip
    sampler = auto.SAMPLER if variant.model else "sobol"
    own: list[Finished] = []
    with suppress(Spent):
        for wave in range(len(phase.wave_sizes)):
            known = Known(
                before=progress.before, earlier=progress.earlier, own=own, drawn=[item.spec for item in own],
                history=[*progress.history, *_seen(own, 1.0)],
            )  # fmt: skip
            for spec in final_trials(phase, 1, seed, progress.space, sampler, known, wave):
                own.append(Finished(spec=spec, objective=-meter.evaluate(spec.params, 1.0)))
    return own


def _stage(meter: Meter, progress: Progress, stage: AutoStage, variant: Variant, seed: int) -> None:
    trust = agreement(*progress.stages[-2:]) if len(progress.stages) > 1 else None
    if progress.stages and variant.narrowing and variant.fresh:
        config = StageConfig(trials=stage.trials)
        progress.space = narrow(
            progress.space, progress.stages, keep=config.keep, margin=config.margin, trust=trust
        )
    phase = Phase(
        kind=STAGE, name=stage.name, trials=stage.trials, scale=Scale(data=stage.rung.scale),
        sampler=auto.SAMPLER if variant.model else "sobol", waves=stage.waves if variant.model else 1,
        survivors=_survivors(stage, variant) if progress.before else 0,
        controls=stage.controls * variant.promotion * variant.fresh,
        repeats=stage.repeats * variant.fresh,
    )  # fmt: skip
    own: list[Finished] = []
    for wave in range(len(phase.wave_sizes)):
        known = Known(
            before=progress.before if variant.promotion else [], earlier=progress.earlier, own=own,
            history=[*progress.history, *_seen(own, stage.rung.scale)], trust=trust,
            drawn=[item.spec for item in own], scale=stage.rung.scale,
        )  # fmt: skip
        for spec in wave_trials(phase, wave, progress.space, seed, known):
            if variant.fresh or not progress.before or spec.origin == SURVIVOR:
                with suppress(Spent):
                    error = meter.evaluate(spec.params, stage.rung.scale)
                    own.append(Finished(spec=spec, objective=-error))
    progress.stages.append(
        StageResults(
            name=stage.name, scale=stage.rung.scale, observations=tuple(_seen(own, stage.rung.scale))
        )
    )
    progress.earlier += progress.before
    progress.before = own


def _halved(space: tuple[Parameter, ...], seed: int) -> tuple[Parameter, ...]:
    """Return the ranges with the lower or the upper half of each number's, drawn by the seed."""
    upper = np.random.default_rng(seed).integers(2, size=len(space)) * 0.5
    return tuple(
        parameter if parameter.kind == CHOICE
        else replace(parameter, low=parameter.from_unit(low), high=parameter.from_unit(low + 0.5))
        for parameter, low in zip(space, upper.tolist(), strict=True)
    )  # fmt: skip


def _survivors(stage: AutoStage, variant: Variant) -> int:
    if not variant.promotion:
        return 0
    if not variant.fresh:
        return stage.trials
    # Where nothing is learned, as many settings go on as a stage of the sweep file has by default.
    return stage.survivors if variant.model else max(1, stage.trials // 4)


def _seen(finished: list[Finished], scale: float) -> list[Observation]:
    return [Observation(item.spec.params, item.objective, scale, item.settled) for item in finished]


VARIANTS: dict[str, Callable[[Task, float, int], Outcome]] = {
    "sweep": run,
    "sweep-no-narrowing": partial(run, variant=Variant(narrowing=False)),
    "sweep-no-model": partial(run, variant=Variant(model=False)),
    "sweep-no-promotion": partial(run, variant=Variant(promotion=False)),
    "sweep-scales-alone": partial(run, variant=Variant(model=False, narrowing=False, fresh=False)),
    "sweep-half-ranges": partial(run, variant=Variant(halved=True)),
    "sweep-half-ranges-no-narrowing": partial(run, variant=Variant(halved=True, narrowing=False)),
}
