"""The schema of a sweep file: every key with its type, its default and what it means."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

SAMPLERS = ("sobol", "random", "grid", "tpe", "gp", "cmaes", "model")
CLASS_RULES = ("first", "random", "confusable")
MEMBERS = ("seeds", "settings", "checkpoints", "models", "averages")
COMBINE = ("auto", "average", "logits", "greedy", "blend", "stacking")
SCORES = {"accuracy": "max", "log_loss": "min", "mse": "min", "mae": "min"}
RESULTS = ("last", "best")
MOMENTS = ("best", "last", "cycles", "every")
DEFAULT_TOP, DEFAULT_SEEDS = 3, 3
GROUPS = ("jobs", "datasets", "slurm")
SCALE_KEYS = (
    *("data", "classes", "class_rule", "epochs", "validation_size", "resolution", "augment"),
    *("seed", "checkpoints", "disk_gb", "teacher", "teacher_temperature", "teacher_weight"),
)


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
    # which classes, when a count is given: first, random, confusable
    class_rule: str = "first"
    # epochs of each trial; null leaves the job's own
    epochs: int | None = None
    # validation samples to measure on; null is all
    validation_size: int | None = None
    # pixels of a side that images are resized to; null is the dataset's own
    resolution: int | None = None
    # random changes of the training inputs; null: as the job's config has them, and none before full scale
    augment: bool | None = None
    # sobol, random, grid; of those that learn: tpe, gp (Gaussian process), cmaes, model
    sampler: str = "model"
    # the share of this stage's trials that counts as good when the next ranges are drawn
    keep: float = 0.25
    # how much wider than the good trials the next range is, as a share of their spread
    margin: float = 0.2
    # best settings that run again in the next stage; null is a quarter of its trials
    survivors: int | None = None
    # settings not among the best that run again too, so that the ranking can be compared; null is an eighth
    controls: int | None = None
    # the trials are drawn in so many waves, each after the results of the waves before
    waves: int = 1
    # with this share of its trials in, the next stage begins; stragglers run on and still count later.
    # 1.0 waits for all: the trials are then the same whatever the timing
    close: float = 1.0
    # stop a trial that is not among the best 1/prune at a rung of its epochs (3 is usual); which ones these
    # are depends on the order in which they come by. 0 stops none
    prune: float = 0.0
    # further runs of the best settings, with other seeds, after the stage's trials
    repeats: int = 0
    # the parameters to tune, all others held at their best so far; empty is all, [auto] those that were
    # measured to matter
    tune: list[str] = field(default_factory=list)


@dataclass
class FinalConfig:
    """Full-scale runs of the best settings."""

    # settings; 0 leaves the final runs out; null is 3, or what the budget pays for with `stages: auto`
    top: int | None = None
    # runs of each setting; null as for top
    seeds: int | None = None
    # the settings are chosen in so many parts, each from what the runs before gave; null is 1, or with
    # `stages: auto`, where top is null too, up to 4
    waves: int | None = None
    # with `stages: auto`: the share of the budget that is left for these runs; null is 0.3 of a small budget,
    # up to 0.5 of one of 20 trainings or more, or what top and seeds cost where both are given
    share: float | None = None
    # epochs of each; null leaves the job's own
    epochs: int | None = None
    # checkpoints kept along each run, the candidates of the ensemble: how many, or the moments, such as
    # [best, last, cycles, every 10]; cycles: the end of each cycle of a cyclical schedule
    checkpoints: Any = 5
    # what the checkpoints of all these runs may take of the disk; null: no limit
    disk_gb: float | None = None
    # a parameter: among the settings are the best of each of its values, such as of model.name
    of_each: str | None = None
    # nodes that train one run together
    nodes: int = 1
    # GPUs of each of these nodes, with a process for each; null: slurm.gpus_per_task, and one process
    gpus_per_node: int | None = None
    # processes on each node; null: one for each of gpus_per_node. On CPUs say it here
    processes_per_node: int | None = None
    # runs that share a task's GPU; null: slurm.trials_at_once; auto: as many as fit, by the memory that the
    # stages' trials took
    runs_at_once: Any = None


@dataclass
class StudentConfig:
    """One small network that is trained on what the ensemble predicts."""

    # train it
    enabled: bool = False
    # sizes to try, by parameter: {model.width: [8, 16, 32]}; empty: the best single model's own
    sizes: dict[str, Any] = field(default_factory=dict)
    # runs of each size
    seeds: int = 1
    # epochs of each; null: as the final runs
    epochs: int | None = None
    # how much softer the ensemble's probabilities are made
    temperature: float = 2.0
    # the share of the loss that is against the ensemble; the rest is against the labels
    weight: float = 0.5
    # the smallest size is taken whose score is within this of the best size's
    tolerance: float = 0.005


@dataclass
class EnsembleConfig:
    """How checkpoints of the final runs are combined."""

    # which kinds may differ between members
    members: list[str] = field(default_factory=lambda: list(MEMBERS))
    # average, logits, greedy, blend, stacking; auto: the one that nested validation finds best
    combine: str = "auto"
    # the most members, counted with repetition
    max_members: int = 20
    # greedy selection is repeated on so many random halves of the candidates; 1: once, on all
    bags: int = 10
    # folds of the nested validation
    folds: int = 5
    # accuracy, log_loss, mse, mae; null follows the metric's name
    score: str | None = None
    # the key of the job's config that tells one kind of model from another
    model_key: str = "model.name"
    student: StudentConfig = field(default_factory=StudentConfig)


@dataclass
class CostConfig:
    """What one trial costs, for the price in `orchestrate plan`. Null: not known before the first trials."""

    # seconds that do not depend on the scale
    startup_seconds: float | None = None
    # seconds for each sample trained, on one GPU or core
    sample_seconds: float | None = None


@dataclass
class ChecksConfig:
    """Sanity checks of the set-up, run before the first stage has cost anything."""

    # null: where the job has a `setup`
    enabled: bool | None = None
    # checks to leave out, by their id: [D3, D7]
    skip: list[str] = field(default_factory=list)
    # the accuracy that people have on the task, to compare the baselines with
    human_accuracy: float | None = None
    # the parameter, such as optimizer.lr, whose first range is where the declared one and that of a
    # learning-rate range test meet; null: no such test
    range_test: str | None = None


@dataclass
class MetricsConfig:
    """Where the metrics of a command are found: in its output, in a file, in TensorBoard's event files."""

    # regular expressions matched against each line of the output, by metric; % stands for a number. The one
    # called `step` gives the step, and stands in the same line or in one before: {step: 'epoch %'}
    output: dict[str, str] = field(default_factory=dict)
    # a file of JSON lines (.jsonl, .json) or of values with commas or tabs between (.csv, .tsv), below the
    # trial's checkpoint_dir
    file: str | None = None
    # the folder of TensorBoard's event files, below the trial's checkpoint_dir
    tensorboard: str | None = None
    # the field of `file` that holds the step; null: the first of step, epoch, iteration, global_step
    step: str | None = None
    # which step's metrics are the trial's result: last, or best by the sweep's metric
    result: str = "last"


