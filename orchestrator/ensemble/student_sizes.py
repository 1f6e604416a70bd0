"""The sizes of students that were trained: how good each is, how large, and which is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.ensemble.members import Candidate
from orchestrator.ensemble.scores import Merit, merit
from orchestrator.ensemble.stored_library import SPLITS, VALIDATION, file_of, read_named
from orchestrator.planning.combining import LABELS, STUDENT, TRAINED_HERE
from orchestrator.schema import SCORES, SweepConfig, student_sizes
from orchestrator.sweep.directory import ENSEMBLE, SweepDirectory, read_waves
from orchestrator.training.checkpoints import UnreadableCheckpoint
from orchestrator.training.weights import parameters_of, read_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The students of one size.

    Attributes:
        params: what sets it apart: the declared parameters' values.
        parameters: how many numbers it learns; None where the checkpoint does not tell.
        bytes: of its checkpoint.
        students: the ids of its trials that ended well, in the order of seeds.
        labels: those of the networks that were trained on labels.
        best: of the students the one that does best on validation samples.
        best_labels: of the others, too; None where none has ended well.
        validation: the students' mean score on validation samples.
        labels_validation: that of the others.
    """

    params: Mapping[str, Any]
    parameters: int | None
    bytes: int
    students: tuple[str, ...]
    labels: tuple[str, ...]
    best: str
    best_labels: str | None
    validation: float
    labels_validation: float | None


def read_sizes(directory: SweepDirectory, config: SweepConfig, score: str) -> list[Size]:
    """Return the sizes of which there is a trained student, as validation data tell of them.

    Args:
        directory, config: the sweep.
        score: that is measured.

    Raises:
        UserError: stored predictions are damaged.
    """
    ended = [
        spec
        for wave in read_waves(directory.phase(ENSEMBLE, ENSEMBLE))
        for spec in wave
        if spec.origin in TRAINED_HERE and _is_stored(directory, spec.trial_id)
    ]
    sizes = []
    for params in student_sizes(config.ensemble.student):
        own = [spec for spec in ended if all(spec.params.get(name) == params[name] for name in params)]
        students = [spec.trial_id for spec in own if spec.origin == STUDENT]
        labels = [spec.trial_id for spec in own if spec.origin == LABELS]
        if students:
            sizes.append(_size(directory, score, params, students, labels))
    return sizes


def chosen_size(sizes: Sequence[Size], score: str, tolerance: float) -> Size:
    """Return the smallest of the sizes whose score is within a tolerance of the best one's.

    Args:
        sizes: at least one.
        score: of `SCORES`, which says in what direction it improves.
        tolerance: in the score's own unit.
    """
    sign = 1 if SCORES[score] == "max" else -1
    best = max(sign * each.validation for each in sizes)
    # A hair more, for differences that are the tolerance but for rounding.
    near = [each for each in sizes if sign * each.validation >= best - tolerance - 1e-12]
    return min(near, key=lambda each: (each.parameters or each.bytes, -sign * each.validation))


def trained(directory: SweepDirectory, trial: str) -> Candidate:
    """Return a student as it was stored.

    Raises:
        UserError: its predictions are gone or damaged.
    """
    return read_named(directory, trial, VALIDATION).candidates[0]


def _is_stored(directory: SweepDirectory, trial: str) -> bool:
    return all(file_of(directory, trial, split).exists() for split in SPLITS)


def _size(
    directory: SweepDirectory,
    score: str,
    params: Mapping[str, Any],
    students: Sequence[str],
    labels: Sequence[str],
) -> Size:
    merits = {trial: _merit(directory, score, trial) for trial in (*students, *labels)}
    sign = 1 if SCORES[score] == "max" else -1

    def mean(trials: Sequence[str]) -> float:
        return sum(sign * merits[trial][0] for trial in trials) / len(trials)

    best = max(students, key=lambda trial: merits[trial])
    checkpoint = trained(directory, best).checkpoint
    return Size(
        params=params,
        parameters=_parameters(checkpoint),
        bytes=checkpoint.stat().st_size if checkpoint.exists() else 0,
        students=tuple(students),
        labels=tuple(labels),
        best=best,
        best_labels=max(labels, key=lambda trial: merits[trial]) if labels else None,
        validation=mean(students),
        labels_validation=mean(labels) if labels else None,
    )


def _merit(directory: SweepDirectory, score: str, trial: str) -> Merit:
    library = read_named(directory, trial, VALIDATION)
    return merit(score, library.probabilities(0), library.labels())


def _parameters(checkpoint: Path) -> int | None:
    try:
        return parameters_of(read_weights(checkpoint).state)
    except UnreadableCheckpoint:
        return None
