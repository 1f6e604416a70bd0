"""The ladder: from a sweep's config to its plan, with every count and the price."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from orchestrator.data.size import DatasetSize
from orchestrator.planning.cost import (
    FullScale,
    Price,
    epoch_samples,
    job_epochs,
    phase_cost,
    side_by_side,
    total_cost,
)
from orchestrator.planning.plan import Cost, Phase, Plan, Scale
from orchestrator.schema import (
    SlurmConfig,
    StageConfig,
    SweepConfig,
    final_runs,
    student_trials,
    with_checks,
)
from orchestrator.space import CHOICE, Parameter, advice
from orchestrator.sweep.directory import CHECKS, ENSEMBLE, FINAL, STAGE


def build_plan(
    config: SweepConfig,
    space: tuple[Parameter, ...],
    size: DatasetSize,
    folder: Path,
    *,
    auto: bool = False,
    notes: tuple[str, ...] = (),
) -> Plan:
    """Work out the plan of a validated config.

    Args:
        config: the sweep, already checked by `validate`.
        space: its parsed ranges.
        size: of the dataset, with None for what is not known.
        folder: the user's folder.
        auto: its stages were worked out from the budget.
        notes: how, in sentences.
    """
    top, _ = final_runs(config.final)
    price = Price.of(config)
    phases: list[Phase] = []
    for name, stage in config.stages.items():
        phases.append(_stage(config, name, stage, size, price, first=not phases))
    if with_checks(config):
        phases.insert(0, _checks(config, phases[0].scale))
    if top:
        phases.append(_final(config, size))
        if config.jobs.predict:
            phases.append(_ensemble(config, phases[-1], price))
    # Without final runs the largest stage is full scale; an amount of data may be a share or a count.
    full = phases[-1].scale if top else max(phases, key=lambda p: p.samples or 0).scale
    total = total_cost([phase.cost for phase in phases])
    trials = sum(phase.runs for phase in phases if phase.trains)
    everything = phase_cost(
        price, trials, epoch_samples(config, size, full), full.epochs or job_epochs(config)
    )
    share = None
    if total.trained_samples is not None and everything.trained_samples:
        share = total.trained_samples / everything.trained_samples
    return Plan(
        uid=uuid.uuid4().hex[:8],
        name=config.name,
        metric=config.metric.name,
        mode=config.metric.mode,
        created=time.time(),
        folder=str(folder),
        unit=price.unit,
        phases=tuple(phases),
        total=total,
        full_scale_share=share,
        warnings=tuple(advice(space) + _grid_advice(config, space) + _order_advice(phases)),
        budget=config.budget or "",
        auto=auto,
        notes=notes,
    )


def _stage(
    config: SweepConfig, name: str, stage: StageConfig, size: DatasetSize, price: Price, *, first: bool
) -> Phase:
    listed = tuple(stage.classes) if isinstance(stage.classes, list) else None
    scale = Scale(
        data=float(stage.data),
        classes=len(listed) if listed is not None else stage.classes,
        class_list=listed,
        class_rule=stage.class_rule,
        epochs=stage.epochs,
        validation_size=stage.validation_size,
        resolution=stage.resolution,
        augment=_augment(config, stage),
    )
    quarter, eighth = max(1, stage.trials // 4), stage.trials // 8
    survivors = 0 if first else stage.survivors if stage.survivors is not None else quarter
    controls = 0 if first else stage.controls if stage.controls is not None else eighth
    return _sized(
        config, size, price,
        Phase(
            kind=STAGE, name=name, trials=stage.trials, scale=scale, survivors=survivors, controls=controls,
            sampler=stage.sampler, keep=stage.keep, margin=stage.margin,
            waves=stage.waves, close=stage.close, prune=stage.prune, repeats=stage.repeats,
            tune=tuple(stage.tune),
        ),
    )  # fmt: skip


def _augment(config: SweepConfig, stage: StageConfig) -> bool | None:
    """Say whether a stage's trials change their inputs at random: by default not before all of the data.

    Few epochs on few samples don't tell what augmentation is worth, and it slows the fit down. Where it is
    itself searched, every stage has it.
    """
    if stage.augment is not None or "augment" not in config.jobs.scale:
        return stage.augment
    section = (config.jobs.scale["augment"] or "").rpartition(".")[0]
    searched = any(section and name.startswith(f"{section}.") for name in config.space)
    whole = stage.data == 1 and stage.classes is None
    return None if whole or searched else False


def _checks(config: SweepConfig, scale: Scale) -> Phase:
    """Return the checks, which see the first stage's data: a trial for them, and one for the range test."""
    trials = 1 + (config.checks.range_test is not None)
    return Phase(kind=CHECKS, name=CHECKS, trials=trials, scale=scale, batch=trials)


