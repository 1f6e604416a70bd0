"""Which networks of a finished sweep are handed over: what its ensemble step chose, with checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from orchestrator.errors import UserError, nearest
from orchestrator.planning.combining import TRAINED_HERE, student_phase
from orchestrator.planning.plan import Plan
from orchestrator.results.ensemble_file import read_ensemble
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import read_phase
from orchestrator.worker.job import trial_config

SINGLE, ENSEMBLE, SOUP, STUDENT = MODELS = ("single", "ensemble", "soup", "student")
# Of a student's run: the checkpoint that counts.
STUDENTS_BEST = "best.pt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One network: the checkpoint it is in, and the config that its run had.

    Attributes:
        name: of its files.
        described: as ensemble.json has it: trial, setting, seed, step.
    """

    name: str
    described: Mapping[str, Any]
    checkpoint: Path
    config: DictConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What a sweep ended with.

    Attributes:
        result: the content of ensemble.json.
        subjects: each network once.
        models: names of the networks of each model (single, ensemble, soup, student) that there is.
    """

    result: Mapping[str, Any]
    subjects: tuple[Subject, ...]
    models: Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class _Listed:
    """The networks found so far: one that is a member and the best single model too is there once."""

    subjects: list[Subject] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)


def read_chosen(
    directory: SweepDirectory, config: SweepConfig, plan: Plan, only: tuple[str, ...] = ()
) -> Chosen:
    """Read what the ensemble step chose.

    Args:
        directory, config, plan: of the sweep.
        only: models to be handed over; none: all there are.

    Raises:
        UserError: the ensemble is not finished or was not planned, there is no such model, or a checkpoint is
            gone.
    """
    result = read_result(directory, plan)
    configs = _configs(directory, config, plan)
    found = {SINGLE: [result["best_single"]], ENSEMBLE: result["members"]}
    if result.get("soup"):
        soup = result["soup"]
        found[SOUP] = [{**soup.get("description", soup), "note": soup.get("note", "")}]
    if result.get("student"):
        found[STUDENT] = [_student(result["student"]["chosen"])]
    for name in only:
        if name not in found:
            raise UserError(
                f"this sweep has no {name}" if name in MODELS else f"there is no model '{name}'",
                file=directory.ensemble_result,
                hint=nearest(name, found),
            )
    listed = _Listed()
    models: dict[str, tuple[str, ...]] = {}
    # Members last: one that has a name of its own keeps it.
    for model in (SINGLE, SOUP, STUDENT, ENSEMBLE):
        if model in found and (not only or model in only):
            models[model] = tuple(
                _add(listed, directory, configs, model, each, number)
                for number, each in enumerate(found[model])
            )
    return Chosen(result=result, subjects=tuple(listed.subjects), models=models)


def read_result(directory: SweepDirectory, plan: Plan) -> dict[str, Any]:
    """Read ensemble.json.

    Raises:
        UserError: there is none yet, or the sweep was planned without that step.
    """
    if (result := read_ensemble(directory)) is not None:
        if not result.get("members") or not result.get("best_single"):
            raise UserError("holds no ensemble", file=directory.ensemble_result, hint="Restore it")
        return dict(result)
    if all(phase.kind != "ensemble" for phase in plan.phases):
        raise UserError(
            "this sweep has no ensemble step, which chooses what is handed over",
            file=directory.path,
            hint="It needs final runs that keep checkpoints, and jobs.predict",
        )
    raise UserError(
        "its ensemble is not finished", file=directory.path, hint=f"Go on: orchestrate run {directory.path}"
    )


def _add(
    listed: _Listed,
    directory: SweepDirectory,
    configs: Mapping[str, DictConfig],
    model: str,
    described: Mapping[str, Any],
    number: int,
) -> str:
    """List a network unless it is there, and return its name."""
    key = str(described.get("checkpoint"))
    if key not in listed.known:
        trial = str(described["trial_id"])
        if trial not in configs:
            raise UserError(f"names the run '{trial}', which there is not", file=directory.ensemble_result)
        listed.known[key] = f"member-{number:02d}" if model == ENSEMBLE else model
        listed.subjects.append(
            Subject(
                name=listed.known[key],
                described=described,
                checkpoint=_checkpoint(directory, Path(key), trial),
                config=configs[trial],
            )
        )
    return listed.known[key]


def _checkpoint(directory: SweepDirectory, named: Path, trial: str) -> Path:
    """Return the file of a checkpoint, also where the sweep's folder has been moved since.

    Raises:
        UserError: it is gone.
    """
    first = 1 if named.is_absolute() else 0
    for start in range(first, len(named.parts)):
        if (inside := directory.path.joinpath(*named.parts[start:])).is_file():
            return inside
    if named.is_absolute() and named.is_file():
        return named
    raise UserError(
        "this checkpoint is gone", file=named, hint=f"It is of '{trial}': put it back, or train anew"
    )


def _student(chosen: Mapping[str, Any]) -> dict[str, Any]:
    fallback = f"ensemble/checkpoints/{chosen['trial_id']}/{STUDENTS_BEST}"
    return {"kind": "student", "checkpoint": fallback, **chosen}


def _configs(directory: SweepDirectory, config: SweepConfig, plan: Plan) -> dict[str, DictConfig]:
    """Return the job's config of each final run and each student, by trial."""
    final = plan.final
    assert final is not None, "an ensemble follows final runs"
    specs = {spec.trial_id: (spec, final) for spec in read_phase(directory, final).trials}
    phase = next(phase for phase in plan.phases if phase.kind == "ensemble")
    for spec in read_phase(directory, phase).trials:
        if spec.origin in TRAINED_HERE:
            student = config.ensemble.student
            scaled = student_phase(phase, final, spec, student, directory.teacher.resolve())
            specs[spec.trial_id] = spec, scaled
    return {trial: trial_config(config, phase, spec) for trial, (spec, phase) in specs.items()}
