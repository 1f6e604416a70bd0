"""The ladder: from a sweep's config to its plan, with every count and the price."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import replace
from pathlib import Path

from orchestrator.data.size import DatasetSize, trained_samples
from orchestrator.planning.cost import Price, phase_cost, total_cost
from orchestrator.planning.plan import Phase, Plan, Scale
from orchestrator.schema import SlurmConfig, StageConfig, SweepConfig, trials_at_once
from orchestrator.space import CHOICE, Parameter, advice
from orchestrator.sweep.directory import ENSEMBLE, FINAL, STAGE


def build_plan(config: SweepConfig, space: tuple[Parameter, ...], size: DatasetSize, folder: Path) -> Plan:
    """Work out the plan of a validated config.

    Args:
        config: the sweep, already checked by `validate`.
        space: its parsed ranges.
        size: of the dataset, with None for what is not known.
        folder: the user's folder.
    """
    price = Price.of(config)
    phases: list[Phase] = []
    for name, stage in config.stages.items():
        phases.append(_stage(config, name, stage, size, price, first=not phases))
    if config.final.top:
        phases.append(_final(config, size, price))
        if config.jobs.predict:
            phases.append(Phase(kind=ENSEMBLE, name=ENSEMBLE, trials=1, scale=phases[-1].scale))
    # Without final runs the largest stage is full scale; an amount of data may be a share or a count.
    full = phases[-1].scale if config.final.top else max(phases, key=lambda p: p.samples or 0).scale
    total = total_cost([phase.cost for phase in phases])
    trials = sum(phase.trials for phase in phases if phase.kind != ENSEMBLE)
    everything = phase_cost(price, trials, _samples(size, full, config), full.epochs or _job_epochs(config))
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
        warnings=tuple(advice(space) + _grid_advice(config, space)),
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
    )
    quarter, eighth = max(1, stage.trials // 4), stage.trials // 8
    survivors = 0 if first else stage.survivors if stage.survivors is not None else quarter
    controls = 0 if first else stage.controls if stage.controls is not None else eighth
    return _sized(
        config, size, price,
        Phase(
            kind=STAGE, name=name, trials=stage.trials, scale=scale, survivors=survivors, controls=controls,
            sampler=stage.sampler, keep=stage.keep, margin=stage.margin,
        ),
    )  # fmt: skip


def _final(config: SweepConfig, size: DatasetSize, price: Price) -> Phase:
    final = config.final
    scale = Scale(data=1.0, epochs=final.epochs, checkpoints=final.checkpoints)
    return _sized(
        config, size, price,
        Phase(kind=FINAL, name=FINAL, trials=final.top * final.seeds, scale=scale, survivors=final.top),
    )  # fmt: skip


def _sized(config: SweepConfig, size: DatasetSize, price: Price, phase: Phase) -> Phase:
    """Complete a phase by its samples, its cost, and how its trials are laid out in tasks."""
    samples = _samples(size, phase.scale, config)
    cost = phase_cost(price, phase.trials, samples, phase.scale.epochs or _job_epochs(config))
    batch = _batch(config.slurm, phase.trials, cost.seconds)
    tasks = math.ceil(phase.trials / batch)
    return replace(
        phase,
        samples=samples,
        cost=cost,
        batch=batch,
        tasks=tasks,
        array=min(tasks, config.slurm.tasks_at_once),
    )


def _batch(slurm: SlurmConfig, trials: int, seconds: float | None) -> int:
    """Return the trials of one task.

    A task is filled until it is worth its place in the queue, well within its time limit. Where a trial's
    length is not known, the trials are shared among the tasks that may run at once.
    """
    fair = math.ceil(trials / slurm.tasks_at_once)
    if slurm.executor == "local" or not seconds:
        return fair
    worth = min(slurm.task_minutes, 0.8 * slurm.timeout_min) * 60 * trials_at_once(slurm)
    return max(1, min(trials, math.floor(worth / (seconds / trials))))


def _samples(size: DatasetSize, scale: Scale, config: SweepConfig) -> int | None:
    """Return the training samples of one epoch at a scale; None where the dataset's size is not known."""
    chosen = list(scale.class_list) if scale.class_list is not None else scale.classes
    dataset = config.datasets
    return trained_samples(
        size, scale.data, chosen, dataset.get("split"),
        class_rule=scale.class_rule, seed=dataset.get("subset_seed", 0),
    )  # fmt: skip


def _job_epochs(config: SweepConfig) -> float | None:
    """Look up the epochs that the job's own config asks for, where the job says where they are."""
    node: object = config.jobs.config
    for part in config.jobs.scale.get("epochs", "").split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return float(node) if isinstance(node, int | float) else None


def _grid_advice(config: SweepConfig, space: tuple[Parameter, ...]) -> list[str]:
    varying = [p for p in space if p.kind != CHOICE or len(p.values) > 1]
    return [
        f"stages.{name}: a grid over {len(varying)} parameters gives each about "
        f"{stage.trials ** (1 / len(varying)):.1f} values; random or sobol covers them better"
        for name, stage in config.stages.items()
        if stage.sampler == "grid" and len(varying) >= 4
    ]
