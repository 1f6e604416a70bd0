"""Pooling: results of several scales become one order, in which the higher scale has the last word."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.pooling import digest, pool


def scores(history: Sequence[Observation]) -> dict[float, float]:
    return {item.params["x"]: item.score for item in pool(history)}


def seen(x: float, objective: float, scale: float = 1.0, settled: bool = True) -> Observation:
    return Observation({"x": x}, objective, scale=scale, settled=settled)


objectives = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -math.inf, math.nan]))
histories = st.lists(
    st.builds(seen, st.integers(0, 12), objectives, st.sampled_from([1 / 9, 1 / 3, 1.0]), st.booleans()),
    max_size=40,
)


@given(histories, st.randoms())
def test_one_finite_score_each_in_whatever_order(history: list[Observation], order: random.Random) -> None:
    pooled = pool(history)
    assert len({item.params["x"] for item in pooled}) == len(pooled)
    assert {item.params["x"] for item in pooled} == {trial.params["x"] for trial in history}
    assert all(math.isfinite(item.score) for item in pooled)
    assert [item.scale for item in pooled] == sorted(item.scale for item in pooled)
    mixed = order.sample(history, len(history))
    assert pool(mixed) == pooled


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30, unique=True), st.floats(0.1, 1e3))
def test_the_level_of_a_scale_means_nothing(values: list[float], stretch: float) -> None:
    assert scores([seen(i, v) for i, v in enumerate(values)]) == scores(
        [seen(i, float(sorted(values).index(v)) * stretch - 7) for i, v in enumerate(values)]
    )


def test_within_a_scale_settled_before_early_before_diverged() -> None:
    got = scores([seen(0, 0.1), seen(1, 0.9, settled=False), seen(2, -math.inf), seen(3, 0.5, settled=False),
                  seen(4, math.nan), seen(5, 0.3)])  # fmt: skip
    assert got[5] > got[0] > got[1] > got[3] > got[2] == got[4]
    assert got[3] - got[2] == pytest.approx(1)


def test_equal_results_have_equal_scores_around_the_middle() -> None:
    assert set(scores([seen(i, 0.5) for i in range(7)]).values()) == {0.0}
    assert set(scores([seen(i, -math.inf) for i in range(7)]).values()) == {-1.0}


def test_the_highest_scale_speaks_for_a_setting() -> None:
    low = [seen(i, float(i), 1 / 9) for i in range(10)]
    # 9 was the best below, and is the worst of those that went on.
    high = [seen(9, 0.1), seen(8, 0.5), seen(7, 0.9)]
    got = scores(low + high)
    assert got[7] > got[8] > got[9]
    assert got[7] == max(got.values())
    # What was left behind stays in its order, and behind those that went on and did well.
    assert sorted(range(7), key=got.__getitem__) == list(range(7))
    assert got[6] < got[8]


def test_a_lower_scale_is_laid_against_the_higher_where_they_met() -> None:
    low = [seen(i, float(i), 1 / 9) for i in range(20)]
    apart = scores(low + [seen(100 + i, float(i)) for i in range(4)])
    met = scores(low + [seen(16 + i, float(i)) for i in range(4)])
    # The best four went on: the middle one of those left behind is worse than the middle of the four.
    assert met[8] < apart[8] < 0.1
    assert met[17] == pytest.approx(apart[101])


def test_a_lower_scale_says_less_with_its_distance() -> None:
    def spread(scale: float) -> float:
        got = scores([seen(i, float(i), scale) for i in range(9)] + [seen(100, 1.0)])
        return got[8] - got[0]

    assert spread(1 / 81) < spread(1 / 9) < spread(1 / 3) < spread(1.0)


def test_repeats_count_once_by_their_mean() -> None:
    history = [seen(0, 0.4), seen(0, 0.8), seen(1, 0.7), seen(2, 0.5)]
    assert scores(history) == scores([seen(0, 0.6), seen(1, 0.7), seen(2, 0.5)])
    # An early value does not pull down what ended, and one divergence is enough.
    assert scores([*history, seen(0, 0.0, settled=False)]) == scores(history)
    assert scores([*history, seen(1, -math.inf)])[1] == min(scores([*history, seen(1, -math.inf)]).values())


def test_a_digest_keeps_the_best_half_and_some_of_all() -> None:
    pooled = pool([seen(i, float(i)) for i in range(1000)])
    kept = [item.params["x"] for item in digest(pooled, 100)]
    assert len(kept) == len(set(kept)) == 100
    assert set(range(950, 1000)) <= set(kept)
    assert min(kept) < 20
    rest = sorted(x for x in kept if x < 950)
    assert max(b - a for a, b in itertools.pairwise(rest)) <= 20
    assert digest(pooled, 1000) == pooled
