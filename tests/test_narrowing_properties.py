"""Narrowing: what must hold for any results."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from made_results import histories, number
from made_results import stage as ran
from orchestrator.planning.finished import Finished
from orchestrator.planning.merit import merits
from orchestrator.planning.narrowing import importance
from orchestrator.planning.narrowing.evidence import standing
from orchestrator.planning.narrowing.narrow import StageResults, narrow
from orchestrator.planning.narrowing.trust import Agreement, agreement
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.pooling import pool
from orchestrator.planning.sampling.samplers import sample
from orchestrator.space import CHOICE, FLOAT, INT, Parameter, setting_id
from orchestrator.sweep.directory import TrialSpec

KEEP, MARGIN = 0.25, 0.2
Case = tuple[tuple[Parameter, ...], list[StageResults]]

trusts = st.sampled_from(
    [
        None,
        Agreement(low="a", high="b", settings=12, correlation=0.8, interval=(0.6, 0.9)),
        Agreement(low="a", high="b", settings=8, correlation=0.3, interval=(-0.2, 0.6)),
        Agreement(low="a", high="b", settings=20, correlation=0.02, interval=(-0.2, 0.25)),
        Agreement(low="a", high="b", settings=3, correlation=math.nan, interval=(-1.0, 1.0)),
    ]
)


@pytest.fixture(autouse=True, scope="module")
def quick_importance() -> Iterator[None]:
    """Many examples: by the fast evaluator alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "FEW_RESULTS", 0)
        yield


slow = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def best_with(name: str, stages: Sequence[StageResults]) -> list[Observation]:
    """The best trials of the last stage among those that have a parameter; several when they are equal."""
    there = [
        seen for seen in stages[-1].observations if name in seen.params and math.isfinite(seen.objective)
    ]
    top = min((standing(seen) for seen in there), default=None)
    return [seen for seen in there if standing(seen) == top]


@slow
@given(histories(), st.floats(0.01, 1), st.floats(0, 2), trusts)
def test_what_holds_for_any_results(case: Case, keep: float, margin: float, trust: Agreement | None) -> None:
    space, stages = case
    after = narrow(space, stages, keep=keep, margin=margin, trust=trust)
    assert [p.name for p in after] == [p.name for p in space]
    for before, now in zip(space, after, strict=True):
        best = best_with(now.name, stages)
        assert not best or any(now.contains(seen.params[now.name]) for seen in best)
        assert now.reason != before.reason
        assert (now.kind, now.log, now.limits) == (before.kind, before.log, before.limits)
        assert (now.ordered, now.when) == (before.ordered, before.when)
        if now.kind == CHOICE:
            assert now.values
            known = {(type(v), v) for v in before.values} | {
                (type(seen.params[now.name]), seen.params[now.name]) for seen in best
            }
            assert {(type(v), v) for v in now.values} <= known
            continue
        assert math.isfinite(now.low)
        assert math.isfinite(now.high)
        assert now.low <= now.high
        floor, ceiling = now.limits
        assert floor is None or now.low >= floor
        assert ceiling is None or now.high <= ceiling
        assert not now.log or now.low > 0
        if now.kind == INT:
            assert isinstance(now.low, int)
            assert isinstance(now.high, int)


@slow
@given(histories(), st.randoms(use_true_random=False), trusts)
def test_the_order_of_the_results_does_not_matter(
    case: Case, shuffle: random.Random, trust: Agreement | None
) -> None:
    space, stages = case
    mixed = []
    for stage in stages:
        seen = [replace(one, params=dict(reversed(list(one.params.items())))) for one in stage.observations]
        shuffle.shuffle(seen)
        mixed.append(replace(stage, observations=tuple(seen)))
    expected = narrow(space, stages, keep=KEEP, margin=MARGIN, trust=trust)
    assert narrow(space, mixed, keep=KEEP, margin=MARGIN, trust=trust) == expected


