"""Trust: the rank correlation between scales, its interval, and what follows from it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from orchestrator.planning.narrowing.evidence import StageResults
from orchestrator.planning.narrowing.trust import (
    Agreement,
    agreement,
    carries_over,
    describe,
    from_json,
    hardness,
    survivors_wanted,
    to_json,
)
from orchestrator.planning.sampling.observation import Observation


def results(name: str, objectives: Sequence[tuple[int, float]], settled: bool = True) -> StageResults:
    seen = tuple(Observation({"x": setting}, value, 1.0, settled) for setting, value in objectives)
    return StageResults(name=name, scale=1.0, observations=seen)


def trust(correlation: float, low: float, high: float, settings: int = 12) -> Agreement:
    return Agreement(
        low="coarse", high="fine", settings=settings, correlation=correlation, interval=(low, high)
    )


def two_stages(
    rng: random.Random, correlation: float, trials: int, survivors: int, controls: int
) -> Agreement:
    """Two stages with a known correlation: the best of the first run again, and others from all over it."""
    first = sorted((rng.gauss(0, 1) for _ in range(trials)), reverse=True)
    rest = trials - survivors
    again = [*range(survivors), *(survivors + int((i + 0.5) * rest / controls) for i in range(controls))]
    noise = math.sqrt(1 - correlation**2)
    found = agreement(
        results("low", list(enumerate(first))),
        results("high", [(i, correlation * first[i] + noise * rng.gauss(0, 1)) for i in again]),
    )
    assert found is not None
    return found


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.85])
@pytest.mark.parametrize(("survivors", "controls"), [(8, 4), (16, 8), (12, 0)])
def test_the_interval_holds_the_truth_although_survivors_were_chosen_by_their_results(
    correlation: float, survivors: int, controls: int
) -> None:
    rng = random.Random(1)
    truth = 2 / math.pi * math.asin(correlation)
    found = [two_stages(rng, correlation, 64, survivors, controls) for _ in range(200)]
    inside = sum(one.interval[0] <= truth <= one.interval[1] for one in found) / len(found)
    assert inside > 0.83
    assert sum(one.correlation for one in found) / len(found) == pytest.approx(truth, abs=0.1)


def test_it_is_kendalls_tau_where_the_range_is_not_restricted() -> None:
    rng = random.Random(3)
    first = [rng.gauss(0, 1) for _ in range(20)]
    second = [round(value + rng.gauss(0, 1)) for value in first]
    found = agreement(results("a", list(enumerate(first))), results("b", list(enumerate(second))))
    assert found is not None
    assert (found.low, found.high, found.settings) == ("a", "b", 20)
    assert found.correlation == pytest.approx(float(kendalltau(first, second).statistic))
    assert found.interval[0] < found.correlation < found.interval[1]


def test_too_few_settings_say_nothing() -> None:
    one = results("a", [(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4), (4, 0.5)])
    assert agreement(one, results("b", [(7, 0.1)])) is None
    for few in (
        [(0, 0.1), (1, 0.2), (2, 0.3)],
        [(i, 0.5) for i in range(5)],
        [(i, math.nan) for i in range(5)],
        [(i, i / 10) for i in range(4)],
    ):
        found = agreement(one, results("b", few))
        assert found is not None
        assert math.isnan(found.correlation)
        assert found.interval == (-1.0, 1.0)
        assert found.settings == len(few)


@pytest.mark.parametrize("sign", [1, -1])
def test_more_settings_in_perfect_order_are_never_relied_on_less(sign: int) -> None:
    before = -1.0
    for count in range(2, 30):
        in_order = [(i, i / 10) for i in range(count)]
        found = agreement(results("a", in_order), results("b", [(i, sign * x) for i, x in in_order]))
        assert found is not None
        if count > 4:
            assert found.interval[0] <= found.correlation <= found.interval[1]
        if sign > 0:
            assert hardness(found) >= before, count
            before = hardness(found)


def test_pruned_trials_tie_below_the_others_and_repeats_are_averaged() -> None:
    low = results("a", [(i, float(i)) for i in range(8)])
    high = [Observation({"x": i}, float(i)) for i in range(2, 8)]
    # Early values that look best.
    high += [Observation({"x": i}, 100.0 + i, 1.0, False) for i in range(2)]
    found = agreement(low, StageResults(name="b", scale=1.0, observations=tuple(high)))
    assert found is not None
    assert found.correlation > 0.9
    twice = [*high[:6], *(Observation({"x": i}, 2.0 * i - 100 * (i == 7)) for i in range(2, 8))]
    lower = agreement(low, StageResults(name="b", scale=1.0, observations=tuple(twice)))
    assert lower is not None
    assert lower.settings == 6
    assert lower.correlation < 0.9


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), max_size=30), st.randoms(use_true_random=False)
)
def test_what_holds_for_any_results(pairs: list[tuple[float, float]], shuffle: random.Random) -> None:
    low = [(i, pair[0]) for i, pair in enumerate(pairs)]
    high = [(i, pair[1]) for i, pair in enumerate(pairs) if i % 3 < 2]
    found = agreement(results("a", low), results("b", high))
    if not high:
        assert found is None
        return
    assert found is not None
    assert -1 <= found.interval[0] <= found.interval[1] <= 1
    assert math.isnan(found.correlation) or -1 - 1e-9 <= found.correlation <= 1 + 1e-9
    assert 0 <= hardness(found) <= 1
    assert describe(found)
    shuffle.shuffle(low)
    shuffle.shuffle(high)
    # As text, because NaN is not equal to itself.
    assert repr(agreement(results("a", low), results("b", high))) == repr(found)


def test_hardness_follows_the_estimate_and_how_sure_it_is() -> None:
    assert hardness(None) == 1
    assert hardness(trust(0.7, 0.5, 0.85)) == 1
    sure, unsure = hardness(trust(0.4, 0.3, 0.5)), hardness(trust(0.4, 0.0, 0.7))
    assert 0 < unsure < sure < 1
    assert hardness(trust(math.nan, -1, 1, 3)) == 0.5
    assert hardness(trust(0.15, 0.1, 0.19)) == 0
    assert hardness(trust(0.05, -0.5, 0.6)) == 0


def test_how_many_survive() -> None:
    assert survivors_wanted(9, None, 60) == 9
    assert survivors_wanted(9, trust(math.nan, -1, 1, 3), 60) == 9
    assert survivors_wanted(9, trust(0.8, 0.65, 0.9), 60) == 6
    assert survivors_wanted(9, trust(0.5, 0.35, 0.7), 60) == 9
    assert 9 < survivors_wanted(9, trust(0.4, 0.0, 0.7), 60) <= 18
    assert survivors_wanted(9, trust(0.4, 0.0, 0.7), 20) == 10, "half of the stage is for new settings"
    assert survivors_wanted(9, trust(0.4, 0.0, 0.7), 12) == 9, "the plan has more than half"
    assert survivors_wanted(9, trust(0.0, -0.3, 0.3), 60) == 9
    assert not carries_over(trust(0.0, -0.3, 0.3))
    assert survivors_wanted(0, trust(0.4, 0.0, 0.7), 60) == 0
    assert survivors_wanted(1, trust(0.8, 0.65, 0.9), 60) == 1


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            trust(0.72, 0.5, 0.85),
            "rankings carry over from coarse to fine (Kendall's tau 0.72, 90% interval 0.50 … 0.85, "
            "12 settings): ranges are narrowed as configured",
        ),
        (trust(0.4, 0.1, 0.6), "rankings carry over loosely"),
        (trust(0.0, -0.3, 0.3), "survivors come from all over the ranking"),
        (trust(math.nan, -1, 1, 1), "1 setting that ran at both coarse and fine can't tell"),
    ],
)
def test_it_says_in_words_what_follows(found: Agreement, words: str) -> None:
    assert words in describe(found)


def test_it_survives_being_written_down() -> None:
    found = trust(0.72, 0.5, 0.85)
    assert from_json(to_json(found)) == found
    nothing = from_json(to_json(trust(math.nan, -1, 1, 3)))
    assert nothing is not None
    assert math.isnan(nothing.correlation)
    assert to_json(nothing)["correlation"] is None, "JSON has no NaN"
    assert from_json(None) is None
