"""The trials of the ensemble's phase, wave by wave: predict, choose, teach students, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.planning.plan import Phase, Scale
from orchestrator.schema import StudentConfig
from orchestrator.sweep.directory import ENSEMBLE, TrialSpec

# Origins of its trials; the last two train: on what the ensemble predicts, and on the labels to compare with.
PREDICT, CHOOSE, MEASURE, STUDENT, LABELS = "predict", "choose", "ensemble", "student", "labels"
TRAINED_HERE = (STUDENT, LABELS)


def ensemble_trials(
    phase: Phase, wave: int, runs: Sequence[TrialSpec], students: Sequence[TrialSpec], seed: int
) -> list[TrialSpec]:
    """Return the trials of one wave.

    Args:
        phase: of the ensemble.
        wave: counted from 0.
        runs: the final runs that have completed.
        students: those of the choice, once it is made.
        seed: of the sweep.
    """
    last = len(phase.wave_sizes) - 1
    if wave == last:
        return [_step(MEASURE, seed)]
    if wave == 0:
        return [
            TrialSpec(
                trial_id=f"{PREDICT}-{run.trial_id}",
                setting_id=run.setting_id,
                params=run.params,
                seed=run.seed,
                origin=PREDICT,
                parent=run.trial_id,
            )
            for run in runs
        ]
    return [_step(CHOOSE, seed)] if wave == 1 else list(students)


def _step(origin: str, seed: int) -> TrialSpec:
    name = ENSEMBLE if origin == MEASURE else origin
    return TrialSpec(trial_id=name, setting_id="", params={}, seed=seed, origin=origin)


def student_phase(
    phase: Phase, final: Phase, spec: TrialSpec, student: StudentConfig, teacher: Path
) -> Phase:
    """Return the ensemble's phase with the scale that one of its students has: a final run's, and a teacher.

    Args:
        phase: of the ensemble.
        final: the final runs.
        spec: of the student; one that learns from labels has no teacher.
        student: what is declared of it.
        teacher: what the ensemble predicts for the training data.
    """
    taught = spec.origin == STUDENT
    scale: Scale = replace(
        final.scale,
        epochs=student.epochs or final.scale.epochs,
        checkpoints=("best",),
        disk_gb=None,
        teacher=str(teacher) if taught else None,
        teacher_temperature=student.temperature if taught else None,
        teacher_weight=student.weight if taught else None,
    )
    return replace(phase, scale=scale)