@dataclass
class ResumeConfig:
    """How a command goes on where an interrupted attempt ended."""

    # a file, or a pattern such as *.ckpt, below the trial's checkpoint_dir, left by an interrupted attempt
    when: str | None = None
    # words that the command of such an attempt has at its end: --resume {checkpoint_dir}/last.pt
    add: Any = None


@dataclass
class JobConfig:
    """What a trial runs, a training function or a command, and its config."""

    # dotted path of `def train(config, trial)`; null where there is a command
    _target_: str | None = MISSING
    # a program and its arguments in place of a function, as text or as a list: python train.py --lr {lr}.
    # In braces: a key of `config`; or checkpoint_dir, config_file, python, seed, snapshot, stage, trial
    command: Any = None
    # environment variables of the command, with braces as above
    environment: dict[str, Any] = field(default_factory=dict)
    # the trial's config is written for the command into a file of this name, .json or .yaml: {config_file}
    config_file: str | None = None
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    # dotted path of `def predict(config, checkpoint, split)`; without it there is no ensemble
    predict: str | None = None
    # dotted path of `def setup(config)`, which gives model, loss, inputs and targets to the sanity checks
    setup: str | None = None
    # what the function gets; the keys of `space` are dotted paths in it
    config: dict[str, Any] = field(default_factory=dict)
    # where in `config` the planner writes a stage's scale: data, classes, class_rule, epochs, ...; null:
    # nowhere, the function takes it from the trial (trial.subset, trial.scale)
    scale: dict[str, str | None] = field(default_factory=dict)
    # options of config groups by the parameter that chooses: {optimizer: {sgd: {...}, adam: {...}}}; files
    # such as optimizer/sgd.yaml beside the sweep file are put here when it is planned
    groups: dict[str, Any] = field(default_factory=dict)
    # hard limits [low, high] of parameters, null for none: a range never moves past them
    limits: dict[str, Any] = field(default_factory=dict)
    cost: CostConfig = field(default_factory=CostConfig)


