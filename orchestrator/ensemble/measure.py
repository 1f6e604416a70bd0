"""Measuring what was chosen: the one place where test labels are read, and nothing is decided by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble import students
from orchestrator.ensemble.calibration import calibrated, coverage, scaled, temperature
from orchestrator.ensemble.choose import SOUP, read_choice
from orchestrator.ensemble.combine import Combination
from orchestrator.ensemble.fitted import Fitted, described_key, place_of
from orchestrator.ensemble.intervals import Resampled, resampled
from orchestrator.ensemble.library import Probabilities
from orchestrator.ensemble.looks import look
from orchestrator.ensemble.scores import OF_CLASSES, OF_VALUES, Targets, each_sample, scored
from orchestrator.ensemble.store import StoredLibrary, read_library, read_named
from orchestrator.ensemble.stored import CLASSIFICATION
from orchestrator.ensemble.stored_library import TEST, VALIDATION
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import write_json

# Names of what is measured, as ensemble.json has them.
SINGLE, ENSEMBLE, AVERAGE = "best_single", "ensemble", "average_member"
STUDENT, LABELS = "student", "student_labels"
_GAINS = {
    "over_best_single": (ENSEMBLE, SINGLE),
    "over_average_member": (ENSEMBLE, AVERAGE),
    "soup_over_best_single": (SOUP, SINGLE),
    "student_over_labels": (STUDENT, LABELS),
    "student_below_ensemble": (ENSEMBLE, STUDENT),
}
# Of choice.json; the rest of it is for this module alone.
_TOLD = (
    *("version", "task", "score", "mode", "asked", "combine", "candidates", "skipped", "members"),
    *("combination", "best_single", "soup", "nested", "validation_samples"),
)

Values = dict[str, NDArray[np.float64]]
Named = dict[str, Probabilities]


def measure(directory: SweepDirectory, config: SweepConfig) -> dict[str, Any]:
    """Measure the chosen ensemble on test data, and write `ensemble.json`.

    That a choice is measured is written down before the labels are read (`test_looks`). The average member is
    the plain mean over distinct members: what one of them, drawn at random, can be expected to reach.

    Args:
        directory, config: the sweep, its ensemble chosen, its students (if any) trained.

    Returns:
        The content of `ensemble.json`.

    Raises:
        UserError: nothing was chosen, or predictions are gone or damaged.
    """
    choice = read_choice(directory)
    library = read_library(directory, TEST)
    predicted = _predicted(directory, choice, library)
    looks = look(directory, choice)
    targets, score = library.labels(), str(choice["score"])
    student = students.measured(directory, config, score, library.ids, targets)
    trials = {} if student is None else _trials(student["chosen"])
    for name, trial in trials.items():
        predicted[name] = read_named(directory, trial, TEST, library.ids).probabilities(0)
    validation, heats = _with_students(directory, choice, trials)
    values = _values(choice, library, predicted, targets)
    drawn = resampled(values, mode=choice["mode"], seed=config.seed)
    result = {
        **{key: choice[key] for key in _TOLD},
        "temperature": heats,
        "validation": validation,
        **_figures(choice, drawn),
        **_details(choice, predicted, targets, heats),
        "test_samples": library.samples,
        "test_looks": looks,
        "student": student,
        "student_missing": students.why_none(directory, config) if student is None else "",
    }
    write_json(directory.ensemble_result, result)
    return result


def _predicted(directory: SweepDirectory, choice: Mapping[str, Any], library: StoredLibrary) -> Named:
    """Return what the models that are compared predict for test samples."""
    members = tuple(described_key(each) for each in choice["members"])
    ensemble = Fitted(members, Combination.from_json(choice["combination"]))
    best = place_of(library, described_key(choice["best_single"]))
    found = {SINGLE: library.probabilities(best), ENSEMBLE: ensemble.apply(library)}
    if choice["soup"] is not None:
        found[SOUP] = read_named(directory, SOUP, TEST, library.ids).probabilities(0)
    return found


def _trials(chosen: Mapping[str, Any]) -> dict[str, str]:
    """Return the trials of the chosen student, and of the same network trained on labels, if it is there."""
    trials = {STUDENT: chosen["trial_id"], LABELS: chosen.get("labels_trial_id")}
    return {name: str(trial) for name, trial in trials.items() if trial}


def _with_students(
    directory: SweepDirectory, choice: Mapping[str, Any], trials: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return scores on validation data and temperatures, those of students among them."""
    validation, heats = dict(choice["validation"]), dict(choice["temperature"])
    for name, trial in trials.items():
        library = read_named(directory, trial, VALIDATION)
        predicted, labels = library.probabilities(0), library.labels()
        validation[name] = scored(choice["score"], predicted, labels)
        if library.task == CLASSIFICATION and name == STUDENT:
            heats[name] = temperature(predicted, np.asarray(labels, dtype=np.int64))
    return validation, heats


