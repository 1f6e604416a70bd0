"""What candidates predict, in the sweep's directory: computed once on the cluster, read member by member.

For each final run and split there is one file of predictions and one of labels (see `stored`); the best soup
and students have files of the same form. A file is written whole, and validation's last: where that is, all
of the run's are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.ensemble import stored
from orchestrator.ensemble.collected import Collected, Predict, inside
from orchestrator.ensemble.members import Candidate, Predictions
from orchestrator.ensemble.scores import better, scored
from orchestrator.ensemble.stored import Unusable, Writer
from orchestrator.ensemble.stored_library import (
    CANDIDATES,
    OTHERS,
    SPLITS,
    TEST,
    VALIDATION,
    StoredLibrary,
    file_of,
    labels_of,
    read_library,
    read_named,
)
from orchestrator.errors import UserError
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import replace_atomic

Average = Callable[[Sequence[Candidate], SweepConfig, Path], Candidate | None]

__all__ = [
    "Predict",
    "StoredLibrary",
    "is_stored",
    "predict_run",
    "read_library",
    "read_named",
    "score_of",
    "write_predictions",
]


def predict_run(
    directory: SweepDirectory,
    config: SweepConfig,
    candidates: Sequence[Candidate],
    predict: Predict,
    *,
    average: Average | None = None,
) -> float:
    """Store what all checkpoints of one run, and the mean of their weights, predict for validation and test.

    What is stored whole for the same checkpoints is left as it is. A checkpoint that can't be read, or whose
    predictions are of no use, is left out with a note in the file.

    Args:
        directory, config: the sweep.
        candidates: of one run, in the order of steps.
        predict: the job's.
        average: makes the candidate of averaged weights, or None where there is none to make.

    Returns:
        The best score of them on validation data.

    Raises:
        UserError: not one of them can be used, the disk is full, or `predict` says that the config is wrong.
    """
    run = candidates[0].trial_id
    asked = [inside(directory, each.checkpoint) for each in candidates] + (["average"] if average else [])
    if not _is_whole(directory, run, asked):
        try:
            _predict_run(directory, config, candidates, predict, average, asked)
        except OSError as error:
            hint = "Free some space, then: orchestrate retry"
            problem = f"can't be written ({error.strerror or error})"
            raise UserError(problem, file=error.filename or directory.predictions, hint=hint) from error
    library = read_named(directory, run, VALIDATION)
    labels, score = library.labels(), score_of(config, library.task)
    values = [scored(score, library.probabilities(place), labels) for place in range(len(library))]
    return max(values, key=lambda value: better(score, value, 0.0))


def score_of(config: SweepConfig, task: str) -> str:
    """Return the score that members are chosen by: as declared, or after the metric's name."""
    if config.ensemble.score is not None:
        return config.ensemble.score
    name = config.metric.name.lower()
    if task == stored.REGRESSION:
        return "mae" if "mae" in name or "absolute" in name else "mse"
    return "log_loss" if any(word in name for word in ("loss", "nll", "entropy")) else "accuracy"


def is_stored(directory: SweepDirectory, run: str) -> bool:
    """Say whether the predictions of a run are there, and whole as far as their files' ends tell."""
    return _files(directory, run) is not None


def _is_whole(directory: SweepDirectory, run: str, asked: Sequence[str]) -> bool:
    """Say whether the predictions of these checkpoints are all there."""
    files = _files(directory, run)
    return files is not None and all(list(file.said.get("asked", ())) == list(asked) for file in files)


def _files(directory: SweepDirectory, run: str) -> list[stored.StoredFile] | None:
    try:
        files = [stored.open_file(file_of(directory, run, split)) for split in SPLITS]
    except UserError:
        return None
    return files if all(stored.is_whole(labels_of(directory, run, split)) for split in SPLITS) else None


def _predict_run(
    directory: SweepDirectory,
    config: SweepConfig,
    candidates: Sequence[Candidate],
    predict: Predict,
    average: Average | None,
    asked: Sequence[str],
) -> None:
    """Predict with one candidate after another into the files of both splits; they appear together."""
    run = candidates[0].trial_id
    collected = Collected(directory)

    def write(validation: Path, test: Path) -> None:
        writers = {VALIDATION: Writer(validation), TEST: Writer(test)}
        for each in candidates:
            collected.take(each, predict, writers)
        if average is not None:
            try:
                made = average(collected.candidates, config, directory.averages)
            except (
                Exception
            ) as error:  # An average that can't be made leaves the checkpoints as good as before.
                collected.skip(f"average of {run}", error)
            else:
                if made is not None:
                    collected.take(made, predict, writers)
        if not collected.candidates:
            why = collected.skipped[0]["why"]
            raise UserError(f"none of the {len(candidates)} checkpoints of {run} can be used: {why}")
        for split, writer in writers.items():
            first = collected.first[split]
            writer.close(collected.said(split, CANDIDATES) | {"asked": list(asked)})
            stored.write_labels(labels_of(directory, run, split), first.ids, first.labels)

    def write_validation(validation: Path) -> None:
        replace_atomic(file_of(directory, run, TEST), lambda test: write(validation, test))

    replace_atomic(file_of(directory, run, VALIDATION), write_validation)


def write_predictions(
    directory: SweepDirectory,
    name: str,
    predicted: Sequence[tuple[Candidate, Predictions]],
    split: str,
) -> None:
    """Store predictions of what is compared with the ensemble: the soup, a student.

    Args:
        directory: of the sweep.
        name: of the file: soup, student-00000, labels-00000.
        predicted: what each of them predicts, for the same samples.
        split: validation or test.

    Raises:
        UserError: predictions that are not finite, or do not fit together.
    """
    collected = Collected(directory)

    def write(path: Path) -> None:
        writer = Writer(path)
        for candidate, predictions in predicted:
            try:
                fitting = collected.fitting({split: predictions})
            except Unusable as error:
                raise UserError(str(error), file=candidate.checkpoint, key="ensemble") from None
            collected.add(candidate, fitting, {split: writer})
        writer.close(collected.said(split, OTHERS))
        first = collected.first[split]
        stored.write_labels(labels_of(directory, name, split), first.ids, first.labels)

    replace_atomic(file_of(directory, name, split), write)