@dataclass
class SlurmConfig:
    """Where tasks run, and with what."""

    # slurm, or local for this machine
    executor: str = "local"
    # one, or several: [a100, h100], or as SLURM writes them: a100,h100
    partition: Any = None
    # who pays; null is your default account
    account: str | None = None
    # quality of service; null is the account's default
    qos: str | None = None
    # features of the nodes: a100|h100
    constraint: str | None = None
    # GPUs of each task; a trial gets them all unless trials_at_once says otherwise
    gpus_per_task: int = 0
    # the kind of GPU, as the cluster names it: a100
    gpu_type: str | None = None
    # whole nodes, shared with no other job
    exclusive: bool = False
    # 0, on this machine alone: all of its cores
    cpus_per_task: int = 1
    # memory of a task; null is the cluster's default
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
    # what a trial that ran out of memory is run again with, once: {mem_gb: 64, trials_at_once: 1}
    on_out_of_memory: dict[str, Any] = field(default_factory=dict)
    # a trial that shows no sign of life for so long is taken to hang and is ended; null: never
    quiet_minutes: float | None = None
    # array tasks of this sweep in the queue at once; null is what the cluster's limits allow
    max_queued: int | None = None
    # shell lines before python: modules, conda
    setup: list[str] = field(default_factory=list)
    # the python of the tasks, or a command that starts one: apptainer exec image.sif python3; null is the
    # one that submits
    python: str | None = None
    # any other sbatch flag, by its long name; one without a value is true
    sbatch: dict[str, Any] = field(default_factory=dict)
    # what the small jobs of `orchestrate submit` ask for instead: {partition: cpu, account: mine}; they have
    # one core and no GPU, and take partition, account, qos and setup from above
    driver: dict[str, Any] = field(default_factory=dict)


@dataclass
class ResultsConfig:
    """Where records are read into tables."""

    # threads, of the process that does it; the address of a Dask scheduler, such as tcp://host:8786; or
    # slurm, jobs that ask for what slurm.driver says, with slurm's cpus_per_task, mem_gb and timeout_min, and
    # no GPU
    dask: str = "threads"
    # with slurm: how many jobs
    jobs: int = 2
    # fewer megabytes of new records than this are read by threads all the same
    least_mb: float = 100.0
    # how long to wait for a first worker
    wait_seconds: float = 300.0
    # with slurm: the network interface, such as ib0, by which the jobs reach this process; null is Dask's
    # choice
    interface: str | None = None