@slow
@given(histories(), st.floats(0, 1), st.integers(1, 40), st.booleans())
def test_worse_trials_never_throw_the_best_region_out(
    case: Case, where: float, number: int, diverged: bool
) -> None:
    space, stages = case
    finite = [seen.objective for seen in stages[-1].observations if math.isfinite(seen.objective)]
    worst = -math.inf if diverged else min(finite, default=0.0) - 1
    worse = tuple(
        Observation({p.name: p.from_unit((where + i / 50) % 1) for p in space}, worst, stages[-1].scale)
        for i in range(number)
    )
    more = [*stages[:-1], replace(stages[-1], observations=(*stages[-1].observations, *worse))]
    settled = [seen for seen in stages[-1].observations if seen.settled and math.isfinite(seen.objective)]
    for now in narrow(space, more, keep=KEEP, margin=MARGIN, trust=None):
        there = sorted(
            (seen for seen in settled if now.name in seen.params), key=lambda seen: -seen.objective
        )
        if now.kind == CHOICE or len(there) < 4 or there[2].objective == there[3].objective:
            continue
        # All of where the three best lie is still inside, whatever else was found to be bad.
        assert all(now.contains(seen.params[now.name]) for seen in there[:3])


@slow
@given(histories(), st.integers(0, 9), trusts)
def test_a_narrowed_space_can_be_sampled_and_narrowed_again(
    case: Case, seed: int, trust: Agreement | None
) -> None:
    space, stages = case
    after = narrow(space, stages, keep=KEEP, margin=MARGIN, trust=trust)
    found = tuple(
        Observation(params, float(i % 5)) for i, params in enumerate(sample(after, 12, "sobol", seed))
    )
    for seen in found:
        assert all(p.contains(seen.params[p.name]) for p in after)
    again = [*stages, StageResults(name="next", scale=1.0, observations=found)]
    narrow(after, again, keep=KEEP, margin=MARGIN, trust=trust)


def test_means_of_results_as_large_as_a_float_holds() -> None:
    """A finite loss of 1e308 is a result like any other: its mean must not overflow."""
    for size in (9e307, 1.7976931348623157e308, 1e160):
        rows = [
            Observation({"x": x / 20}, objective, scale)
            for scale in (1 / 3, 1.0)
            for x in range(20)
            for objective in ([-size] * 7 if x == 0 else [-float(x), -x - 0.5])
        ]
        best = [item.params["x"] for item in sorted(pool(rows), key=lambda item: -item.score)]
        assert best == [*(x / 20 for x in range(1, 20)), 0.0]
        low, high = (
            StageResults(name=name, scale=scale, observations=tuple(o for o in rows if o.scale == scale))
            for name, scale in (("a", 1 / 3), ("b", 1.0))
        )
        found = agreement(low, high)
        assert found is not None
        assert found.correlation == pytest.approx(1.0)
        done = [
            Finished(
                spec=TrialSpec(
                    trial_id=f"t{i}", setting_id=setting_id(row.params), params=row.params, seed=i
                ),
                objective=row.objective,
            )
            for i, row in enumerate(rows)
        ]
        ordered = merits(done)
        assert [merit.params["x"] for merit in ordered] == best
        assert ordered[-1].mean == -size


def test_a_range_of_all_that_a_float_holds_moves_past_its_edges() -> None:
    """Neither to zero nor to infinity, where nothing could be computed any more."""
    for low, high, log in ((1e-300, 1e300, True), (-8e307, 8e307, False), (-8e307, 9e307, False)):
        for sign in (1, -1):
            space: tuple[Parameter, ...] = (Parameter(name="x", kind=FLOAT, low=low, high=high, log=log),)
            for _ in range(4):
                results = ran(space, lambda p, x=space[0], sign=sign: sign * x.to_unit(number(p["x"])))  # type: ignore[misc]
                (now,) = space = narrow(space, [results], keep=KEEP, margin=MARGIN, trust=None)
                assert math.isfinite(now.high - now.low)
                assert now.low > 0 or not log
