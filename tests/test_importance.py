"""Importance: what the results vary by, and holding what hardly matters."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from made_results import number, stage
from orchestrator.planning.narrowing.holding import (
    AUTO,
    Held,
    best_values,
    free_to_json,
    hold,
    searchable,
    to_hold,
)
from orchestrator.planning.narrowing.importance import importance, unimportant
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.samplers import sample
from orchestrator.space import Parameter, Value, parse_space, to_json

SPACE = parse_space(
    {
        "lr": "tag(log, interval(1e-4, 1))",
        "width": "choice(16, 32, 64)",
        "opt": "choice(sgd, adam, true)",
        "dropout": "interval(0.0, 0.7)",
        "fixed": "choice(3)",
    },
    {},
    "sweep.yaml",
)


def score(params: dict[str, Value]) -> float:
    return -((math.log10(number(params["lr"])) + 2) ** 2) - 0.5 * (params["opt"] == "sgd")


@pytest.mark.parametrize("count", [32, 300], ids=["few: fANOVA", "many: PED-ANOVA"])
def test_what_matters_is_found(count: int) -> None:
    shares = importance(SPACE, stage(SPACE, score, count).observations)
    assert list(shares) == [p.name for p in SPACE]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert max(shares, key=lambda name: shares[name]) == "lr"
    assert shares["fixed"] == 0
    assert shares["lr"] > 5 * shares["dropout"]


def test_stages_are_pooled_by_rank() -> None:
    low = stage(SPACE, score, 40, scale=1 / 9)
    # At the larger scale every result is better by far: that is no parameter's doing.
    high = stage(SPACE, lambda p: 100 + score(p), 40, scale=1.0, seed=9)
    shares = importance(SPACE, [*low.observations, *high.observations])
    assert shares["lr"] > 0.5


def test_where_it_cant_be_told_there_is_none() -> None:
    few = stage(SPACE, score, 4).observations
    assert importance(SPACE, few) == {}
    assert importance(SPACE, []) == {}
    assert importance(SPACE, stage(SPACE, lambda p: 0.5).observations) == {}
    assert importance(SPACE, stage(SPACE, lambda p: math.nan).observations) == {}
    assert importance(SPACE[4:], stage(SPACE, score).observations) == {}
    one = importance(SPACE[:1], stage(SPACE, score).observations)
    assert one == {"lr": 1.0}


def test_the_order_of_the_trials_is_irrelevant() -> None:
    seen = list(stage(SPACE, score).observations)
    expected = importance(SPACE, seen)
    random.Random(0).shuffle(seen)
    assert importance(SPACE, seen) == expected


def test_conditional_parameters_count_by_how_often_they_are_there() -> None:
    space = parse_space(
        {"opt": "choice(sgd, adam)", "momentum": "interval(0.0, 1.0)", "other": "interval(0.0, 1.0)"},
        {},
        "sweep.yaml",
    )
    seen = []
    for params in sample(space, 200, "sobol", 1):
        if params["opt"] == "adam":
            del params["momentum"]
        seen.append(Observation(params, number(params.get("momentum", 0.5))))
    shares = importance(space, seen)
    assert set(shares) == {"opt", "momentum", "other"}
    assert shares["momentum"] > shares["other"]


def test_only_what_surely_hardly_matters_is_held() -> None:
    seen = stage(SPACE, score, 256).observations
    held = unimportant(SPACE, seen)
    assert held
    assert set(held) <= {"width", "dropout"}
    assert unimportant(SPACE, seen[:20]) == {}, "too few results"
    assert unimportant(SPACE[:1], seen) == {}
    assert unimportant(SPACE, stage(SPACE, lambda p: 0.5, 64).observations) == {}
    decides = tuple(replace(p, when="width > 16") if p.name == "lr" else p for p in SPACE)
    assert "width" not in unimportant(decides, seen), "another one hangs on it"


def test_what_a_stage_holds() -> None:
    seen = stage(SPACE, score, 256).observations
    assert to_hold((), SPACE, seen) == {}
    assert list(to_hold(("lr", "opt"), SPACE, seen)) == ["width", "dropout", "fixed"]
    assert list(to_hold((AUTO,), SPACE, seen)) == list(unimportant(SPACE, seen))
    assert to_hold((AUTO,), SPACE, ()) == {}, "before the first results all is tuned"


def test_the_best_value_is_that_of_the_largest_scale_that_has_one() -> None:
    seen = [
        Observation({"lr": 0.1, "momentum": 0.5}, 9.0, 1 / 3),
        Observation({"lr": 0.2}, 0.4, 1.0),
        Observation({"lr": 0.3}, 0.5, 1.0),
        Observation({"lr": 0.4}, 0.9, 1.0, False),
        Observation({"lr": 0.5}, -math.inf, 1.0),
    ]
    space = parse_space({"lr": "interval(0.0, 1.0)", "momentum": "interval(0.0, 1.0)"}, {}, "sweep.yaml")
    assert best_values(space, seen) == {"lr": 0.3, "momentum": 0.5}
    assert best_values(space, []) == {}


def test_a_held_parameter_gets_its_range_back() -> None:
    others = "this stage tunes others"
    best = "the best so far"
    values: dict[str, Held] = {"dropout": (0.2, best), "opt": ("sgd", best), "lr": (0.1, best)}
    held = hold(SPACE, {"dropout": others, "opt": others}, values)
    by_name: dict[str, Parameter] = {p.name: p for p in held}
    assert (by_name["dropout"].low, by_name["dropout"].high) == (0.2, 0.2)
    assert by_name["dropout"].reason == "held at 0.2, the best so far: this stage tunes others"
    assert by_name["opt"].values == ("sgd",)
    assert by_name["lr"] == SPACE[0]
    for params in sample(held, 8, "sobol", 0):
        assert (params["dropout"], params["opt"]) == (0.2, "sgd")
    content = {**to_json(held, "fine"), "free": free_to_json(SPACE, held)}
    assert searchable(content) == SPACE
    assert searchable(to_json(SPACE, "fine")) == SPACE
    assert hold(SPACE, {}, values) == SPACE
