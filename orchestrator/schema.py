"""The schema of a sweep file: every key with its type, its default and what it means."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

SAMPLERS = ("sobol", "random", "tpe", "grid")
CLASS_RULES = ("first", "random")
MEMBERS = ("seeds", "settings", "checkpoints")
COMBINE = ("greedy", "average")
GROUPS = ("jobs", "datasets", "slurm")
SCALE_KEYS = ("data", "classes", "class_rule", "epochs", "validation_size", "seed", "checkpoints")


@dataclass
class MetricConfig:
    """What the sweep optimizes."""

    # a key of the dictionary that the training function returns
    name: str = MISSING
    # max or min
    mode: str = "max"


@dataclass
class StageConfig:
    """One rung of the ladder."""

    # settings that run in this stage, the promoted ones among them
    trials: int = MISSING
    # how much of the training data: a fraction up to 1.0, or a count of samples from 2 up
    data: Any = 1.0
    # how many classes, or a list of them; null is all
    classes: Any = None
    # which classes, when a count is given: first, random
    class_rule: str = "first"
    # epochs of each trial; null leaves the job's own
    epochs: int | None = None
    # validation samples to measure on; null is all
    validation_size: int | None = None
    # sobol, random, tpe, grid
    sampler: str = "sobol"
    # the share of this stage's trials that counts as good when the next ranges are drawn
    keep: float = 0.25
    # how much wider than the good trials the next range is, as a share of their spread
    margin: float = 0.2
    # best settings that run again in the next stage; null is a quarter of its trials
    survivors: int | None = None
    # settings not among the best that run again too, so that the ranking can be compared; null is an eighth
    controls: int | None = None


@dataclass
class FinalConfig:
    """Full-scale runs of the best settings."""

    # settings; 0 leaves the final runs out
    top: int = 3
    # runs of each setting
    seeds: int = 3
    # epochs of each; null leaves the job's own
    epochs: int | None = None
    # checkpoints kept along each run: the candidates of the ensemble
    checkpoints: int = 5


@dataclass
class EnsembleConfig:
    """How checkpoints of the final runs are combined."""

    # which kinds may differ between members
    members: list[str] = field(default_factory=lambda: list(MEMBERS))
    # greedy or average
    combine: str = "greedy"
    # the most members, counted with repetition
    max_members: int = 20
    # accuracy or log_loss; null follows the metric's name
    score: str | None = None


@dataclass
class CostConfig:
    """What one trial costs, for the price in `orchestrate plan`. Null: not known before the first trials."""

    # seconds that do not depend on the scale
    startup_seconds: float | None = None
    # seconds for each sample trained, on one GPU or core
    sample_seconds: float | None = None


@dataclass
class JobConfig:
    """The training function and its config."""

    # dotted path of `def train(config, trial)`
    _target_: str = MISSING
    # dotted path of `def predict(config, checkpoint, split)`; without it there is no ensemble
    predict: str | None = None
    # what the function gets; the keys of `space` are dotted paths in it
    config: dict[str, Any] = field(default_factory=dict)
    # where in `config` the planner writes a stage's scale: data, classes, class_rule, epochs, ...
    scale: dict[str, str] = field(default_factory=dict)
    # hard limits [low, high] of parameters, null for none: a range never moves past them
    limits: dict[str, Any] = field(default_factory=dict)
    cost: CostConfig = field(default_factory=CostConfig)


@dataclass
class SlurmConfig:
    """Where tasks run, and with what."""

    # slurm, or local for this machine
    executor: str = "local"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_task: int = 0
    # 0, on this machine alone: all of its cores
    cpus_per_task: int = 1
    mem_gb: float | None = None
    # the time limit of a task
    timeout_min: int = 60
    # tasks of one stage that run side by side
    tasks_at_once: int = 1
    # trials that run side by side in a task, sharing its GPU; 0 is one for each of its cores
    trials_at_once: int = 1
    # a task is filled with trials until it is worth this much of the queue
    task_minutes: float = 10.0
    # how often a trial is started again when the cluster, not the trial, ended it
    attempts: int = 3
    # shell lines before python: modules, conda
    setup: list[str] = field(default_factory=list)
    # the python of the tasks; null is the one that submits
    python: str | None = None
    # any other sbatch flag, by its long name
    sbatch: dict[str, Any] = field(default_factory=dict)


@dataclass
class SweepConfig:
    """A sweep file (the schema behind `defaults: [sweep]`)."""

    name: str = MISSING
    # where the sweep lives; null is sweeps/NAME below the current directory
    dir: str | None = None
    seed: int = 0
    metric: MetricConfig = field(default_factory=MetricConfig)
    # what may vary, in Hydra's sweep grammar; keys are dotted paths in the job's config
    space: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, StageConfig] = field(default_factory=dict)
    final: FinalConfig = field(default_factory=FinalConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    jobs: JobConfig = field(default_factory=JobConfig)
    datasets: dict[str, Any] = field(default_factory=dict)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)


def sweep_directory(config: SweepConfig) -> Path:
    """Return where a sweep lives."""
    return Path(os.path.expanduser(config.dir)) if config.dir else Path("sweeps") / config.name


def task_cores(slurm: SlurmConfig) -> int:
    """Return the cores of a task; 0 in the config is all that this process may use."""
    return slurm.cpus_per_task or len(os.sched_getaffinity(0))


def trials_at_once(slurm: SlurmConfig) -> int:
    """Return how many trials share a task."""
    return slurm.trials_at_once or task_cores(slurm)