def _values(choice: Mapping[str, Any], library: StoredLibrary, predicted: Named, targets: Targets) -> Values:
    """Return what the score is the mean of, for all that is compared: (samples,) of each."""
    score = str(choice["score"])
    values = {name: each_sample(score, each, targets) for name, each in predicted.items()}
    members = [place_of(library, described_key(each)) for each in choice["members"]]
    total = np.zeros(library.samples)
    for place in members:
        total += each_sample(score, library.probabilities(place), targets)
    values[AVERAGE] = total / len(members)
    for name, each in choice["methods"].items():
        if name == choice["combine"]:
            values[_method(name)] = values[ENSEMBLE]
        else:
            values[_method(name)] = each_sample(score, Fitted.from_json(each).apply(library), targets)
    for place, each in enumerate(choice["ablation"]):
        values[_ablated(place)] = each_sample(score, Fitted.from_json(each).apply(library), targets)
    return values


def _figures(choice: Mapping[str, Any], drawn: Resampled) -> dict[str, Any]:
    """Return the scores on test data with their intervals, gains, methods and ablation."""
    names = [name for name in (SINGLE, ENSEMBLE, AVERAGE, SOUP, STUDENT, LABELS) if name in drawn.means]
    ablation = []
    for place, each in enumerate(choice["ablation"]):
        gain = drawn.gain(_ablated(place), SINGLE)
        ablation.append(
            {"kinds": each["kinds"], "candidates": each["candidates"], "members": len(each["members"])}
            | _with_interval(drawn, _ablated(place))
            | {"gain": gain["value"], "gain_low": gain["low"], "gain_high": gain["high"]}
        )
    return {
        "test": {name: drawn.means[name] for name in names},
        "test_intervals": {name: drawn.interval(name) for name in names},
        "gains": {
            name: drawn.gain(one, other)
            for name, (one, other) in _GAINS.items()
            if one in drawn.means and other in drawn.means
        },
        "methods": {name: _with_interval(drawn, _method(name)) for name in choice["methods"]},
        "ablation": ablation,
    }


def _details(
    choice: Mapping[str, Any], predicted: Named, targets: Targets, heats: Mapping[str, float]
) -> dict[str, Any]:
    """Return the other scores on test data; of classes calibration and coverage, too."""
    is_classes = choice["task"] == CLASSIFICATION
    table = {
        score: {name: scored(score, each, targets) for name, each in predicted.items()}
        for score in (OF_CLASSES if is_classes else OF_VALUES)
        if score != choice["score"]
    }
    if not is_classes:
        return {
            "other_scores": table | {"r2": {name: _r2(each, targets) for name, each in predicted.items()}}
        }
    labels = np.asarray(targets, dtype=np.int64)
    # Every model at its own temperature, which validation data gave it.
    table["log_loss_scaled"] = {
        name: scored("log_loss", scaled(predicted[name], heat), labels)
        for name, heat in heats.items()
        if name in predicted
    }
    compared = [SINGLE, ENSEMBLE]
    return {
        "other_scores": table,
        "calibration": {name: calibrated(predicted[name], labels, heats[name]) for name in compared},
        "coverage": {name: coverage(predicted[name], labels) for name in compared},
    }


def _r2(predicted: Probabilities, targets: Targets) -> float:
    """Return the share of the variance of the targets that is explained; 0 where they don't vary."""
    values = np.asarray(targets, dtype=np.float64)
    spread = float(((values - values.mean()) ** 2).sum())
    return 1 - float(((predicted[:, 0] - values) ** 2).sum()) / spread if spread else 0.0


def _with_interval(drawn: Resampled, name: str) -> dict[str, float]:
    low, high = drawn.interval(name)
    return {"value": drawn.means[name], "low": low, "high": high}


def _method(name: str) -> str:
    return f"method {name}"


def _ablated(place: int) -> str:
    return f"ablation {place}"
