"""Students: which are trained, what they predict, and which size of them is taken.

One network in place of the ensemble, where compute is short (Hinton et al. 2015). For each size and seed two
are trained, as alike as they can be: one on what the ensemble predicts, one on the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.planning.combining import CHOOSE, LABELS, STUDENT
from orchestrator.schema import SweepConfig, student_sizes
from orchestrator.space import setting_id
from orchestrator.sweep.directory import SweepDirectory, TrialSpec, read_waves
from orchestrator.sweep.facts import read_phase, read_plan
from orchestrator.sweep.records import FAILED

# The controller draws students without what trains and measures them: torch and NumPy are imported below.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from omegaconf import DictConfig

    from orchestrator.ensemble.members import Predictions
    from orchestrator.ensemble.scores import Targets

    Predict = Callable[[DictConfig, Path, str], Predictions]


def student_specs(
    directory: SweepDirectory, config: SweepConfig, choice: Mapping[str, Any]
) -> list[TrialSpec]:
    """Return the students' trials: each size and seed, taught by the ensemble and by labels.

    Args:
        directory, config: the sweep.
        choice: the content of `choice.json`; a student has its best single model's setting, but for the size.

    Raises:
        UserError: the best single model's run is not among the final runs.
    """
    final = read_plan(directory).final
    assert final is not None, "an ensemble follows final runs"
    runs = {
        spec.trial_id: spec for wave in read_waves(directory.phase(final.kind, final.name)) for spec in wave
    }
    best = str(choice["best_single"]["trial_id"])
    if best not in runs:
        raise UserError(f"there is no final run '{best}'", file=directory.choice, key="best_single")
    student = config.ensemble.student
    pairs = [
        ({**runs[best].params, **size}, config.seed + repeat)
        for size in student_sizes(student)
        for repeat in range(student.seeds)
    ]
    return [
        TrialSpec(
            trial_id=f"{origin}-{number:05d}",
            setting_id=setting_id(params),
            params=params,
            seed=seed,
            origin=origin,
            parent=best,
        )
        for number, (params, seed) in enumerate(pairs)
        for origin in (STUDENT, LABELS)
    ]


def predict(
    directory: SweepDirectory,
    config: SweepConfig,
    spec: TrialSpec,
    own: DictConfig,
    predict: Predict,
    checkpoints: Path,
) -> None:
    """Store what a student that has been trained predicts for validation and test samples.

    Args:
        directory, config: the sweep.
        spec: of the student.
        own: its job's config.
        predict: the job's.
        checkpoints: its folder: its best.pt is taken; without one, of all files that the job can predict
            with, the one that does best on validation samples.

    Raises:
        UserError: there is no such file.
    """
    from omegaconf import OmegaConf

    from orchestrator.ensemble import members
    from orchestrator.ensemble.store import write_predictions

    checkpoint, validation = _best_checkpoint(config, own, predict, checkpoints)
    candidate = members.Candidate(
        trial_id=spec.trial_id,
        setting_id=spec.setting_id,
        seed=spec.seed,
        step=0,
        checkpoint=checkpoint,
        config=own,
        kind=members.STUDENT,
        model=str(OmegaConf.select(own, config.ensemble.model_key, default=None) or ""),
    )
    write_predictions(directory, spec.trial_id, [(candidate, validation)], "validation")
    write_predictions(directory, spec.trial_id, [(candidate, predict(own, checkpoint, "test"))], "test")


def _best_checkpoint(
    config: SweepConfig, own: DictConfig, predict: Predict, folder: Path
) -> tuple[Path, Predictions]:
    """Return a student's best checkpoint and what it predicts for validation samples."""
    from orchestrator.ensemble.scores import merit
    from orchestrator.ensemble.store import score_of
    from orchestrator.ensemble.stored import task_of

    found: list[tuple[Any, Path, Predictions]] = []
    whys: list[str] = []
    for path in _files(folder):
        try:
            predicted = predict(own, path, "validation")
            score = score_of(config, task_of(predicted))
            found.append((merit(score, predicted.probabilities, predicted.labels), path, predicted))
        except UserError:
            raise
        # A job's folder may hold what is no checkpoint; what its predict then raises is the job's affair.
        except Exception as error:
            whys.append(f"{path.name}: {type(error).__name__}: {error}".splitlines()[0])
    if not found:
        why = f": {whys[0]}" if whys else ""
        raise UserError(
            f"the student left no checkpoint that can be read{why}",
            file=folder,
            hint="Call trial.keep(path, step) in the training function",
        )
    _, path, predicted = max(found, key=lambda each: each[0])
    return path, predicted


def _files(folder: Path) -> list[Path]:
    best = folder / "best.pt"
    if best.is_file():
        return [best]
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def measured(
    directory: SweepDirectory,
    config: SweepConfig,
    score: str,
    ids: NDArray[np.int64],
    targets: Targets,
) -> dict[str, Any] | None:
    """Choose the size on validation data, and say how good students of each size are on test data.

    Args:
        directory, config: the sweep.
        score: that is measured.
        ids: (n,) of the test samples.
        targets: (n,), what is right for them.

    Returns:
        None without students; else the `student` of ensemble.json: `chosen` with the ids of its trial and of
        the one trained on labels to compare it with, both the best of their seeds on validation data, and
        `sizes`, means over the seeds.

    Raises:
        UserError: stored predictions are damaged or of other samples.
    """
    from orchestrator.ensemble.fitted import describe
    from orchestrator.ensemble.scores import scored
    from orchestrator.ensemble.stored_library import TEST, read_named
    from orchestrator.ensemble.student_sizes import chosen_size, read_sizes, trained

    sizes = read_sizes(directory, config, score)
    if not sizes:
        return None

    def mean(trials: Sequence[str]) -> float | None:
        found = [read_named(directory, trial, TEST, ids).probabilities(0) for trial in trials]
        values = [scored(score, each, targets) for each in found]
        return sum(values) / len(values) if values else None

    chosen = chosen_size(sizes, score, config.ensemble.student.tolerance)
    return {
        "chosen": {
            **describe(trained(directory, chosen.best)),
            "labels_trial_id": chosen.best_labels,
            "params": dict(chosen.params),
            "parameters": chosen.parameters,
        },
        "sizes": [
            {
                "params": dict(each.params),
                "parameters": each.parameters,
                "seeds": len(each.students),
                "validation": each.validation,
                "test": mean(each.students),
                "labels_validation": each.labels_validation,
                "labels_test": mean(each.labels),
            }
            for each in sizes
        ],
    }


def why_none(directory: SweepDirectory, config: SweepConfig) -> str:
    """Say why there is no student to measure, though there was to be one; empty where none was wanted.

    Args:
        directory, config: the sweep, its students' wave drawn.
    """
    if not config.ensemble.student.enabled:
        return ""
    phase = read_plan(directory).ensemble
    assert phase is not None, "students are of the ensemble"
    known = read_phase(directory, phase)
    drawn = [spec.trial_id for spec in known.trials if spec.origin == STUDENT]
    if not drawn:
        chosen = next(
            (known.outcomes.get(spec.trial_id) for spec in known.trials if spec.origin == CHOOSE), None
        )
        how = "was lost" if chosen is None else "failed" if chosen.state == FAILED else "had not ended"
        return f"none was trained: the step that chooses the ensemble {how} when students were to be drawn"
    ended = [known.outcomes[name] for name in drawn if name in known.outcomes]
    errors = [line for one in ended for line in one.error.strip().splitlines()[-1:]]
    last = f"; the last error: {errors[-1]}" if errors else ""
    return f"none of the {len(drawn)} that were drawn left predictions{last}"
