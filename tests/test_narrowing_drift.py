"""Narrowing along a drift: the best values move as the data grow."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from made_results import number, stage
from orchestrator.planning.narrowing import importance
from orchestrator.planning.narrowing.drift import drift
from orchestrator.planning.narrowing.evidence import samples
from orchestrator.planning.narrowing.narrow import StageResults, narrow
from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import FLOAT, Parameter, Value, parse_space

SPACE = parse_space(
    {"lr": "tag(log, interval(1e-5, 1))", "wd": "tag(log, interval(1e-6, 1e-1))"}, {}, "sweep.yaml"
)
SCALES = (1 / 27, 1 / 9, 1 / 3)


def best(scale: float, decades: float) -> float:
    """The best learning rate's decimal logarithm: it falls by so many decades for every third of the data."""
    return -1.5 - decades * (math.log(scale * 27) / math.log(3))


def ladder(decades: float, seed: int, noise: float = 0.1) -> tuple[tuple[Parameter, ...], list[StageResults]]:
    """Run three stages, each in the ranges that the ones before gave; return the last searched ranges too."""
    space, stages = SPACE, []
    rng = random.Random(seed)
    for index, scale in enumerate(SCALES):

        def score(p: dict[str, Value], scale: float = scale) -> float:
            lr, wd = math.log10(number(p["lr"])), math.log10(number(p["wd"]))
            return -((lr - best(scale, decades)) ** 2) - 0.1 * (wd + 3) ** 2 + rng.gauss(0, noise)

        stages.append(stage(space, score, scale=scale, seed=seed))
        if index < len(SCALES) - 1:
            space = narrow(space, stages, keep=0.25, margin=0.2, trust=None)
    return space, stages


def after(space: Sequence[Parameter], stages: Sequence[StageResults]) -> Parameter:
    return narrow(space, stages, keep=0.25, margin=0.2, trust=None)[0]


def test_the_range_moves_along_a_drift() -> None:
    without = 0
    for seed in range(4):
        space, stages = ladder(decades=0.6, seed=seed)
        lr, blind = after(space, stages), after(space, stages[-1:])
        assert "moves along the drift of the good region from 0.0" in lr.reason
        # What will be best at full scale lies well inside, not at the rim.
        wanted = 10 ** best(1.0, 0.6)
        assert 0.15 < lr.to_unit(wanted) < 0.85
        without += not 0.15 < blind.to_unit(wanted) < 0.85
        # And what is best so far is still inside.
        top = max(stages[-1].observations, key=lambda seen: seen.objective)
        assert lr.contains(top.params["lr"])
    assert without >= 3, "a stage alone can't know"


def test_without_a_drift_nothing_moves() -> None:
    moved = 0
    for seed in range(6):
        space, stages = ladder(decades=0.0, seed=seed)
        lr = after(space, stages)
        moved += "moves along" in lr.reason
        assert lr.contains(10 ** best(1.0, 0.0))
    assert moved <= 1


def test_a_parameter_that_does_nothing_is_not_suspected_of_a_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    # Many narrowings: by the fast evaluator alone.
    monkeypatch.setattr(importance, "FEW_RESULTS", 0)
    null = tuple(Parameter(name=name, kind=FLOAT, low=-1.0, high=1.0) for name in "abcd")
    space = (SPACE[0], *null)
    moved = 0
    for seed in range(40):
        rng = random.Random(seed)
        searched: tuple[Parameter, ...] = space
        stages: list[StageResults] = []
        for index, (scale, count) in enumerate(((1 / 9, 64), (1 / 3, 24))):

            def score(p: dict[str, Value], rng: random.Random = rng) -> float:
                return -((math.log10(number(p["lr"])) + 2) ** 2) + rng.gauss(0, 0.1)

            seen = stage(searched, score, count, scale=scale, seed=seed * 10 + index)
            promoted = sorted(stages[0].observations, key=lambda one: -one.objective)[:4] if stages else []
            again = [Observation(one.params, score(dict(one.params)), scale) for one in promoted]
            stages.append(replace(seen, observations=(*again, *seen.observations[len(again) :])))
            before, searched = searched, narrow(searched, stages, keep=0.25, margin=0.2, trust=None)
        pairs = list(zip(before[1:], searched[1:], strict=True))
        moved += sum(now.low < was.low or now.high > was.high for was, now in pairs)
    assert moved < 0.1 * 40 * len(null)


def test_the_reason_tells_the_drift_that_was_measured() -> None:
    stages = []
    for index, scale in enumerate((1 / 9, 1 / 3)):
        rows = [
            Observation({"lr": 10 ** (-5 + 5 * i / 39)}, -abs(i - 4 - 30 * index), scale) for i in range(40)
        ]
        stages.append(StageResults(name=f"stage{index}", scale=scale, observations=tuple(rows)))
    by_stage = [(one, samples(SPACE[:1], one.observations, 0.25)) for one in stages]
    found = drift(SPACE[0], by_stage)
    assert found is not None
    assert found.shift == 0.5 < found.measured < 1
    (lr,) = narrow(SPACE[:1], stages, keep=0.25, margin=0.2, trust=None)
    assert f"({found.measured:+.0%} ± {found.error:.0%} of the width by the next scale, " in lr.reason
    assert "by the next scale, followed for 50%)" in lr.reason


def test_a_drift_is_followed_for_one_step_and_not_beyond_full_scale() -> None:
    space, stages = ladder(decades=0.6, seed=0)
    by_stage = [(one, samples(space, one.observations, 0.25)) for one in stages]
    found = drift(space[0], by_stage)
    assert found is not None
    assert found.sure
    width = math.log10(space[0].high / space[0].low)
    assert -0.8 < found.shift * width < -0.35, "0.6 decades a step"
    assert [name for name, _ in found.places] == [one.name for one in stages]
    full = StageResults(name="full", scale=1.0, observations=stages[-1].observations)
    assert drift(space[0], [*by_stage[:2], (full, by_stage[-1][1])]) is None
    assert drift(space[0], by_stage[-1:]) is None
    # The same results in two stages of the same scale are one scale.
    assert drift(space[0], [by_stage[-1], by_stage[-1]]) is None
