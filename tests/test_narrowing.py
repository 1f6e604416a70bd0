"""Narrowing: what it does with telling results."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from made_results import number, stage
from orchestrator.planning.narrowing.narrow import FEWEST_TRIALS, StageResults, narrow
from orchestrator.planning.narrowing.trust import Agreement
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.samplers import sample
from orchestrator.space import FLOAT, Parameter, Value, parse_space

KEEP, MARGIN = 0.25, 0.2
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
Score = Callable[[dict[str, Value]], float]


def narrowed(
    seen: StageResults | Sequence[StageResults],
    space: Sequence[Parameter] = SPACE,
    *,
    keep: float = KEEP,
    margin: float = MARGIN,
    trust: Agreement | None = None,
) -> dict[str, Parameter]:
    stages = [seen] if isinstance(seen, StageResults) else seen
    return {p.name: p for p in narrow(space, stages, keep=keep, margin=margin, trust=trust)}


def run(score: Score, count: int = 64, space: Sequence[Parameter] = SPACE) -> dict[str, Parameter]:
    return narrowed(stage(space, score, count), space)


def of(observations: Sequence[Observation]) -> StageResults:
    return StageResults(name="coarse", scale=1.0, observations=tuple(observations))


def agreed(correlation: float, low: float, high: float) -> Agreement:
    return Agreement(low="coarse", high="fine", settings=12, correlation=correlation, interval=(low, high))


def share(before: Parameter, after: Parameter) -> float:
    return before.to_unit(after.high) - before.to_unit(after.low)


def test_narrows_to_where_the_good_results_are() -> None:
    after = run(lambda p: -abs(math.log10(number(p["lr"])) + 2))
    lr = after["lr"]
    # A quarter of the trials lies within half a decade of 1e-2.
    assert 7e-4 < lr.low < 3.2e-3
    assert 3.2e-2 < lr.high < 1.4e-1
    assert lr.reason.startswith("narrowed to ")
    assert "the 16 best of 64 lie mostly in " in lr.reason
    assert "the best at 0.0" in lr.reason
    assert "importance " in lr.reason
    # What has no influence stays as wide as it was.
    assert share(SPACE[1], after["dropout"]) >= 1
    assert after["act"].values == ("relu", "tanh", "gelu")


def test_whole_numbers_narrow_to_whole_numbers() -> None:
    width = run(lambda p: -abs(number(p["width"]) - 64))["width"]
    assert (type(width.low), type(width.high)) == (int, int)
    assert 30 <= width.low <= 52
    assert 76 <= width.high <= 98


def test_noise_does_not_hide_what_matters() -> None:
    """Two of five parameters matter; single lucky trials all over the range must not keep all of it."""
    space = tuple(Parameter(name=name, kind=FLOAT, low=0.0, high=1.0) for name in "abcde")
    shares: dict[str, list[float]] = {name: [] for name in "abcde"}
    for seed in range(4):
        noise = random.Random(seed)
        seen = stage(
            space,
            lambda p, noise=noise: (  # type: ignore[misc]
                -4 * (number(p["a"]) - 0.4) ** 2 - 4 * (number(p["b"]) - 0.6) ** 2 + noise.gauss(0, 0.4)
            ),
            count=256,
            seed=seed,
        )
        after = narrowed(seen, space)
        assert after["a"].contains(0.4)
        assert after["b"].contains(0.6)
        for name in "abcde":
            shares[name].append(after[name].high - after[name].low)
    mean = {name: sum(values) / len(values) for name, values in shares.items()}
    assert mean["a"] < 0.85
    assert mean["b"] < 0.85
    assert min(mean[name] for name in "cde") > 0.97


def test_moves_past_an_edge_that_the_best_press_against() -> None:
    lr = run(lambda p: number(p["lr"]))["lr"]
    assert lr.high == pytest.approx(10.0, rel=0.01), "a quarter of four decades"
    assert lr.low > 0.01
    assert lr.reason.startswith("moved past its upper end 1, to ")
    assert "the 16 best of 64 lie mostly in " in lr.reason
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
    found = [i / 1000 for i in range(1, 1000, 7)]
    return [x for x in found if (math.exp(math.log(x)) > x if upwards else math.exp(math.log(x)) < x)]


def test_rounding_moves_no_range_past_a_limit_or_the_best_trial() -> None:
    for upwards in (True, False):
        for edge in rounded(upwards):
            sign = 1 if upwards else -1
            limits = (None, edge) if upwards else (edge, None)
            ends = (edge / 100, edge) if upwards else (edge, edge * 100)
            space = (Parameter(name="x", kind=FLOAT, low=ends[0], high=ends[1], log=True, limits=limits),)
            spots = [ends[0] * 100 ** (i / 15) for i in range(1, 15)]
            x = narrowed(of([Observation({"x": x}, sign * x) for x in [*spots, edge]]), space)["x"]
            assert (x.high if upwards else x.low) == edge


def test_no_range_collapses_in_one_step() -> None:
    space = parse_space({"x": "interval(0, 1)"}, {}, "sweep.yaml")
    spots = [0.5] * 40 + [i / 80 for i in range(80)]
    seen = of([Observation({"x": x}, 1.0 if x == 0.5 else -abs(x - 0.5)) for x in spots])
    x = narrowed(seen, space, margin=0.0)["x"]
    assert x.high - x.low >= 0.1
    assert x.high - x.low < 0.25


def choices(scores: dict[Value, list[float]]) -> StageResults:
    return of([Observation({"act": act}, score) for act, values in scores.items() for score in values])


ACT = parse_space({"act": "choice(relu, tanh, gelu)"}, {}, "sweep.yaml")


def test_a_clearly_worse_choice_is_dropped() -> None:
    seen = choices(
        {
            "relu": [0.9 + i / 1000 for i in range(10)],
            "gelu": [0.9 + i / 1001 for i in range(10)],
            "tanh": [0.1 + i / 1000 for i in range(10)],
        }
    )
    act = narrowed(seen, ACT)["act"]
    assert act.values == ("relu", "gelu")
    assert act.reason.startswith(
        "dropped as clearly worse: tanh (median rank 25.5 of 30 against 10 for relu); importance 100%"
    )


@pytest.mark.parametrize(
    "tanh",
    [
        [0.1, 0.2, 0.3],  # too few to tell
        [0.905, 0.9, 0.904, 0.906, 0.901],  # no worse
        [0.1, 0.1, 0.1, 0.1, 0.9085],  # one of the three best
        [0.1] * 9 + [0.9075] * 5,  # often bad, but as often among the good: that depends on something else
    ],
)
def test_a_choice_that_is_not_clearly_worse_is_kept(tanh: list[float]) -> None:
    good = [0.9 + i / 1000 for i in range(10)]
    act = narrowed(choices({"relu": good, "tanh": tanh, "gelu": good[::2]}), ACT)["act"]
    assert act.values == ("relu", "tanh", "gelu")
    assert act.reason.startswith("kept: none is clearly worse than relu, the best trial's")


def test_equal_results_speak_for_no_choice() -> None:
    # All but the three best are equal, however their settings sort.
    scores = {"relu": [0.9, 0.8, 0.7] + [0.1] * 12, "tanh": [0.1] * 15, "gelu": [0.1] * 15}
    seen = [
        Observation({"act": act, "order": ("z" if act == "tanh" else "a") + str(index)}, score)
        for act, values in scores.items()
        for index, score in enumerate(values)
    ]
    seen += [Observation({"act": "relu", "order": ""}, -math.inf)] * 2
    act = narrowed(of(seen), ACT, keep=0.06)["act"]
    assert act.values == ("relu", "tanh", "gelu")


def test_a_dropped_choice_that_turns_out_best_comes_back() -> None:
    seen = choices({"relu": [0.5 + i / 100 for i in range(10)], "swish": [0.99]})
    act = narrowed(seen, ACT)["act"]
    assert act.values == ("relu", "tanh", "gelu", "swish")
    assert "swish is back" in act.reason
    few = narrowed(of(seen.observations[-2:]), ACT)["act"]
    assert "swish" in few.values
    ordered = (replace(ACT[0], values=(16, 64), ordered=True),)
    back = choices({16: [0.1, 0.2, 0.3], 64: [0.4, 0.45, 0.2], 32: [0.9]})
    assert narrowed(back, ordered)["act"].values == (16, 32, 64), "at its place in the order"


def test_ordered_choices_are_cut_from_their_ends() -> None:
    values: tuple[Value, ...] = (8, 16, 32, 64, 128)
    scores: dict[Value, list[float]] = {
        value: [-abs(math.log2(number(value)) - 5) + i / 100 for i in range(8)] for value in values
    }
    ordered = narrowed(choices(scores), (replace(ACT[0], values=values, ordered=True),))["act"]
    assert ordered.values == (16, 32, 64)
    assert ordered.reason.startswith("cut off as surely poorer: 8, 128; the 10 best of 40 have ")
    # Little was tried at 32, and that was poor, but it lies between good ones.
    hole: dict[Value, list[float]] = {
        8: scores[8],
        16: scores[32],
        32: scores[8][:1],
        64: scores[32],
        128: scores[8],
    }
    assert 32 in narrowed(choices(hole), (replace(ACT[0], values=values, ordered=True),))["act"].values


def test_conditional_parameters_are_judged_by_the_trials_that_have_them() -> None:
    space = parse_space(
        {"opt": "choice(sgd, adam)", "momentum": "interval(0.0, 1.0)", "lr": "tag(log, interval(1e-4, 1))"},
        {},
        "sweep.yaml",
    )
    rows = []
    for params in sample(space, 128, "sobol", 1):
        # Every adam beats every sgd; with sgd the momentum decides.
        if params["opt"] == "adam":
            del params["momentum"]
            rows.append(Observation(params, 10 - abs(math.log10(number(params["lr"])) + 2)))
        else:
            rows.append(Observation(params, -abs(number(params["momentum"]) - 0.8)))
    momentum = narrowed(of(rows), space)["momentum"]
    assert "the 16 best of 64 lie" in momentum.reason
    assert momentum.low > 0.4
    few = [one for one in rows if "momentum" not in one.params] + rows[:1]
    few += [one for one in rows if "momentum" in one.params][: FEWEST_TRIALS - 1]
    number_there = sum("momentum" in one.params for one in few)
    kept = narrowed(of(few), space)["momentum"]
    assert kept.reason == f"kept: {number_there} trials are too few to give anything up" or number_there > 5
    none = narrowed(of([one for one in rows if "momentum" not in one.params]), space)["momentum"]
    assert none.reason == "kept: no trial of the stage had it"
    lost = [replace(one, objective=-math.inf) if "momentum" in one.params else one for one in rows]
    assert narrowed(of(lost), space)["momentum"].reason == "kept: all 64 trials that had it diverged"
    alone = [one for one in lost if "momentum" not in one.params]
    alone += [one for one in lost if "momentum" in one.params][:1]
    assert narrowed(of(alone), space)["momentum"].reason == "kept: the only trial that had it diverged"


def test_all_equal_results_change_nothing() -> None:
    after = run(lambda p: 0.5)
    for before in SPACE:
        now = after[before.name]
        assert (now.low, now.high, now.values) == (before.low, before.high, before.values)
        assert now.reason == "kept: 64 of 64 trials reach 0.5, which tells none apart"


def test_few_or_no_results_change_nothing_and_say_so() -> None:
    few = FEWEST_TRIALS - 1
    seen = of([Observation({"lr": 0.01 * i}, float(i)) for i in range(1, 1 + few)])
    lr = narrowed(seen, SPACE[:1])["lr"]
    assert (lr.low, lr.high) == (1e-4, 1.0)
    assert lr.reason == f"kept: {few} trials are too few to give anything up"
    one = narrowed(of(seen.observations[:1]), SPACE[:1])["lr"]
    assert one.reason == "kept: 1 trial is too few to give anything up"
    nothing = of([Observation({"lr": 0.01}, value) for value in (math.nan, -math.inf) * 10])
    lr = narrowed(nothing, SPACE[:1])["lr"]
    assert (lr.low, lr.high) == (1e-4, 1.0)
    assert lr.reason == "kept: no trial of the stage gave a result to go by"
    assert narrow(SPACE, [], keep=KEEP, margin=MARGIN, trust=None)[0].low == 1e-4


def test_a_held_parameter_gets_no_range_from_its_one_value() -> None:
    seen = stage(SPACE, lambda p: -number(p["dropout"]))
    held = of([replace(one, params={**one.params, "lr": 0.01}) for one in seen.observations])
    lr = narrowed(held)["lr"]
    assert (lr.low, lr.high) == (1e-4, 1.0)
    assert lr.reason == "kept: all trials had 0.01"
    constant = (replace(SPACE[0], low=0.01, high=0.01),)
    assert narrowed(held, constant)["lr"].reason == "held at 0.01"


def test_what_a_survivor_brings_back_is_not_held() -> None:
    seen = choices({"relu": [i / 100 for i in range(10)], "tanh": [0.99]})
    act = narrowed(seen, (replace(ACT[0], values=("relu",)),))["act"]
    assert act.values == ("relu", "tanh")
    assert act.reason == "no longer held at relu; widened to the best trials"


def test_diverged_trials_count_as_the_worst() -> None:
    lr = run(lambda p: -math.inf if number(p["lr"]) > 0.1 else number(p["lr"]))["lr"]
    assert lr.high < 0.5
    nan = run(lambda p: math.nan if number(p["lr"]) > 0.1 else number(p["lr"]))["lr"]
    assert (nan.low, nan.high) == (lr.low, lr.high)


def test_pruned_trials_rank_below_all_that_ran_to_their_end() -> None:
    seen = stage(SPACE, lambda p: -abs(math.log10(number(p["lr"])) + 2))
    # Early values that look best, all at large learning rates.
    pruned = [
        replace(one, objective=100.0, settled=False) if number(one.params["lr"]) > 0.1 else one
        for one in seen.observations
    ]
    lr = narrowed(of(pruned))["lr"]
    assert lr.high < 0.2
    assert lr.contains(0.01)


def test_a_wider_margin_gives_a_wider_range() -> None:
    seen = stage(SPACE, lambda p: -abs(number(p["dropout"]) - 0.35))
    widths = []
    for margin in (0.0, 0.2, 1.0):
        dropout = narrowed(seen, margin=margin)["dropout"]
        widths.append(dropout.high - dropout.low)
    assert widths[0] < widths[1] < widths[2]


def test_trust_governs_how_hard_a_range_is_narrowed() -> None:
    seen = stage(SPACE, lambda p: -abs(math.log10(number(p["lr"])) + 2))
    trusts = (agreed(0.8, 0.6, 0.9), agreed(0.4, 0.1, 0.6), agreed(0.3, -0.3, 0.7), agreed(0.0, -0.3, 0.3))
    shares = [share(SPACE[0], narrowed(seen, trust=trust)["lr"]) for trust in trusts]
    assert shares[0] == share(SPACE[0], narrowed(seen)["lr"])
    assert shares == sorted(shares)
    assert shares[0] < 0.55 < shares[1] < shares[2] < shares[3] == 1
    loose = narrowed(seen, trust=trusts[2])["lr"].reason
    assert "cut 20% as hard because rankings carry over loosely (tau 0.30)" in loose
    none = narrowed(seen, trust=trusts[3])["lr"].reason
    assert none == (
        "kept: rankings do not carry over from coarse to fine "
        "(Kendall's tau 0.00, 90% interval -0.30 … 0.30, 12 settings)"
    )


def test_without_trust_only_what_diverges_is_cut() -> None:
    def score(p: dict[str, Value]) -> float:
        diverges = number(p["lr"]) > 0.1 or p["act"] == "tanh"
        return -math.inf if diverges else -abs(math.log10(number(p["lr"])) + 3)

    after = narrowed(stage(SPACE, score, 128), trust=agreed(0.02, -0.3, 0.3))
    lr = after["lr"]
    assert lr.low == 1e-4, "what is merely poor stays"
    assert 0.1 <= lr.high < 0.5
    assert lr.reason.startswith("cut to where trials do not diverge (")
    assert "rankings do not carry over" in lr.reason
    assert after["act"].values == ("relu", "gelu")
    assert "tanh (" in after["act"].reason
    assert "trials diverged)" in after["act"].reason
    assert (after["dropout"].low, after["dropout"].high) == (0.0, 0.7)


def test_confounded_parameters_are_cut_less() -> None:
    space = parse_space({"x": "interval(0.0, 1.0)", "y": "interval(0.0, 1.0)"}, {}, "sweep.yaml")

    def ridge(p: dict[str, Value]) -> float:
        along = number(p["x"]) + number(p["y"]) - 1
        across = number(p["x"]) - number(p["y"])
        return -10 * along**2 - 2 * across**2

    tied = narrowed(stage(space, ridge, 128), space)["x"]
    assert "cut less because its good values go with y (rank correlation -0." in tied.reason
    round_hill = narrowed(
        stage(space, lambda p: -((number(p["x"]) - 0.5) ** 2) - (number(p["y"]) - 0.5) ** 2, 128), space
    )["x"]
    assert "go with" not in round_hill.reason
    assert share(space[0], round_hill) < share(space[0], tied)