def _final(config: SweepConfig, size: DatasetSize) -> Phase:
    final, price = config.final, Price.of(config, FINAL)
    top, seeds = final_runs(final)
    kept = tuple(final.checkpoints) if isinstance(final.checkpoints, list) else final.checkpoints
    disk = None if final.disk_gb is None else final.disk_gb / (top * seeds)
    scale = Scale(data=1.0, epochs=final.epochs, checkpoints=kept, disk_gb=disk)
    return _sized(
        config, size, price,
        Phase(
            kind=FINAL, name=FINAL, trials=top * seeds, scale=scale, survivors=top, waves=final.waves or 1
        ),
    )  # fmt: skip


def _ensemble(config: SweepConfig, final: Phase, price: Price) -> Phase:
    """Return the ensemble: each run's predictions, the choice, students where wished for, the measurement."""
    students = student_trials(config.ensemble.student)
    sizes = (final.trials, 1, students, 1) if students else (final.trials, 1)
    epochs = config.ensemble.student.epochs or final.scale.epochs or job_epochs(config)
    cost = phase_cost(price, students, final.samples, epochs) if students else Cost()
    batch = math.ceil(final.trials / config.slurm.tasks_at_once)
    return Phase(
        kind=ENSEMBLE,
        name=ENSEMBLE,
        trials=sum(sizes),
        sizes=sizes,
        waves=len(sizes),
        scale=final.scale,
        samples=final.samples,
        cost=cost,
        batch=batch,
        tasks=sum(math.ceil(size / batch) for size in sizes),
        array=config.slurm.tasks_at_once,
    )


def _sized(config: SweepConfig, size: DatasetSize, price: Price, phase: Phase) -> Phase:
    """Complete a phase by its samples, its cost, and how its trials are laid out in tasks."""
    samples = epoch_samples(config, size, phase.scale)
    epochs = phase.scale.epochs or job_epochs(config)
    cost = phase_cost(price, phase.runs, samples, epochs)
    # A wave is what can run side by side.
    wave = max(phase.wave_sizes)
    slots = side_by_side(config, phase.kind)
    batch = _batch(config.slurm, wave, phase_cost(price, wave, samples, epochs).seconds, slots)
    if phase.kind == FINAL and config.final.runs_at_once is not None:
        # A task that holds fewer has nothing to share.
        batch = max(batch, min(slots, wave))
    tasks = sum(math.ceil(size / batch) for size in phase.wave_sizes)
    return replace(
        phase,
        samples=samples,
        cost=cost,
        share=FullScale.of(config, size).share(phase.scale, samples, epochs),
        batch=batch,
        tasks=tasks,
        array=min(tasks, config.slurm.tasks_at_once),
    )


def _batch(slurm: SlurmConfig, trials: int, seconds: float | None, slots: int) -> int:
    """Return the trials of one task.

    A task is filled until it is worth its place in the queue, well within its time limit. Where a trial's
    length is not known, the trials are shared among the tasks that may run at once.
    """
    fair = math.ceil(trials / slurm.tasks_at_once)
    if slurm.executor == "local" or not seconds:
        return fair
    worth = min(slurm.task_minutes, 0.8 * slurm.timeout_min) * 60 * slots
    return max(1, min(trials, math.floor(worth / (seconds / trials))))


def _grid_advice(config: SweepConfig, space: tuple[Parameter, ...]) -> list[str]:
    varying = [p for p in space if p.kind != CHOICE or len(p.values) > 1]
    return [
        f"stages.{name}: a grid over {len(varying)} parameters gives each about "
        f"{stage.trials ** (1 / len(varying)):.1f} values; random or sobol covers them better"
        for name, stage in config.stages.items()
        if stage.sampler == "grid" and len(varying) >= 4
    ]


def _order_advice(phases: list[Phase]) -> list[str]:
    """Warn of a stage whose trials cost more than the next one's: the ladder would go down there."""
    return [
        f"stages.{phase.name}: one of its trials trains {phase.share / after.share:.2g} times what one of "
        f"'{after.name}' does; a ladder goes from cheap stages to dear ones, so "
        + ("give it less data or fewer epochs" if after.kind == FINAL else "put the cheaper one first")
        for phase, after in pairwise(phases)
        if after.trains and phase.share and after.share and phase.share > 1.001 * after.share
    ]
