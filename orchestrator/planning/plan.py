"""The plan: what will run, at which scale and at what cost. Plain data that is frozen as plan.json."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.sweep.directory import CHECKS, ENSEMBLE, FINAL, STAGE, TRAINED
from orchestrator.sweep.plain import fact_of

# Of plan.json: to be raised when an older program would misread it. What is only added needs no new one.
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much of the problem a phase sees: data fraction (or count), classes, epochs, validation size."""

    data: float = 1.0
    classes: int | None = None
    class_list: tuple[Any, ...] | None = None
    class_rule: str = "first"
    epochs: int | None = None
    validation_size: int | None = None
    # pixels of a side; None: the dataset's own
    resolution: int | None = None
    # None: as the job's config has it
    augment: bool | None = None
    # of each run: how many, or the moments
    checkpoints: int | tuple[str, ...] = 0
    # what the checkpoints of one run may take of the disk
    disk_gb: float | None = None
    # of a student: what it learns from, how much softer that is made, and its share of the loss
    teacher: str | None = None
    teacher_temperature: float | None = None
    teacher_weight: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a phase costs; None where nothing is known before the first trials.

    `trained_samples` counts samples times epochs over all trials, `seconds` the trials' own time one after
    another, `hours` the GPU-hours (or core-hours) they hold.
    """

    trained_samples: float | None = None
    seconds: float | None = None
    hours: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """The checks, a stage, the final runs or the ensemble."""

    kind: str
    name: str
    trials: int
    scale: Scale
    # training samples at this scale, None where the dataset's size is not known
    samples: int | None = None
    # promoted from the stage before: its best, and others for comparison
    survivors: int = 0
    controls: int = 0
    sampler: str = ""
    keep: float = 0.25
    margin: float = 0.2
    # the trials of one task, the tasks, and how many of these run side by side
    batch: int = 1
    tasks: int = 1
    array: int = 1
    cost: Cost = field(default_factory=Cost)
    # what one trial trains, as a share of one training at full scale; None where it is not known
    share: float | None = None
    # the trials are drawn in so many parts, each from what is known by then
    waves: int = 1
    # the share of its trials with which the stage may close
    close: float = 1.0
    # successive-halving factor for pruning inside the stage; 0: none
    prune: float = 0.0
    # further runs, with other seeds, of the best settings: one more wave, not counted in `trials`
    repeats: int = 0
    # how many trials each wave draws, the repeats last, where re-pricing says so; empty: equal parts
    sizes: tuple[int, ...] = ()
    # the parameters that this stage tunes, the rest held at their best; empty: all
    tune: tuple[str, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether its trials train a setting."""
        return self.kind in TRAINED

    @property
    def runs(self) -> int:
        """All trials that are planned, the repeats among them."""
        return self.trials + self.repeats

    @property
    def wave_sizes(self) -> tuple[int, ...]:
        """How many trials each wave is planned to draw; the repeats are the last wave."""
        if self.sizes:
            return self.sizes
        if self.kind == FINAL:
            # Whole settings, each with all its seeds.
            seeds = self.trials // self.survivors
            return tuple(seeds * len(range(wave, self.survivors, self.waves)) for wave in range(self.waves))
        # What was promoted is in the first one.
        first = min(self.trials, max(math.ceil(self.trials / self.waves), self.survivors + self.controls))
        rest, waves = self.trials - first, self.waves - 1
        sizes = (first, *(len(range(wave, rest, waves)) for wave in range(waves)))
        return (*sizes, self.repeats) if self.repeats else sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The frozen plan of one sweep."""

    uid: str
    name: str
    metric: str
    mode: str
    created: float
    # the user's folder: relative paths in a job's config start here
    folder: str
    # "GPU" or "core": what an hour of cost is an hour of
    unit: str
    phases: tuple[Phase, ...]
    total: Cost
    # the cost as a share of as many trials at full scale
    full_scale_share: float | None
    warnings: tuple[str, ...] = ()
    # as it was asked for (`40 gpu-hours`); empty: none
    budget: str = ""
    # the stages were worked out from the budget
    auto: bool = False
    # how the budget made the ladder what it is, in sentences
    notes: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[Phase, ...]:
        """The stages, without the checks, the final runs and the ensemble."""
        return tuple(phase for phase in self.phases if phase.kind == STAGE)

    @property
    def checks(self) -> Phase | None:
        """The checks before the first stage."""
        return next((phase for phase in self.phases if phase.kind == CHECKS), None)

    @property
    def final(self) -> Phase | None:
        """The final runs."""
        return next((phase for phase in self.phases if phase.kind == FINAL), None)

    @property
    def ensemble(self) -> Phase | None:
        """The ensemble step."""
        return next((phase for phase in self.phases if phase.kind == ENSEMBLE), None)

    def before(self, phase: Phase) -> Phase | None:
        """Return the phase that comes before another one."""
        # By name: re-pricing changes what a phase has.
        index = [other.name for other in self.phases].index(phase.name)
        return self.phases[index - 1] if index else None


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return the content of plan.json."""
    content = asdict(plan)
    content["version"] = VERSION
    content["metric"] = {"name": plan.metric, "mode": plan.mode}
    del content["mode"]
    return content


def refuse_newer(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return the content of a plan.json as it is.

    Raises:
        UserError: a newer version of this program has written it.
    """
    if not isinstance(version := content.get("version", VERSION), int) or version > VERSION:
        raise UserError(
            f"version {version} of this plan is newer than this program, which reads {VERSION}",
            file=file,
            hint="Update the orchestrator",
        )
    return content


def plan_from_json(content: dict[str, Any]) -> Plan:
    """Read the content of plan.json.

    Raises:
        KeyError, TypeError, ValueError: it is no plan of this version.
    """
    metric = content["metric"]
    flat = {key: value for key, value in content.items() if key != "version"}
    plan = fact_of(Plan, {**flat, "metric": metric["name"], "mode": metric["mode"]})
    if not plan.phases:
        raise ValueError("it has no phases")
    return plan
