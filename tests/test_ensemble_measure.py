"""Measuring: intervals, calibration and coverage, and all that ensemble.json says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_predictions import MadeUp, Values, candidate, changed, family, stored, sweep_config
from scipy.stats import bootstrap

from commands import SWEEP, write_user_sweep
from orchestrator.cli import main
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.ensemble.calibration import calibrated, coverage, reliability, scaled, temperature
from orchestrator.ensemble.choose import choose
from orchestrator.ensemble.intervals import resampled
from orchestrator.ensemble.measure import measure
from orchestrator.ensemble.members import STUDENT, Candidate
from orchestrator.ensemble.store import write_predictions
from orchestrator.sweep.directory import ENSEMBLE, TrialSpec, write_trials

QUICK = sweep_config(combine="average")


def test_intervals_are_those_of_the_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).exponential(size=200)
    drawn = resampled({"loss": values}, mode="min", seed=1)
    other = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", random_state=2)
    low, high = drawn.interval("loss")
    assert low == pytest.approx(other.confidence_interval.low, abs=0.02)
    assert high == pytest.approx(other.confidence_interval.high, abs=0.02)
    assert drawn.means["loss"] == pytest.approx(values.mean())
    assert resampled({"loss": values}, mode="min", seed=1).interval("loss") == [low, high]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(3), 0
    for seed in range(100):
        right = (rng.random(80) < 0.8).astype(float)
        low, high = resampled({"a": right}, mode="max", seed=seed, resamples=400).interval("a")
        held += low <= 0.8 <= high
    assert 87 <= held <= 100


def test_gains_are_paired() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(300) < 0.7).astype(float)
    better = np.maximum(right, rng.random(300) < 0.1)  # the same samples, and some more
    drawn = resampled({"one": right, "two": better}, mode="max", seed=0)
    gain = drawn.gain("two", "one")
    assert gain["low"] > 0  # although the two intervals overlap
    assert drawn.interval("two")[0] < drawn.interval("one")[1]
    assert gain["value"] == pytest.approx(better.mean() - right.mean())
    losses = resampled({"one": 1 - right, "two": 1 - better}, mode="min", seed=0)
    assert losses.gain("two", "one") == pytest.approx(gain)
    assert drawn.gain("one", "one") == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_no_error_among_few_samples_is_no_certainty() -> None:
    drawn = resampled({"all": np.ones(30), "none": np.zeros(30)}, mode="max", seed=0, resamples=10)
    assert drawn.interval("all") == pytest.approx([0.884, 1.0], abs=0.001)  # Clopper and Pearson, n = 30
    assert drawn.interval("none") == pytest.approx([0.0, 0.116], abs=0.001)
    assert resampled({"x": np.full(9, 2.5)}, mode="min", seed=0).interval("x") == [2.5, 2.5]
    with pytest.raises(ValueError, match="no samples"):
        resampled({"x": np.empty(0)}, mode="min", seed=0)


def known(samples: int = 4000, heat: float = 1.0) -> tuple[Any, Any]:
    """Return probabilities at a temperature, and labels drawn from those at temperature 1."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(samples, 5))
    right = scaled(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 1.0)
    labels = (right.cumsum(axis=1) < rng.random((samples, 1))).sum(axis=1).clip(max=4)
    return scaled(right, heat).astype(np.float32), labels


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_probabilities_wrong(heat: float) -> None:
    probabilities, labels = known(heat=heat)
    assert temperature(probabilities, labels) == pytest.approx(1 / heat, rel=0.07)
    found = calibrated(probabilities, labels, temperature(probabilities, labels))
    assert found["ece_scaled"] < 0.02
    assert (found["ece"] > 0.05) == (heat != 1.0)
    assert sum(each["count"] for each in found["bins"]) == 4000


def test_a_sure_and_right_model_has_a_temperature_too() -> None:
    right = np.eye(3, dtype=np.float32)[[0, 1, 2]]
    assert 0 < temperature(right, np.arange(3)) < 1
    assert temperature(right, np.array([1, 2, 0])) > 5


def test_the_calibration_error_is_that_of_its_definition() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    error, bins = reliability(probabilities, np.array([0, 1, 0, 1]))
    assert error == pytest.approx((2 * abs(0.9 - 0.5) + 2 * abs(0.6 - 1.0)) / 4)
    assert [each["count"] for each in bins] == [2, 2]


def test_accuracy_rises_where_the_unsure_are_refused() -> None:
    probabilities, labels = known()
    curve = np.array(coverage(probabilities, labels))
    assert curve[-1] == pytest.approx([1.0, (probabilities.argmax(axis=1) == labels).mean()])
    assert (np.diff(curve[:, 0]) > 0).all()
    assert curve[0, 1] > curve[9, 1] > curve[-1, 1]
    alike = np.full((10, 2), 0.5)
    assert coverage(alike, np.array([0] * 5 + [1] * 5)) == [[1.0, 0.5]]  # none is surer than another


KEYS = {
    *("version", "task", "score", "mode", "asked", "combine", "candidates", "skipped", "members"),
    *("combination", "best_single", "soup", "temperature", "nested", "validation", "test"),
    *("test_intervals", "gains", "methods", "ablation", "other_scores", "validation_samples"),
    *("test_samples", "test_looks", "student", "student_missing"),
}


