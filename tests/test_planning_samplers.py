"""Samplers: inside the ranges, the same from the same seed in any process, and what is each one's own."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.points import place_of
from orchestrator.planning.sampling.samplers import sample
from orchestrator.schema import SAMPLERS
from orchestrator.space import CHOICE, FLOAT, INT, Parameter, Value, parse_space

DECLARED = {
    "lr": "tag(log, interval(1e-4, 1))",
    "dropout": "interval(0.0, 0.7)",
    "width": "int(interval(8, 128))",
    "batch": "tag(log, int(interval(1, 1024)))",
    "act": "choice(relu, tanh, gelu)",
    "flag": "choice(true, 1, 0)",
}
SPACE = parse_space(DECLARED, {}, "sweep.yaml")


def number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


def typed(settings: list[dict[str, Value]]) -> list[list[tuple[str, str, Value]]]:
    return [[(name, type(value).__name__, value) for name, value in item.items()] for item in settings]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inside_the_ranges_and_as_many_as_asked_for(sampler: str) -> None:
    settings = sample(SPACE, 40, sampler, 1)
    # A grid has no more room than for the choices (9) and two levels of two of the numbers.
    assert len(settings) == (36 if sampler == "grid" else 40)
    for setting in settings:
        assert list(setting) == list(DECLARED)
        for parameter in SPACE:
            value = setting[parameter.name]
            assert parameter.contains(value), (parameter, value)
            if parameter.kind != CHOICE:
                assert type(value) is (int if parameter.kind == INT else float)
    assert sample(SPACE, 0, sampler, 1) == []
    assert len(sample(SPACE, 1, sampler, 1)) == 1


@given(
    st.floats(-1e3, 1e3),
    st.floats(1e-6, 1e3),
    st.integers(-100, 100),
    st.integers(0, 300),
    st.sampled_from(SAMPLERS),
    st.integers(0, 2**31 - 1),
)
@examples(max_examples=40)
def test_inside_any_range(low: float, width: float, first: int, more: int, sampler: str, seed: int) -> None:
    space = (
        Parameter(name="x", kind=FLOAT, low=low, high=low + width),
        Parameter(name="k", kind=INT, low=first, high=first + more),
        Parameter(name="c", kind=CHOICE, values=("only",)),
    )
    for setting in sample(space, 5, sampler, seed):
        assert all(parameter.contains(setting[parameter.name]) for parameter in space)


@pytest.mark.parametrize("sampler", ["sobol", "random", "tpe"])
def test_another_seed_gives_other_settings(sampler: str) -> None:
    one, other = sample(SPACE, 10, sampler, 1), sample(SPACE, 10, sampler, 2)
    assert one == sample(SPACE, 10, sampler, 1)
    assert not any(setting in other for setting in one)


@pytest.mark.parametrize("sampler", ["sobol", "random", "tpe"])
def test_settings_differ_among_themselves(sampler: str) -> None:
    settings = sample(SPACE, 50, sampler, 1)
    assert len({json.dumps(setting) for setting in settings}) == 50


def test_sobol_covers_choices_and_numbers_evenly() -> None:
    space = parse_space({"act": "choice(a, b, c, d)", "lr": "tag(log, interval(1e-4, 1))"}, {}, "sweep.yaml")
    for seed in range(5):
        settings = sample(space, 64, "sobol", seed)
        assert Counter(s["act"] for s in settings) == dict.fromkeys("abcd", 16)
        decades = Counter(math.floor(math.log10(number(s["lr"]))) for s in settings)
        assert decades == dict.fromkeys((-4, -3, -2, -1), 16)
        # Each choice meets each decade.
        assert len({(s["act"], math.floor(math.log10(number(s["lr"])))) for s in settings}) == 16


def test_random_covers_a_log_range_by_its_logarithm() -> None:
    settings = sample(SPACE[:1], 400, "random", 3)
    below = sum(number(s["lr"]) < 1e-2 for s in settings)
    # 200 expected with a deviation of 10.
    assert 150 < below < 250


def test_tpe_prefers_what_was_good() -> None:
    space = SPACE[:2]
    past = sample(space, 60, "random", 9)

    def distance(setting: dict[str, Value]) -> float:
        return abs(math.log10(number(setting["lr"])) + 1) + abs(number(setting["dropout"]) - 0.1)

    history = [Observation(setting, -distance(setting)) for setting in past]
    learned = [distance(s) for seed in range(3) for s in sample(space, 24, "tpe", seed, history)]
    blind = [distance(s) for seed in range(3) for s in sample(space, 24, "tpe", seed)]
    assert statistics.median(learned) < 0.6 * statistics.median(blind)
    # Bad ones turn it the other way.
    worst = [Observation(setting, distance(setting)) for setting in past]
    avoided = [distance(s) for seed in range(3) for s in sample(space, 24, "tpe", seed, worst)]
    assert statistics.median(avoided) > statistics.median(blind)


def test_tpe_tells_equal_looking_choices_apart() -> None:
    space = (Parameter(name="c", kind=CHOICE, values=(True, 1, 0)),)
    history = [Observation({"c": (True, 1, 0)[i % 3]}, float(i % 3 == 1)) for i in range(60)]
    drawn = [sample(space, 1, "tpe", seed, history, scale=0.5)[0] for seed in range(12)]
    assert Counter(type(s["c"]).__name__ + str(s["c"]) for s in drawn).most_common(1)[0][0] == "int1"


def test_grid_takes_every_choice_at_even_levels() -> None:
    space = parse_space(
        {"act": "choice(a, b)", "lr": "tag(log, interval(1e-4, 1))", "x": "interval(0, 1)"}, {}, "f"
    )
    settings = sample(space, 18, "grid", 0)
    assert len(settings) == 18
    assert sorted({number(s["lr"]) for s in settings}) == pytest.approx([1e-4, 1e-2, 1])
    assert sorted({number(s["x"]) for s in settings}) == pytest.approx([0, 0.5, 1])
    assert len({(s["act"], s["lr"], s["x"]) for s in settings}) == 18
    # One level is the middle, not an end.
    (alone,) = sample(space[1:2], 1, "grid", 0)
    assert number(alone["lr"]) == pytest.approx(1e-2)


def test_grid_with_less_room_than_choices_spreads_over_them() -> None:
    space = parse_space({"k": "range(0, 100)"}, {}, "f")
    chosen = [s["k"] for s in sample(space, 10, "grid", 0)]
    assert chosen == list(range(0, 100, 10))


def test_grid_has_no_setting_twice_where_whole_numbers_are_few() -> None:
    space = parse_space({"k": "int(interval(1, 3))"}, {}, "f")
    assert [s["k"] for s in sample(space, 9, "grid", 0)] == [1, 2, 3]


def test_grid_gives_every_value_of_a_choice_its_turn() -> None:
    space = parse_space(dict.fromkeys("abc", "choice(1, 2, 3, 4)"), {}, "f")
    chosen = sample(space, 16, "grid", 0)
    assert len(chosen) == 16
    for name in "abc":
        assert Counter(s[name] for s in chosen) == dict.fromkeys((1, 2, 3, 4), 4)
    for one, other in ("ab", "bc", "ac"):
        assert len({(s[one], s[other]) for s in chosen}) == 16


def test_the_place_of_a_whole_number_leads_back_to_it() -> None:
    parameter = Parameter(name="k", kind=INT, low=1, high=1024, log=True)
    assert [parameter.from_unit(place_of(parameter, k)) for k in range(1, 1025)] == list(range(1, 1025))
