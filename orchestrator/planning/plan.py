"""The plan: what will run, at which scale and at what cost. Plain data that is frozen as plan.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.sweep.directory import ENSEMBLE, FINAL, STAGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much of the problem a phase sees: data fraction (or count), classes, epochs, validation size."""

    data: float = 1.0
    classes: int | None = None
    class_list: tuple[Any, ...] | None = None
    class_rule: str = "first"
    epochs: int | None = None
    validation_size: int | None = None
    checkpoints: int = 0


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
    """A stage, the final runs or the ensemble."""

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

    @property
    def stages(self) -> tuple[Phase, ...]:
        """The stages, without the final runs and the ensemble."""
        return tuple(phase for phase in self.phases if phase.kind == STAGE)

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
        index = self.phases.index(phase)
        return self.phases[index - 1] if index else None


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return the content of plan.json."""
    content = asdict(plan)
    content["version"] = 1
    content["metric"] = {"name": plan.metric, "mode": plan.mode}
    del content["mode"]
    return content


def plan_from_json(content: dict[str, Any]) -> Plan:
    """Read the content of plan.json."""
    phases = tuple(
        Phase(**{**phase, "scale": _scale(phase["scale"]), "cost": Cost(**phase["cost"])})
        for phase in content["phases"]
    )
    rest = {k: v for k, v in content.items() if k not in ("version", "metric", "phases", "total", "warnings")}
    return Plan(
        **rest,
        metric=content["metric"]["name"],
        mode=content["metric"]["mode"],
        phases=phases,
        total=Cost(**content["total"]),
        warnings=tuple(content["warnings"]),
    )


def _scale(content: dict[str, Any]) -> Scale:
    listed = content["class_list"]
    return Scale(**{**content, "class_list": tuple(listed) if listed is not None else None})
