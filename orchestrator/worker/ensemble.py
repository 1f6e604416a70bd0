"""The ensemble's steps as trials: predict with a run's checkpoints, choose, measure; students beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from orchestrator.ensemble import students
from orchestrator.ensemble.averaging import along_run
from orchestrator.ensemble.choose import choose, teach
from orchestrator.ensemble.measure import measure
from orchestrator.ensemble.members import Candidate
from orchestrator.ensemble.soup import best_soup
from orchestrator.ensemble.store import is_stored, predict_run
from orchestrator.errors import UserError
from orchestrator.planning.combining import CHOOSE, PREDICT, student_phase
from orchestrator.planning.plan import Phase
from orchestrator.schema import SweepConfig
from orchestrator.sweep import records
from orchestrator.sweep.directory import SweepDirectory, TrialSpec
from orchestrator.sweep.facts import read_phase, read_plan
from orchestrator.sweep.records import COMPLETED
from orchestrator.worker.job import load_function, trial_config


def take_step(
    directory: SweepDirectory, config: SweepConfig, phase: Phase, spec: TrialSpec
) -> dict[str, float]:
    """Take the step of the ensemble that a trial stands for, other than training a student.

    Returns:
        The figures of the step, the sweep's metric among them: the best score on validation data.

    Raises:
        UserError: there is nothing to combine, or what there is does not fit together.
    """
    metric = config.metric.name
    if spec.origin == PREDICT:
        return {metric: _predict(directory, config, read_candidates(directory, config, spec.parent))}
    _predict_missing(directory, config, alone=len(phase.wave_sizes) == 1)
    choice = choose(directory, config, soup=best_soup if "averages" in config.ensemble.members else None)
    if spec.origin == CHOOSE:
        teach(directory, config, _function(config))
        return {metric: float(choice["validation"]["ensemble"])}
    result = measure(directory, config)
    figures = {
        f"{part}/{kind}": float(value)
        for part in ("validation", "test")
        for kind, value in result[part].items()
        if value is not None
    }
    return {metric: float(result["validation"]["ensemble"]), **figures}


def as_student(directory: SweepDirectory, config: SweepConfig, phase: Phase, spec: TrialSpec) -> Phase:
    """Return the ensemble's phase at the scale of one of its students."""
    final = read_plan(directory).final
    assert final is not None, "an ensemble follows final runs"
    return student_phase(phase, final, spec, config.ensemble.student, directory.teacher.resolve())


def after_student(
    directory: SweepDirectory, config: SweepConfig, spec: TrialSpec, own: DictConfig, checkpoints: Path
) -> None:
    """Store what a student that has been trained predicts.

    Args:
        directory, config: the sweep.
        spec: of the student.
        own: its job's config.
        checkpoints: its folder.
    """
    students.predict(directory, config, spec, own, _function(config), checkpoints)


def read_candidates(
    directory: SweepDirectory, config: SweepConfig, run: str | None = None
) -> list[Candidate]:
    """Return the checkpoints that completed final runs kept, in the order of runs and steps.

    Args:
        directory, config: the sweep.
        run: of this final run alone.
    """
    plan = read_plan(directory)
    final = plan.final
    assert final is not None, "an ensemble follows final runs"
    facts = read_phase(directory, final)
    folder = directory.phase(final.kind, final.name)
    specs = {spec.trial_id: spec for spec in facts.trials if run in (None, spec.trial_id)}
    configs = {trial: trial_config(config, final, spec) for trial, spec in specs.items()}
    return [
        Candidate(
            trial_id=trial,
            setting_id=specs[trial].setting_id,
            seed=specs[trial].seed,
            step=step,
            checkpoint=path,
            config=configs[trial],
            model=_model(configs[trial], config.ensemble.model_key),
        )
        for (trial, step), path in sorted(_kept(folder.records, folder.checkpoints).items())
        if trial in specs and trial in facts.outcomes and facts.outcomes[trial].state == COMPLETED
    ]


def _kept(folder: Path, checkpoints: Callable[[str], Path]) -> dict[tuple[str, int], Path]:
    """Return the checkpoints that runs kept and did not drop again, by (run, step)."""
    kept: dict[tuple[str, int], Path] = {}
    dropped: set[tuple[str, int]] = set()
    for file in records.read_directory(folder):
        for line in file.lines:
            if line["kind"] == "checkpoint":
                place = str(line["trial"]), int(line["step"])
                kept[place] = checkpoints(place[0]) / line["path"]
            elif line["kind"] == "dropped":
                dropped.add((str(line["trial"]), int(line["step"])))
    return {place: path for place, path in kept.items() if place not in dropped or path.exists()}


def _predict_missing(directory: SweepDirectory, config: SweepConfig, *, alone: bool) -> None:
    """Predict for the runs whose predictions were deleted or damaged since, so that a retry mends them.

    A run none of whose checkpoints can be used stays out, unless this is the one trial (`alone`) of a plan of
    a version that had no others: there nobody has told of it before.
    """
    candidates = read_candidates(directory, config)
    for run in dict.fromkeys(each.trial_id for each in candidates):
        if is_stored(directory, run):
            continue
        try:
            _predict(directory, config, [each for each in candidates if each.trial_id == run])
        except UserError:
            if alone:
                raise


def _model(config: DictConfig, key: str) -> str:
    """Return which kind of model a config asks for; empty where the job has no such key."""
    found = OmegaConf.select(config, key, default=None)
    return "" if found is None else str(found)


def _function(config: SweepConfig) -> Callable[..., Any]:
    assert config.jobs.predict is not None, "a plan without `predict` has no ensemble step"
    return load_function(config.jobs.predict, "jobs.predict")


def _predict(directory: SweepDirectory, config: SweepConfig, candidates: list[Candidate]) -> float:
    """Store what the checkpoints of one run predict, and return their best score on validation data."""
    if not candidates:
        raise UserError(
            "no final run offered a checkpoint", hint="Call trial.keep(path, step) in the training function"
        )
    average = along_run if "averages" in config.ensemble.members else None
    return predict_run(directory, config, candidates, _function(config), average=average)