@dataclass
class SweepConfig:
    """A sweep file (the schema behind `defaults: [sweep]`)."""

    # what the sweep is called
    name: str = MISSING
    # where the sweep lives; null is sweeps/NAME below the current directory
    dir: str | None = None
    # the same seed draws the same settings, subsets and initial values
    seed: int = 0
    metric: MetricConfig = field(default_factory=MetricConfig)
    # what may vary, in Hydra's sweep grammar; keys are dotted paths in the job's config
    space: dict[str, Any] = field(default_factory=dict)
    # conditions by parameter, expressions over others: it is searched only where they hold
    when: dict[str, Any] = field(default_factory=dict)
    # keys of the job's config that are computed from parameters, by an expression
    tied: dict[str, Any] = field(default_factory=dict)
    # settings tried first in the first stage: mappings of parameters, YAML files that hold a list of them, or
    # a past Optuna study's best trials: {optuna: sqlite:///past.db, study: NAME, best: 5}. What a setting
    # leaves out is as in the job's config
    start_from: list[Any] = field(default_factory=list)
    # the most that all of it may cost: 40 gpu-hours, 12 core-hours, 3e8 samples, 20 trainings (at full scale)
    budget: str | None = None
    # the ladder, from the cheapest stage up; the text auto has it worked out from the budget
    stages: dict[str, StageConfig] = field(default_factory=dict)
    checks: ChecksConfig = field(default_factory=ChecksConfig)
    final: FinalConfig = field(default_factory=FinalConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    jobs: JobConfig = field(default_factory=JobConfig)
    # the dataset, one of datasets/*.yaml or your own; the job finds it at config.dataset
    datasets: dict[str, Any] = field(default_factory=dict)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    results: ResultsConfig = field(default_factory=ResultsConfig)


def final_runs(final: FinalConfig) -> tuple[int, int]:
    """Return how many settings the final runs have, and how many runs each of them."""
    top = DEFAULT_TOP if final.top is None else final.top
    return top, DEFAULT_SEEDS if final.seeds is None else final.seeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """How many processes train one trial together, and where."""

    nodes: int = 1
    per_node: int = 1
    gpus_per_node: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return self.nodes * self.per_node


def processes(config: SweepConfig, kind: str) -> Processes:
    """Return the processes of one trial of a phase: more than one in the final runs alone, where declared."""
    final, gpus = config.final, config.slurm.gpus_per_task
    if kind != "final":
        return Processes(gpus_per_node=gpus)
    per_node = final.processes_per_node or final.gpus_per_node or 1
    here = gpus if final.gpus_per_node is None else final.gpus_per_node
    return Processes(nodes=final.nodes, per_node=per_node, gpus_per_node=here)


def student_sizes(student: StudentConfig) -> list[dict[str, Any]]:
    """Return the sizes of the students that are tried: every combination of the declared values."""
    if not student.enabled:
        return []
    return [
        dict(zip(student.sizes, values, strict=True)) for values in itertools.product(*student.sizes.values())
    ]


def student_trials(student: StudentConfig) -> int:
    """Return how many trials the students take: each size and seed, taught by the ensemble and by labels."""
    return 2 * student.seeds * len(student_sizes(student))


def sweep_directory(config: SweepConfig) -> Path:
    """Return where a sweep lives."""
    return Path(os.path.expanduser(config.dir)) if config.dir else Path("sweeps") / config.name


def job_functions(job: JobConfig) -> dict[str, str]:
    """Return the dotted paths of the functions that a job names, by their keys."""
    paths = {"jobs._target_": job._target_, "jobs.predict": job.predict, "jobs.setup": job.setup}
    return {key: path for key, path in paths.items() if path is not None}


def with_checks(config: SweepConfig) -> bool:
    """Say whether the set-up is checked before the first stage."""
    wanted = config.checks.enabled
    return bool(config.jobs.setup) if wanted is None else wanted


def task_cores(slurm: SlurmConfig) -> int:
    """Return the cores of a task; 0 in the config is all that this process may use."""
    return slurm.cpus_per_task or len(os.sched_getaffinity(0))


def trials_at_once(slurm: SlurmConfig) -> int:
    """Return how many trials share a task."""
    return slurm.trials_at_once or task_cores(slurm)


def larger(slurm: SlurmConfig) -> SlurmConfig:
    """Return what trials that ran out of memory are run again with."""
    return replace(slurm, **slurm.on_out_of_memory)


def flag_name(name: object) -> str:
    """Return the long name of one of sbatch's flags as sbatch spells it."""
    return str(name).lstrip("-").replace("_", "-")
