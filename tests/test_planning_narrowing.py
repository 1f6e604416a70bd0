"""Narrowing: what must hold for any results, and what it does with telling ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.narrowing import FEWEST_TRIALS, narrow
from orchestrator.planning.samplers import Observation, sample
from orchestrator.space import CHOICE, FLOAT, INT, Parameter, Value, parse_space

KEEP, MARGIN = 0.25, 0.2


@st.composite
def parameters(draw: st.DrawFn, name: str) -> Parameter:
    kind = draw(st.sampled_from((FLOAT, INT, CHOICE)))
    if kind == CHOICE:
        pool: list[Value] = [1, 1.0, True, "a", "b", None, 16, 32]
        values = draw(st.lists(st.sampled_from(range(len(pool))), min_size=1, max_size=5, unique=True))
        return Parameter(name=name, kind=CHOICE, values=tuple(pool[i] for i in values))
    log = draw(st.booleans())
    low: float
    high: float
    if kind == INT:
        low = draw(st.integers(1 if log else -50, 1000))
        high = low + draw(st.integers(1, 1000))
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
def stages(draw: st.DrawFn) -> tuple[tuple[Parameter, ...], list[Observation]]:
    """A space, and any results in it, a few of them promoted from wider ranges."""
    space = tuple(draw(parameters(f"p{index}")) for index in range(draw(st.integers(1, 3))))
    unit = st.floats(0, 1)
    results = []
    for _ in range(draw(st.integers(0, 30))):
        params = {p.name: p.from_unit(draw(unit)) for p in space}
        results.append(Observation(params, draw(objectives)))
    wide = draw(st.integers(0, 2))
    for _ in range(wide if results else 0):
        params = {}
        for p in space:
            if p.kind == CHOICE:
                params[p.name] = draw(st.sampled_from((*p.values, "dropped")))
                continue
            floor, ceiling = p.limits
            low = p.low if floor is None or (p.log and floor <= 0) else floor
            params[p.name] = draw(st.sampled_from((low, p.high if ceiling is None else ceiling)))
        results.append(Observation(params, draw(objectives)))
    return space, results


def best_of(results: Sequence[Observation]) -> list[Observation]:
    finite = [trial for trial in results if math.isfinite(trial.objective)]
    top = max((trial.objective for trial in finite), default=math.nan)
    return [trial for trial in finite if trial.objective == top]


@given(stages(), st.floats(0.01, 1), st.floats(0, 2))
def test_what_holds_for_any_results(
    stage: tuple[tuple[Parameter, ...], list[Observation]], keep: float, margin: float
) -> None:
    space, results = stage
    after = narrow(space, results, keep, margin)
    assert [p.name for p in after] == [p.name for p in space]
    best = best_of(results)
    if best:
        # Of equally good ones, one and the same lies in all ranges.
        assert any(all(p.contains(trial.params[p.name]) for p in after) for trial in best)
    for before, now in zip(space, after, strict=True):
        assert now.reason != before.reason
        assert (now.kind, now.log, now.limits) == (before.kind, before.log, before.limits)
        if now.kind == CHOICE:
            assert now.values
            seen = {(type(v), v) for v in before.values} | {
                (type(trial.params[now.name]), trial.params[now.name]) for trial in best
            }
            assert {(type(v), v) for v in now.values} <= seen
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


@given(stages(), st.randoms(use_true_random=False))
def test_the_order_of_the_results_does_not_matter(
    stage: tuple[tuple[Parameter, ...], list[Observation]], shuffle: random.Random
) -> None:
    space, results = stage
    mixed = [Observation(dict(reversed(list(trial.params.items()))), trial.objective) for trial in results]
    shuffle.shuffle(mixed)
    assert narrow(space, mixed, KEEP, MARGIN) == narrow(space, results, KEEP, MARGIN)


@given(stages(), st.integers(0, 9))
def test_a_narrowed_space_can_be_sampled_and_narrowed_again(
    stage: tuple[tuple[Parameter, ...], list[Observation]], seed: int
) -> None:
    space, results = stage
    after = narrow(space, results, KEEP, MARGIN)
    again = [Observation(params, float(i % 5)) for i, params in enumerate(sample(after, 12, "sobol", seed))]
    for trial in again:
        assert all(p.contains(trial.params[p.name]) for p in after)
    narrow(after, again, KEEP, MARGIN)


SPACE = parse_space(
    {
        "lr": "tag(log, interval(1e-4, 1))",
        "dropout": "interval(0.0, 0.7)",
        "width": "int(interval(8, 128))",
        "act": "choice(relu, tanh, gelu)",
    },
    {},
    "sweep.yaml",
)


def run(
    score: Callable[[dict[str, Value]], float], count: int = 64, space: Sequence[Parameter] = SPACE
) -> dict[str, Parameter]:
    results = [Observation(params, score(params)) for params in sample(space, count, "sobol", 3)]
    return {p.name: p for p in narrow(space, results, KEEP, MARGIN)}


def number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


def test_narrows_to_where_the_good_results_are() -> None:
    after = run(lambda p: -abs(math.log10(number(p["lr"])) + 2))
    lr = after["lr"]
    # A quarter of the trials lies within half a decade of 1e-2; the margin adds a fifth of that.
    assert 2e-3 < lr.low < 4.5e-3
    assert 2.2e-2 < lr.high < 5e-2
    assert lr.reason.startswith("narrowed to ")
    assert "the 16 best of 64 lie in " in lr.reason
    assert "the best at 0.0" in lr.reason
    # What has no influence stays about as wide as it was.
    assert after["dropout"].high - after["dropout"].low > 0.6
    assert after["act"].values == ("relu", "tanh", "gelu")


def test_whole_numbers_narrow_to_whole_numbers() -> None:
    width = run(lambda p: -abs(number(p["width"]) - 64))["width"]
    assert (type(width.low), type(width.high)) == (int, int)
    assert 42 <= width.low <= 52
    assert 76 <= width.high <= 86


def test_moves_past_an_edge_that_the_best_press_against() -> None:
    lr = run(lambda p: number(p["lr"]))["lr"]
    assert lr.high > 1.0
    assert lr.high == pytest.approx(10.0, rel=0.01), "a quarter of four decades"
    assert lr.low > 0.05
    assert lr.reason.startswith("moved past its upper end 1: the 16 best of 64 lie in ")
    low = run(lambda p: -number(p["lr"]))["lr"]
    assert low.low == pytest.approx(1e-5, rel=0.01)
    assert low.reason.startswith("moved past its lower end 0.0001")


@pytest.mark.parametrize(("limits", "ceiling"), [({}, 1.0), ({"dropout": [0.0, 0.75]}, 0.75)])
def test_never_moves_past_a_hard_limit(limits: dict[str, list[float]], ceiling: float) -> None:
    space = parse_space({"dropout": "interval(0.0, 0.7)"}, limits, "sweep.yaml")
    up = space
    for _ in range(6):
        up = (run(lambda p: number(p["dropout"]), space=up)["dropout"],)
    assert 0.7 < up[0].high <= ceiling
    down = space
    for _ in range(6):
        down = (run(lambda p: -number(p["dropout"]), space=down)["dropout"],)
    assert down[0].low == 0.0
    at_once = run(lambda p: number(p["dropout"]), space=space)["dropout"]
    assert at_once.high == pytest.approx(min(0.7 + 0.25 * 0.7, ceiling))


def rounded(upwards: bool) -> list[float]:
    """Return numbers that a logarithm and back moves up, or down, by the last bit."""
    found = [i / 1000 for i in range(1, 1000)]
    return [x for x in found if (math.exp(math.log(x)) > x if upwards else math.exp(math.log(x)) < x)]


def test_rounding_moves_no_range_past_a_limit_or_the_best_trial() -> None:
    for upwards in (True, False):
        for edge in rounded(upwards):
            sign = 1 if upwards else -1
            limits = (None, edge) if upwards else (edge, None)
            ends = (edge / 100, edge) if upwards else (edge, edge * 100)
            space = (Parameter(name="x", kind=FLOAT, low=ends[0], high=ends[1], log=True, limits=limits),)
            spots = [ends[0] * 100 ** (i / 15) for i in range(1, 15)]
            results = [Observation({"x": x}, sign * x) for x in [*spots, edge]]
            (x,) = narrow(space, results, KEEP, MARGIN)
            assert (x.high if upwards else x.low) == edge
    for edge in rounded(True):
        space = (Parameter(name="x", kind=FLOAT, low=edge / 10, high=edge * 10, log=True),)
        spots = [edge * 1.2**i for i in range(1, 12)]
        results = [Observation({"x": x}, -x) for x in [edge, *spots]]
        (x,) = narrow(space, results, 0.5, 0.0)
        assert x.contains(edge)
        assert x.low == pytest.approx(edge)


def test_no_range_collapses_in_one_step() -> None:
    space = parse_space({"x": "interval(0, 1)"}, {}, "sweep.yaml")
    spots = [0.5] * 8 + [i / 24 for i in range(24)]
    results = [Observation({"x": x}, 1.0 if x == 0.5 else -abs(x - 0.5)) for x in spots]
    (x,) = narrow(space, results, KEEP, 0.0)
    assert [x.low, x.high] == pytest.approx([0.45, 0.55])


def choice_results(scores: dict[str, list[float]]) -> list[Observation]:
    return [Observation({"act": act}, score) for act, values in scores.items() for score in values]


ACT = parse_space({"act": "choice(relu, tanh, gelu)"}, {}, "sweep.yaml")


def test_a_clearly_worse_choice_is_dropped() -> None:
    results = choice_results(
        {
            "relu": [0.9 + i / 1000 for i in range(10)],
            "gelu": [0.9 + i / 1001 for i in range(10)],
            "tanh": [0.1 + i / 1000 for i in range(10)],
        }
    )
    (act,) = narrow(ACT, results, KEEP, MARGIN)
    assert act.values == ("relu", "gelu")
    assert act.reason == "dropped as clearly worse: tanh (median rank 26 of 30 against 11 for relu)"


@pytest.mark.parametrize(
    "tanh",
    [
        [0.1, 0.2, 0.3],  # too few to tell
        [0.905, 0.9, 0.904, 0.906, 0.901],  # no worse
        [0.1, 0.1, 0.1, 0.1, 0.9085],  # one of the three best
    ],
)
def test_a_choice_that_is_not_clearly_worse_is_kept(tanh: list[float]) -> None:
    good = [0.9 + i / 1000 for i in range(10)]
    (act,) = narrow(ACT, choice_results({"relu": good, "tanh": tanh, "gelu": good[::2]}), KEEP, MARGIN)
    assert act.values == ("relu", "tanh", "gelu")
    assert act.reason == "kept: none is clearly worse than relu, the best trial's"


def test_equal_results_speak_for_no_choice() -> None:
    # All but the three best are equal, however their settings sort.
    scores = {"relu": [0.9, 0.8, 0.7] + [0.1] * 12, "tanh": [0.1] * 15, "gelu": [0.1] * 15}
    results = [
        Observation({"act": act, "order": ("z" if act == "tanh" else "a") + str(index)}, score)
        for act, values in scores.items()
        for index, score in enumerate(values)
    ]
    (act,) = narrow(ACT, [*results, *choice_results({"relu": [-math.inf] * 2})], 0.06, MARGIN)
    assert act.values == ("relu", "tanh", "gelu")


def test_a_dropped_choice_that_turns_out_best_comes_back() -> None:
    results = choice_results({"relu": [0.5 + i / 100 for i in range(10)], "swish": [0.99]})
    (act,) = narrow(ACT, results, KEEP, MARGIN)
    assert act.values == ("relu", "tanh", "gelu", "swish")
    assert "swish is back" in act.reason
    (few,) = narrow(ACT, results[-2:], KEEP, MARGIN)
    assert "swish" in few.values


def test_all_equal_results_change_nothing() -> None:
    after = run(lambda p: 0.5)
    for before in SPACE:
        now = after[before.name]
        assert (now.low, now.high, now.values) == (before.low, before.high, before.values)
        assert now.reason == "kept: 64 of 64 trials reach 0.5, which tells none apart"


def test_few_or_no_results_change_nothing_and_say_so() -> None:
    few = FEWEST_TRIALS - 1
    (lr,) = narrow(
        SPACE[:1], [Observation({"lr": 0.01 * i}, float(i)) for i in range(1, 1 + few)], KEEP, MARGIN
    )
    assert (lr.low, lr.high) == (1e-4, 1.0)
    assert lr.reason == f"kept: {few} trials are too few to give anything up"
    nothing = [Observation({"lr": 0.01}, value) for value in (math.nan, -math.inf) * 10]
    (lr,) = narrow(SPACE[:1], nothing, KEEP, MARGIN)
    assert (lr.low, lr.high) == (1e-4, 1.0)
    assert lr.reason == "kept: no trial of the stage gave a result to go by"


def test_diverged_trials_count_as_the_worst() -> None:
    lr = run(lambda p: -math.inf if number(p["lr"]) > 0.1 else number(p["lr"]))["lr"]
    assert lr.high < 0.2
    nan = run(lambda p: math.nan if number(p["lr"]) > 0.1 else number(p["lr"]))["lr"]
    assert (nan.low, nan.high) == (lr.low, lr.high)


def test_a_wider_margin_gives_a_wider_range() -> None:
    results = [Observation(p, -abs(number(p["dropout"]) - 0.35)) for p in sample(SPACE, 64, "sobol", 3)]
    widths = []
    for margin in (0.0, 0.2, 1.0):
        dropout = narrow(SPACE, results, KEEP, margin)[1]
        widths.append(dropout.high - dropout.low)
    assert widths[0] < widths[1] < widths[2]
