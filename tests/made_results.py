"""Spaces and results for the tests of narrowing: drawn by hypothesis, or from known functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from orchestrator.planning.narrowing.narrow import StageResults
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.samplers import sample
from orchestrator.space import CHOICE, FLOAT, INT, Parameter, Value


@st.composite
def parameters(draw: st.DrawFn, name: str) -> Parameter:
    kind = draw(st.sampled_from((FLOAT, INT, CHOICE)))
    if kind == CHOICE:
        pool: list[Value] = [1, 1.0, True, "a", "b", None, 16, 32]
        values = draw(st.lists(st.sampled_from(range(len(pool))), min_size=1, max_size=5, unique=True))
        ordered = draw(st.booleans())
        return Parameter(name=name, kind=CHOICE, values=tuple(pool[i] for i in values), ordered=ordered)
    log = draw(st.booleans())
    low: float
    high: float
    if kind == INT:
        low = draw(st.integers(1 if log else -50, 1000))
        high = low + draw(st.integers(0, 1000))
    else:
        low = 10 ** draw(st.floats(-9, 3)) if log else draw(st.floats(-100, 100))
        high = low * 10 ** draw(st.floats(0.1, 6)) if log else low + draw(st.floats(0.01, 100))
    floor = draw(st.sampled_from((None, low, low / 2 if low > 0 else low * 2 - 1)))
    ceiling = draw(st.sampled_from((None, high, high * 2 if high > 0 else high / 2 + 1)))
    if log and floor is None:
        floor = draw(st.sampled_from((None, 0.0)))
    if kind == INT:
        floor = None if floor is None else math.floor(floor)
        ceiling = None if ceiling is None else math.ceil(ceiling)
    return Parameter(name=name, kind=kind, low=low, high=high, log=log, limits=(floor, ceiling))


objectives = st.one_of(
    st.floats(-10, 10),
    st.sampled_from((0.0, 0.5, 1.0)),
    st.sampled_from((math.nan, -math.inf, math.inf)),
)


@st.composite
def observations(
    draw: st.DrawFn, space: Sequence[Parameter], scale: float, most: int
) -> tuple[Observation, ...]:
    """Any results in a space, a few promoted from wider ranges, some without a parameter, some pruned."""
    results = []
    for index in range(draw(st.integers(0, most))):
        params: dict[str, Value] = {}
        wide = index % 9 == 8
        for p in space:
            if draw(st.integers(0, 7)) == 7:
                continue
            if not wide:
                params[p.name] = p.from_unit(draw(st.floats(0, 1)))
            elif p.kind == CHOICE:
                params[p.name] = draw(st.sampled_from((*p.values, "dropped")))
            else:
                floor, ceiling = p.limits
                low = p.low if floor is None or (p.log and floor <= 0) else floor
                params[p.name] = draw(st.sampled_from((low, p.high if ceiling is None else ceiling)))
        results.append(Observation(params, draw(objectives), scale, draw(st.integers(0, 5)) < 5))
    return tuple(results)


@st.composite
def histories(draw: st.DrawFn) -> tuple[tuple[Parameter, ...], list[StageResults]]:
    """A space, and one or two stages' results in it."""
    space = tuple(draw(parameters(f"p{index}")) for index in range(draw(st.integers(1, 3))))
    scales = draw(st.sampled_from(((1.0,), (1 / 3,), (1 / 9, 1 / 3))))
    return space, [
        StageResults(name=f"s{i}", scale=scale, observations=draw(observations(space, scale, 30)))
        for i, scale in enumerate(scales)
    ]


def stage(
    space: Sequence[Parameter],
    score: Callable[[dict[str, Value]], float],
    count: int = 64,
    scale: float = 1 / 9,
    seed: int = 3,
) -> StageResults:
    """Run a stage of Sobol points with a known objective."""
    seen = tuple(Observation(params, score(params), scale) for params in sample(space, count, "sobol", seed))
    return StageResults(name=f"at {scale:.3g}", scale=scale, observations=seen)


def number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)
