"""How much more data would help: what is told of known laws of learning, and what can't be told."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrator
from made_sweep import make_sweep
from orchestrator import Results, plots
from orchestrator.results.compact import compact
from orchestrator.results.more_data import TIMES, MoreData, Point, more_data

SAMPLES = {"coarse": 1000, "medium": 3000, "fine": 10_000, "final": 10_000}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    sweep = make_sweep(tmp_path_factory.mktemp("sweep") / "s")
    compact(sweep)
    return orchestrator.load_results(sweep)


def alike(
    results: Results,
    law: Callable[[float], float],
    scales: Mapping[str, Mapping[str, Any]] | None = None,
    mode: str = "max",
) -> Results:
    """The sweep with stages that differ in data alone, and a best error that follows a law of samples."""
    plan = copy.deepcopy(dict(results.plan))
    for phase in plan["phases"]:
        phase["samples"] = SAMPLES.get(phase["name"])
        phase["scale"] = {
            "data": 1.0,
            "classes": None,
            "epochs": 5.0,
            **(scales or {}).get(phase["name"], {}),
        }
    trials = results.trials.copy()
    for stage, rows in trials.groupby("stage", observed=True):
        order = np.arange(len(rows))
        errors = law(SAMPLES[str(stage)]) * (1 + 0.01 * order)
        trials.loc[rows.index, "objective"] = 1 - errors if mode == "max" else errors
        trials.loc[rows.index, "state"] = "completed"
    return replace(results, plan=plan, trials=trials, mode=mode)


def power(exponent: float, floor: float = 0.0) -> Callable[[float], float]:
    return lambda samples: floor + 0.1 * (samples / 10_000) ** -exponent


def test_a_power_law_is_found_and_twice_the_data_lies_in_the_interval(results: Results) -> None:
    found = more_data(alike(results, power(0.35)))
    assert found is not None
    assert found.known
    assert [point.stage for point in found.points] == ["coarse", "medium", "fine"]
    assert found.left_out == {"final": "as many samples as fine"}
    low, high = found.gain
    assert low <= 1 - TIMES**-0.35 <= high
    assert 0 < low < high < 0.4
    assert "More data would help: twice the 10,000 training samples of fine" in found.sentence
    assert found.caveats == ()
    assert plots.more_data(results, found).to_json()


def test_a_curve_that_has_levelled_off_says_that_more_data_hardly_help(results: Results) -> None:
    found = more_data(alike(results, lambda samples: 0.1))
    assert found is not None
    assert found.gain[1] < 0.05
    assert found.sentence.startswith("More data would hardly help")


def test_two_sizes_leave_everything_from_nothing_to_a_law_without_floor(results: Results) -> None:
    found = more_data(alike(results, power(0.3), scales={"coarse": {"classes": 2}}))
    assert found is not None
    assert len(found.points) == 2
    assert found.left_out["coarse"] == "other classes"
    assert found.gain[0] < 0.05
    assert found.gain[1] > 1 - TIMES**-0.3
    assert found.sentence.startswith("More data may help")


def test_stages_of_other_problems_are_not_compared(results: Results) -> None:
    assert results.ensemble is not None
    found = more_data(results)
    assert found is not None
    assert not found.known
    assert "only 1,437 samples were tried so far at the problem of fine" in found.sentence
    assert found.left_out["coarse"] == "other classes"


def test_other_epochs_are_said(results: Results) -> None:
    scales = {"coarse": {"epochs": 3.0}, "medium": {"epochs": 6.0}, "fine": {"epochs": 10.0}}
    found = more_data(alike(results, power(0.35), scales))
    assert found is not None
    assert "trained for 3, 6, 10 epochs" in found.caveats[0]


def test_losses_are_errors_and_unbounded_scores_are_none(results: Results) -> None:
    found = more_data(alike(results, power(0.35), mode="min"))
    assert found is not None
    assert found.error == "val/accuracy"
    assert found.known
    unbounded = alike(results, lambda samples: -3.0)  # objectives of 4
    assert "nothing says what the best possible" in _sentence(more_data(unbounded))
    rising = alike(results, lambda samples: samples / 20_000)
    assert "the error rises from 0.05 with 1,000 samples" in _sentence(more_data(rising))
    perfect = alike(results, lambda samples: 0.0)
    assert "makes no errors" in _sentence(more_data(perfect))


def test_a_job_that_does_not_tell_its_samples_is_told_of(results: Results) -> None:
    plan = {**results.plan, "phases": [{**phase, "samples": None} for phase in results.plan["phases"]]}
    unknown = replace(results, plan=plan)
    assert "known to the job alone" in _sentence(more_data(unknown))
    assert more_data(replace(unknown, trials=results.trials.head(0))) is None


def _sentence(found: MoreData | None) -> str:
    assert found is not None
    return found.sentence


def test_a_stage_that_still_runs_does_not_count_yet(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", done=0.7)
    compact(sweep)
    running = orchestrator.load_results(sweep)
    assert 0 < len(running.at("medium")) < 24
    found = more_data(running)
    assert found is not None
    assert [point.stage for point in found.points] == ["coarse"]
    begun = make_sweep(tmp_path / "begun", done=0)
    assert more_data(orchestrator.load_results(begun, missing_ok=True)) is None


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 10**9), min_size=2, max_size=5, unique=True),
    errors=st.lists(st.floats(1e-9, 1e6), min_size=5, max_size=5),
    noise=st.floats(1e-3, 1.0),
)
def test_whatever_the_points_an_interval_is_one(
    sizes: Sequence[int], errors: Sequence[float], noise: float
) -> None:
    from orchestrator.results.more_data import fitted

    points = tuple(
        Point(str(size), size, None, error, noise * error)
        for size, error in zip(sorted(sizes), errors, strict=False)
    )
    found = fitted("loss", points, {})
    assert 0 <= found.gain[0] <= found.gain[1] <= 1
    rows = np.array([found.low, found.middle, found.high])
    assert np.isfinite(rows).all()
    assert (np.diff(rows, axis=0) >= -1e-9 * rows.max()).all()
    assert (np.diff(rows, axis=1) <= 1e-9 * rows.max()).all(), "more samples never raise the error"