def test_the_result_says_all_that_it_should(tmp_path: Path) -> None:
    config = sweep_config()
    directory = stored(tmp_path, config, family("ABC", (1, 2), (5, 10)))
    choose(directory, config)
    result = measure(directory, config)
    assert json.loads(directory.ensemble_result.read_text(), parse_constant=pytest.fail) == result
    assert set(result) == KEYS | {"calibration", "coverage"}
    assert (result["version"], result["task"], result["test_samples"]) == (2, "classification", 150)
    names = ["best_single", "ensemble", "average_member"]
    for key in ("validation", "test", "test_intervals"):
        assert set(result[key]) == set(names)
    for name in names:
        low, high = result["test_intervals"][name]
        assert low <= result["test"][name] <= high
    gain = result["gains"]["over_best_single"]
    assert gain["low"] < gain["value"] < gain["high"]
    assert gain["value"] == pytest.approx(result["test"]["ensemble"] - result["test"]["best_single"])
    assert result["methods"][result["combine"]]["value"] == result["test"]["ensemble"]
    assert len(result["methods"]) == 5
    assert result["ablation"][-1]["candidates"] == result["candidates"] == 12
    assert result["ablation"][-1]["value"] == result["test"]["ensemble"]
    assert set(result["other_scores"]) == {"log_loss", "log_loss_scaled"}
    assert set(result["calibration"]) == set(result["coverage"]) == {"best_single", "ensemble"}
    described = {"trial_id", "setting_id", "model", "seed", "step", "kind", "checkpoint", "parts"}
    assert set(result["best_single"]) == described
    assert all(set(each) == described | {"weight"} for each in result["members"])
    assert len(result["combination"]["weights"]) == len(result["members"])


def test_values_are_combined_and_measured(tmp_path: Path) -> None:
    config = sweep_config("val/mae", combine="blend")
    directory = stored(tmp_path, config, predict=Values())
    choose(directory, config)
    result = measure(directory, config)
    assert (result["task"], result["score"], result["mode"]) == ("regression", "mae", "min")
    assert result["test"]["ensemble"] < result["test"]["best_single"] < result["test"]["average_member"] + 0.1
    assert result["gains"]["over_average_member"]["low"] > 0
    assert set(result["other_scores"]) == {"mse", "r2"}
    assert result["other_scores"]["r2"]["ensemble"] > 0.85
    assert set(result) == KEYS
    assert result["temperature"] == {}


def test_one_class_alone_is_measured(tmp_path: Path) -> None:
    alone = changed(MadeUp(), "final", labels=lambda given: np.zeros_like(given.labels))
    directory = stored(tmp_path, QUICK, predict=alone)
    choose(directory, QUICK)
    result = measure(directory, QUICK)
    assert 0 <= result["test"]["ensemble"] <= 1
    assert "stacking" not in result["methods"]  # it needs every class


def test_students_are_measured_beside_the_same_networks_on_labels(tmp_path: Path) -> None:
    config = sweep_config(combine="average")
    config.ensemble.student.enabled, config.ensemble.student.sizes = True, {"width": [4, 8]}
    directory = stored(tmp_path, config)
    skills = {"student-00000": 2.0, "labels-00000": 0.5, "student-00001": 1.0, "labels-00001": 0.5}
    specs = []
    for name, skill in skills.items():
        width = 4 if name.endswith("0") else 8
        own = candidate("S", 0, 0).config
        origin = name.partition("-")[0]
        specs.append(
            TrialSpec(trial_id=name, setting_id=name, params={"width": width}, seed=0, origin=origin)
        )
        each = Candidate(
            trial_id=name, setting_id=name, seed=0, step=0, kind=STUDENT, config=own,
            checkpoint=tmp_path / "ensemble" / "checkpoints" / name / "best.pt",
        )  # fmt: skip
        for split in ("validation", "test"):
            predict = MadeUp({(f"{name}/best", split): skill})
            write_predictions(directory, name, [(each, predict(own, each.checkpoint, split))], split)
    write_trials(directory.phase(ENSEMBLE, ENSEMBLE).trials, specs)
    choose(directory, config)
    result = measure(directory, config)
    assert result["student"]["chosen"]["trial_id"] == "student-00000"
    assert {"student", "student_labels"} <= set(result["test"])
    assert result["gains"]["student_over_labels"]["low"] > 0
    below = result["gains"]["student_below_ensemble"]["value"]
    assert below == pytest.approx(result["test"]["ensemble"] - result["test"]["student"])
    assert set(result["temperature"]) == {"best_single", "ensemble", "student"}
    assert set(result["validation"]) == {*result["test"]}


def test_the_command_tries_and_then_combines_anew(tmp_path: Path) -> None:
    file = write_user_sweep(tmp_path / "user", sweep=SWEEP.replace("name: score", "name: val/accuracy"))
    planned = work_out(file, [f"dir={tmp_path / 'planned'}"])
    freeze_plan(planned)
    directory, path = planned.directory, planned.directory.path
    nothing = CliRunner().invoke(main, ["ensemble", str(path)])
    assert (nothing.exit_code, "not measured yet" in nothing.output) == (2, True), nothing.output
    stored(path, QUICK)
    choose(directory, QUICK)
    measure(directory, QUICK)
    before = directory.ensemble_result.read_text()

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["ensemble", str(path), *arguments])

    tried = call("ensemble.combine=logits", "--dry-run")
    assert (tried.exit_code, directory.ensemble_result.read_text()) == (0, before)
    assert "validation accuracy, ensemble" in tried.output
    assert "no test label was read" in tried.output
    assert json.loads(call("ensemble.combine=logits", "--dry-run", "--json").output)["combine"] == "logits"
    done = call("ensemble.combine=logits")
    assert done.exit_code == 0, done.output
    assert "2 choices" in done.output
    assert json.loads(directory.ensemble_result.read_text())["test_looks"] == 2
    assert (directory.choice.parent / "ensemble-0001.json").read_text() == before
    wrong = call("ensemble.combine=logit")
    assert wrong.exit_code == 2
