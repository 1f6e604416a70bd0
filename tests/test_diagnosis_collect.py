"""What a stage's findings say together, and what a run's predictions say."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrator
from made_sweep import make_sweep
from orchestrator import UserError
from orchestrator.diagnosis import detail
from orchestrator.diagnosis.collect import AT, BELOW, Diagnosed, bounds, collect, read_stage
from orchestrator.diagnosis.finding import finding
from orchestrator.diagnosis.predictions import describe
from orchestrator.report.diagnosis import best_final, findings_of
from orchestrator.report.html import page
from orchestrator.results.compact import compact
from orchestrator.space import CHOICE, FLOAT, Parameter
from orchestrator.sweep.digest import digest_of
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.records import encode

LR = Parameter(name="lr", kind=FLOAT, low=1e-4, high=10.0, log=True)
WIDTH = Parameter(name="width", kind=FLOAT, low=8, high=128)
RELU = Parameter(name="act", kind=CHOICE, values=("relu", "tanh"))


def stage(count: int = 40, above: float = 0.3, wrong: float = 0.0, seed: int = 0) -> list[Diagnosed]:
    """Trials that explode above a rate; of these and of the others some wrongly."""
    draw = random.Random(seed)
    trials = []
    for number in range(count):
        lr = 10 ** (-4 + 5 * (number + 0.5) / count)
        params = {"lr": lr, "width": draw.uniform(8, 128), "act": draw.choice(["relu", "tanh"])}
        explodes = (lr > above) != (draw.random() < wrong)
        trials.append(Diagnosed(params, {"lr_too_large": 7 + number % 5} if explodes else {}))
    return trials


def test_the_parameter_and_the_threshold_that_part_the_trials_are_found() -> None:
    (one,) = collect(stage())
    assert (one.parameter, one.side, one.share, one.elsewhere) == ("lr", "above", 1.0, 0.0)
    assert isinstance(one.threshold, float) and 0.2 < one.threshold < 0.4 and one.count == one.trials == 12
    assert one.sentence == (
        f"100% of the trials with lr above {one.threshold:.3g} explode in the first 11 updates "
        "(12 of 12; of the others 0%)"
    )


def test_without_a_pattern_all_trials_are_meant() -> None:
    draw = random.Random(4)
    trials = [Diagnosed(one.params, {"overfitting": 90} if draw.random() < 0.3 else {}) for one in stage()]
    (one,) = collect(trials)
    assert (one.parameter, one.side, one.threshold) == ("", "", None) and one.trials == 40
    assert one.sentence.endswith(f"overfit ({one.count} of 40)")


def test_few_trials_say_nothing_of_a_threshold() -> None:
    assert collect(stage(6))[0].parameter == ""
    assert collect([]) == () and collect([Diagnosed({}, {})]) == ()


def test_a_choice_can_part_the_trials_too() -> None:
    trials = [
        Diagnosed(one.params, {"dead_units": 9} if one.params["act"] == "relu" else {}) for one in stage()
    ]
    (one,) = collect(trials)
    assert (one.parameter, one.side, one.threshold) == ("act", AT, "relu") and "with act relu" in one.sentence


def test_low_values_and_parameters_that_are_not_always_there() -> None:
    trials = [
        Diagnosed({"width": one.params["width"], **({"lr": one.params["lr"]} if i % 2 else {})},
                  {"underfitting": 50} if one.params["width"] < 40 else {})
        for i, one in enumerate(stage(80))
    ]  # fmt: skip
    (one,) = collect(trials)
    assert (one.parameter, one.side) == ("width", BELOW)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 10_000), st.floats(0, 1), st.randoms())
def test_whatever_the_trials_the_counts_hold_and_their_order_is_irrelevant(
    count: int, seed: int, wrong: float, order: random.Random
) -> None:
    trials = stage(count, seed=seed, wrong=wrong)
    found = collect(trials)
    shuffled = list(trials)
    order.shuffle(shuffled)
    assert collect(shuffled) == found
    for one in found:
        assert 0 <= one.count <= one.trials <= count and math.isclose(one.share * one.trials, one.count)
        low, high, _ = bounds(found, [LR, WIDTH, RELU]).get("lr", (None, None, ""))
        assert (low is None or low >= LR.low) and (high is None or LR.low < high < LR.high)


def test_explosions_bound_the_next_range_with_a_reason() -> None:
    low, high, reason = bounds(collect(stage()), [LR, WIDTH, RELU])["lr"]
    assert low is None and high == collect(stage())[0].threshold and "explode in the first" in reason


@pytest.mark.parametrize(
    "trials",
    [
        stage(wrong=0.35),  # not clear enough
        [Diagnosed(one.params, one.steps if i % 5 < 3 else {}) for i, one in enumerate(stage(100))],
        stage(above=1e-3),  # too little would be left
        [Diagnosed(one.params, {"overfitting": 9} if one.steps else {}) for one in stage()],
        stage(6),
    ],
)
def test_nothing_else_bounds_a_range(trials: list[Diagnosed]) -> None:
    assert bounds(collect(trials), [LR, WIDTH, RELU]) == {}
    assert bounds(collect(stage()), [WIDTH, RELU]) == {}


def test_findings_are_read_from_records_and_passed_over_by_the_digest(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"kind": "task", "token": "t"},
        {"kind": "start", "trial": "a", "time": 1.0},
        finding("dead_units", "90% in first", 64).line("a"),
        {"kind": "outcome", "trial": "a", "state": "completed", "metrics": {"score": 1.0}, "seconds": 1.0},
    ]
    data = "".join(encode(line) for line in lines)
    (tmp_path / "0000-0000-0.jsonl").write_text(data + '{"kind":"finding","trial":"a","co')
    assert read_stage(tmp_path, {"a": {"lr": 0.1}, "b": {}}) == (
        Diagnosed({"lr": 0.1}, {"dead_units": 64}),
        Diagnosed({}, {}),
    )
    without = "".join(encode(line) for line in lines if line["kind"] != "finding")
    seen, expected = digest_of(data.encode()), digest_of(without.encode())
    assert (seen.outcomes, seen.started, seen.unreadable) == (expected.outcomes, expected.started, 0)


def test_findings_are_columns_of_the_results_and_a_section_of_the_page(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(24,), finals=3)
    directory = SweepDirectory(sweep)
    for path in sorted(directory.phase("stage", "coarse").records.glob("*.jsonl")):
        made = []
        for raw in path.read_text().splitlines():
            line = json.loads(raw)
            if line["kind"] == "outcome":
                made.append(
                    encode(finding("overfitting", "<b>1</b> and 0.8", 90).line(line["trial"])).strip()
                )
            made.append(raw)
        path.write_text("\n".join(made) + "\n")
    folder = directory.phase("final", "final")
    compact(sweep)
    results = orchestrator.load_results(sweep)
    rows = results.at("coarse")
    assert set(rows["diagnosis"]) == {"overfitting"} and len(rows) == 24
    assert set(rows["diagnosis_evidence"]) == {"overfitting at 90: <b>1</b> and 0.8"}
    assert findings_of(results, "coarse")[0].count == 24 and findings_of(results, "final") == ()
    # A final run's description: one that is damaged is passed over.
    best, other = results.best(2, "final")["trial_id"]
    for trial in (best, other):
        folder.checkpoints(trial).mkdir(parents=True, exist_ok=True)
    (folder.checkpoints(best) / detail.NAME).write_text('{"predictions": {"worst')
    described = describe(*predictions(), class_names=["<i>a</i>", "b", "c"], inputs=np.random.rand(60, 8, 8))
    detail.write(folder.checkpoints(other), predictions=described)
    found = best_final(results)
    assert found is not None and found[0] == other
    text = page(results, now=0.0)
    assert "100% of the trials overfit (24 of 24)" in text and "data:image/png;base64,iVBOR" in text
    assert "<i>a</i>" not in text and "expected error" in text and "accuracy against coverage" in text


def predictions(samples: int = 60, seed: int = 0) -> tuple[Any, Any]:
    """Probabilities of three classes that are right with the probability that they say."""
    draw = np.random.default_rng(seed)
    confidence = draw.uniform(0.4, 1.0, samples)
    labels = draw.integers(0, 3, samples)
    guess = np.where(draw.random(samples) < confidence, labels, (labels + 1) % 3)
    probabilities = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    probabilities[np.arange(samples), guess] = confidence
    return probabilities, labels


def test_predictions_are_described() -> None:
    probabilities, labels = predictions(5000)
    found = describe(probabilities, labels)
    assert json.loads(json.dumps(detail.plain(found)))
    counts = np.asarray(found["confusion"]["counts"])
    assert counts.sum() == 5000 and math.isclose(np.trace(counts) / 5000, found["accuracy"])
    # Right as often as it says: calibrated, and better where it is sure.
    assert found["calibration"]["error"] < 0.03
    assert found["coverage"]["accuracy"][0] > 0.95 > found["coverage"]["accuracy"][-1] == found["accuracy"]
    confident = [one["confidence"] for one in found["worst"]]
    assert confident == sorted(confident, reverse=True) and len(confident) == 16
    assert all(one["target"] != one["predicted"] for one in found["worst"])


def test_overconfidence_shows_as_calibration_error() -> None:
    probabilities, labels = predictions(3000)
    sharp = probabilities**4 / (probabilities**4).sum(1, keepdims=True)
    assert describe(sharp, labels)["calibration"]["error"] > 0.1


def test_predicted_values_are_described() -> None:
    targets = np.arange(10.0)
    found = describe((targets + np.asarray([5.0] + [0.1] * 9))[:, None], targets, inputs=np.ones((10, 3)))
    assert found["worst"][0]["id"] == 0 and found["worst"][0]["values"] == [1, 1, 1]
    assert math.isclose(found["rmse"], math.sqrt((25 + 9 * 0.01) / 10)) and "confusion" not in found


def test_predictions_that_make_no_sense_are_refused_or_left_out() -> None:
    probabilities, labels = predictions()
    with pytest.raises(UserError, match="do not fit"):
        describe(probabilities[:10], labels)
    with pytest.raises(UserError, match="of 3 classes"):
        describe(probabilities, labels + 1)
    probabilities[0] = math.nan
    assert describe(probabilities, labels)["not_finite"] == 1
    assert describe(probabilities[:0], labels[:0]) == {"samples": 0, "not_finite": 0}
