"""The model sampler: the Gaussian process over settings and scales, and what it proposes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.planning.sampling.gaussian import _loss, _prior, fit
from orchestrator.planning.sampling.model import _place, improve, learn, propose
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.points import sobol
from orchestrator.planning.sampling.samplers import sample
from orchestrator.space import Value, active, parse_space, setting_id

SPACE = parse_space(
    {
        "lr": "tag(log, interval(1e-4, 1))",
        "width": "choice(16, 32, 64, 128)",
        "act": "choice(relu, tanh)",
        "dropout": "interval(0, 0.7)",
    },
    {},
    "sweep.yaml",
)


def merit(params: Mapping[str, object], peak: float = -2.0) -> float:
    """A made-up objective: best at lr = 10^peak, wide, relu; dropout hardly matters."""
    lr, width = float(str(params["lr"])), float(str(params["width"]))
    bonus = {"relu": 0.3, "tanh": 0.0}[str(params["act"])]
    return -((math.log10(lr) - peak) ** 2) + 0.2 * math.log2(width / 16) + bonus


def observed(count: int, scale: float, peak: float, noise: float = 0.0, seed: int = 0) -> list[Observation]:
    random = np.random.default_rng(seed)
    points = sobol(SPACE, seed)(count)
    return [Observation(p, merit(p, peak) + noise * random.standard_normal(), scale) for p in points]


def test_the_gradient_is_that_of_the_loss() -> None:
    random = np.random.default_rng(0)
    groups = np.array([0, 1, 2, 2])
    points, scales = random.random((20, 4)), -random.integers(0, 4, 20).astype(float)
    values = random.standard_normal(20)
    middle, width = _prior(groups)
    at = middle + 0.3 * random.standard_normal(len(middle))

    def loss(parameters: np.ndarray) -> float:
        return _loss(parameters, points, scales, values, groups, middle, width)[0]

    exact = _loss(at, points, scales, values, groups, middle, width)[1]
    steps = 1e-6 * np.eye(len(at))
    assert exact == pytest.approx([(loss(at + s) - loss(at - s)) / 2e-6 for s in steps], abs=1e-5)


def test_results_at_a_small_scale_tell_of_full_scale_and_levels_do_not_matter() -> None:
    random = np.random.default_rng(1)
    points = random.random((60, 2))
    truth = np.sin(3 * points[:, 0]) - points[:, 1] ** 2
    small = np.arange(60) < 50
    scales = np.where(small, -3.0, 0.0)
    # The small scale is worse by a constant, which says nothing about the settings.
    posterior = fit(points, scales, truth - 0.8 * small, np.array([0, 1]))
    fresh = random.random((40, 2))
    expected = posterior.expect(fresh)
    assert np.corrcoef(expected, np.sin(3 * fresh[:, 0]) - fresh[:, 1] ** 2)[0, 1] > 0.95
    # Known points are certain, others less so.
    assert np.diag(posterior.predict(points[~small])[1]).mean() < np.diag(posterior.predict(fresh)[1]).mean()


def test_proposals_lie_where_full_scale_is_good_although_most_results_are_of_a_small_scale() -> None:
    """The best learning rate moves with the scale: the few results at the higher one must count."""
    history = observed(60, 1 / 27, peak=-1.0) + observed(16, 1 / 3, peak=-2.6, seed=5)
    proposals = propose(SPACE, 20, 3, history)
    middle = float(np.median([math.log10(float(str(p["lr"]))) for p in proposals]))
    assert -3.2 < middle < -1.9
    blind = sobol(SPACE, 3)(200)
    assert np.mean([merit(p, -2.8) for p in proposals]) > np.mean([merit(p, -2.8) for p in blind]) + 1


def test_known_settings_are_proposed_again_when_they_are_the_best_guess() -> None:
    space = parse_space({"act": "choice(a, b, c, d, e, f, g, h)"}, {}, "sweep.yaml")
    history = [Observation({"act": v}, n, 0.1) for n, v in enumerate("abcdefgh")]
    proposals = propose(space, 2, 0, history, [{"act": v} for v in "abcdefgh"])
    assert {"act": "h"} in proposals
    assert {"act": "h"} not in propose(space, 2, 0, history, taken=[{"act": "h"}])


def test_a_finite_space_that_is_used_up_gives_what_is_left() -> None:
    space = parse_space({"act": "choice(a, b, c)", "n": "choice(1, 2)"}, {}, "sweep.yaml")
    everything = [{"act": a, "n": n} for a in "abc" for n in (1, 2)]
    history = [Observation(p, float(n), 0.5) for n, p in enumerate(everything)]
    assert len(propose(space, 50, 0, history)) == 6
    assert propose(space, 5, 0, history, taken=everything) == []
    assert propose(space, 0, 0, history) == []


def test_too_few_results_give_evenly_spread_settings() -> None:
    few = observed(3, 0.1, -2)
    assert propose(SPACE, 8, 4, few) == sobol(SPACE, 4)(8)
    failed = [Observation(p, -math.inf, 0.1) for p in sobol(SPACE, 0)(12)]
    assert propose(SPACE, 8, 4, failed) == sobol(SPACE, 4)(8)


CONDITIONAL = parse_space(
    {"opt": "choice(sgd, adam)", "momentum": "interval(0.5, 0.99)", "lr": "tag(log, interval(1e-4, 1))"},
    {},
    "sweep.yaml",
)


def test_parameters_that_exist_only_sometimes() -> None:
    from dataclasses import replace

    space = tuple(replace(p, when="opt == 'sgd'") if p.name == "momentum" else p for p in CONDITIONAL)
    points = [active(space, p) for p in sobol(space, 1)(40)]
    history = [Observation(p, float(p.get("momentum", 0.0)) - (p["opt"] == "adam"), 0.3) for p in points]  # type: ignore[arg-type]
    proposals = propose(space, 12, 0, history)
    assert all(("momentum" in p) == (p["opt"] == "sgd") for p in proposals)
    assert sum(p["opt"] == "sgd" for p in proposals) > 8


def test_diverged_and_stopped_results_are_bad_and_do_not_hide_the_good() -> None:
    good = observed(30, 0.3, -2)
    bad = [Observation({**p, "act": "tanh"}, -math.inf, 0.3) for p in sobol(SPACE, 9)(30)]
    proposals = propose(SPACE, 12, 0, good + bad)
    assert sum(p["act"] == "relu" for p in proposals) >= 10


def at(lr: float) -> dict[str, Value]:
    return {"lr": lr, "width": 64, "act": "relu", "dropout": 0.1}


def test_improvements_lie_where_it_is_better_or_unknown() -> None:
    history = observed(40, 1 / 9, peak=-2)
    ran = [at(0.1), at(0.001)]
    history += [Observation(params, merit(params), 1.0) for params in ran]
    proposals = improve(SPACE, 6, 3, history, [], ran=ran, taken=ran)
    blind = sobol(SPACE, 3)(200)
    worth = [merit(p) for p in proposals]
    assert min(worth) > np.quantile([merit(p) for p in blind], 0.6)
    assert max(worth) > max(merit(p) for p in ran)
    # Of two that are expected to be alike, the one nobody knows is proposed.
    space = parse_space({"x": "interval(0, 1)"}, {}, "sweep.yaml")
    known = [Observation({"x": x}, -abs(x - 0.5), 1.0) for x in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.7)]
    model = learn(space, known)
    assert model is not None
    place = float(str(improve(space, 1, 0, known, [], ran=[{"x": 0.4}], taken=[{"x": 0.4}])[0]["x"]))
    assert 0.4 < place < 0.7


def test_a_batch_of_improvements_is_the_same_each_time_and_repeats_nothing() -> None:
    history = observed(40, 1 / 9, peak=-2)
    ran = [at(0.1)]
    history += [Observation(params, merit(params), 1.0) for params in ran]
    known = [seen.params for seen in history[:40]]
    proposals = improve(SPACE, 6, 3, history, known, ran=ran, taken=[*ran, known[0]])
    assert improve(SPACE, 6, 3, history, known, ran=ran, taken=[*ran, known[0]]) == proposals
    assert len({setting_id(p) for p in proposals}) == 6
    assert known[0] not in proposals and ran[0] not in proposals
    assert all(p.contains(setting[p.name]) for setting in proposals for p in SPACE)


def test_a_batch_of_improvements_is_spread_over_what_is_unknown() -> None:
    space = parse_space({"x": "interval(0, 1)"}, {}, "sweep.yaml")
    # Two peaks by what a smaller scale says, one somewhat higher than the other.
    merits = {x: -min(abs(x - 0.2) + 0.03, abs(x - 0.8)) for x in map(float, np.linspace(0, 1, 16))}
    history = [Observation({"x": x}, merit, 1 / 9) for x, merit in merits.items()]
    ran = [{"x": 0.5}]
    history.append(Observation(ran[0], -0.4, 1.0))
    first, second = (float(str(p["x"])) for p in improve(space, 2, 0, history, [], ran=ran, taken=ran))
    # Those of the largest expected improvement by themselves are neighbours.
    assert abs(first - 0.8) < 0.1 and abs(second - 0.2) < 0.1


def test_improvements_are_far_enough_from_each_other_and_from_what_ran() -> None:
    space = parse_space({"lr": "tag(log, interval(1e-4, 1))", "dropout": "interval(0, 0.7)"}, {}, "s.yaml")
    points = sobol(space, 3)(40)
    rates = [(math.log10(float(str(p["lr"]))) + 4) / 4 for p in points]
    history = [Observation(p, -((rate - 0.5) ** 2), 1 / 3) for p, rate in zip(points, rates, strict=True)]
    best = min(zip(rates, points, strict=True), key=lambda pair: abs(pair[0] - 0.5))[1]
    history.append(Observation(best, 0.0, 1.0))
    proposed = improve(space, 6, 5, history, points, ran=[best], taken=[best])
    assert len(proposed) == 6
    everything = [best, *proposed]
    for i, one in enumerate(everything):
        for other in everything[:i]:
            apart = abs(math.log10(float(str(one["lr"])) / float(str(other["lr"])))) / 4
            assert max(apart, abs(float(str(one["dropout"])) - float(str(other["dropout"]))) / 0.7) > 0.029


@pytest.mark.parametrize("most", [16, 1024])
def test_what_is_near_a_good_whole_number_stays_where_it_is_not_moved(most: int) -> None:
    (parameter,) = parse_space({"n": f"tag(log, int(interval(1, {most})))"}, {}, "s.yaml")
    assert [parameter.from_unit(_place(parameter, n)) for n in range(1, most + 1)] == list(range(1, most + 1))


def test_nothing_is_improved_on_where_little_is_known_or_all_is_taken() -> None:
    few = observed(3, 1.0, -2)
    assert improve(SPACE, 4, 0, few, [], ran=[few[0].params], taken=[few[0].params]) == []
    space = parse_space({"act": "choice(a, b, c)", "n": "choice(1, 2)"}, {}, "sweep.yaml")
    everything = [{"act": a, "n": n} for a in "abc" for n in (1, 2)]
    history = [Observation(p, float(n), 0.5) for n, p in enumerate(everything)]
    assert improve(space, 5, 0, history, everything, ran=everything[:1], taken=everything) == []
    left = improve(space, 5, 0, history, everything, ran=everything[:2], taken=everything[:4])
    assert sorted(map(setting_id, left)) == sorted(map(setting_id, everything[4:]))


values = st.one_of(st.floats(-1e6, 1e6), st.sampled_from((0.0, 1.0, -math.inf, 1e300, -1e300, 5e-324)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(values, st.sampled_from((0.04, 0.3, 1.0))), max_size=30), st.integers(1, 8))
def test_whatever_the_results_the_proposals_are_valid(results: list[tuple[float, float]], count: int) -> None:
    points = sobol(SPACE, 2)(len(results) or 1)
    history = [Observation(p, value, scale) for p, (value, scale) in zip(points, results, strict=False)]
    proposals = propose(SPACE, count, 0, history)
    assert len(proposals) == count
    assert len({setting_id(p) for p in proposals}) == count
    assert all(p.contains(setting[p.name]) for setting in proposals for p in SPACE)
    assert propose(SPACE, count, 0, history) == proposals
    better = improve(SPACE, count, 0, history, points[:2], ran=points[:1], taken=points[:1])
    assert len(better) == len({setting_id(p) for p in better}) == (count if learn(SPACE, history) else 0)
    assert points[0] not in better


@pytest.mark.parametrize("count", (7, 300))
def test_many_results_and_many_proposals(count: int) -> None:
    history = observed(2000, 0.1, -2, noise=0.5)
    proposals = propose(SPACE, count, 0, history)
    assert len({setting_id(p) for p in proposals}) == count
    model = learn(SPACE, history)
    assert model is not None
    # Noise as large as what the choice of a setting makes is seen through.
    blind = sobol(SPACE, 77)(200)
    assert np.corrcoef(model.mean(blind), [merit(p) for p in blind])[0, 1] > 0.9
    assert np.mean([merit(p) for p in proposals]) > np.quantile([merit(p) for p in blind], 0.7)


def test_without_results_its_settings_are_sobols_and_all_different() -> None:
    space = parse_space({"option": "choice(a, b)", "number": "int(interval(1, 3))"}, {}, "few.yaml")
    taken: list[dict[str, Value]] = [{"option": "a", "number": 1}]
    for count in (4, 5, 40):
        settings = propose(space, count, 3, (), taken=taken)
        assert settings == sample(space, count, "sobol", 3, taken=taken)
        assert len({setting_id(setting) for setting in [*settings, *taken]}) == min(count, 5) + 1
