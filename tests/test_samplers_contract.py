"""What every sampler holds to, whatever the space and the history: the same tests for all of them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache

import pytest

from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.samplers import sample
from orchestrator.schema import SAMPLERS
from orchestrator.space import CHOICE, FLOAT, INT, Parameter, Value, active, setting_id

LEARNERS = tuple(name for name in SAMPLERS if name not in ("sobol", "random", "grid"))
FILLING = tuple(name for name in SAMPLERS if name != "grid")

LR = Parameter(name="optimizer.lr", kind=FLOAT, low=1e-4, high=1, log=True)
SPACE = (
    Parameter(name="optimizer", kind=CHOICE, values=("sgd", "adam")),
    LR,
    Parameter(name="optimizer.momentum", kind=FLOAT, low=0, high=0.99, when="optimizer == 'sgd'"),
    Parameter(name="optimizer.nesterov", kind=CHOICE, values=(True, 1, False), when="optimizer == 'sgd'"),
    Parameter(name="batch", kind=INT, low=1, high=1024, log=True),
    Parameter(name="width", kind=CHOICE, values=(16, 32, 64, 128), ordered=True),
    Parameter(name="epochs", kind=INT, low=3, high=3),
    Parameter(name="decay", kind=FLOAT, low=0.25, high=0.25),
    Parameter(name="act", kind=CHOICE, values=("relu",)),
)
SMALL = (
    Parameter(name="optimizer", kind=CHOICE, values=("sgd", "adam")),
    Parameter(name="nesterov", kind=CHOICE, values=(True, False), when="optimizer == 'sgd'"),
    Parameter(name="layers", kind=INT, low=1, high=3),
)


def number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


def score(setting: dict[str, Value]) -> float:
    return -abs(math.log10(number(setting["optimizer.lr"])) + 2) - 0.5 * (setting["optimizer"] == "sgd")


@cache
def past(count: int = 24) -> tuple[dict[str, Value], ...]:
    return tuple(sample(SPACE, count, "sobol", 77))


def history(objective: Callable[[dict[str, Value]], float] = score, count: int = 24) -> list[Observation]:
    return [
        Observation(s, objective(s), scale=1 / 9 if i % 2 else 1 / 3, settled=i % 3 > 0)
        for i, s in enumerate(past(count))
    ]


def check(space: Sequence[Parameter], settings: list[dict[str, Value]]) -> None:
    for setting in settings:
        assert setting == active(space, setting)
        assert list(setting) == [p.name for p in space if p.name in setting]
        whole = {p.name: setting.get(p.name, p.from_unit(0)) for p in space}
        assert setting.keys() == active(space, whole).keys(), "nothing that exists is missing"
        for p in space:
            if p.name in setting:
                value = setting[p.name]
                assert p.contains(value), (p, value)
                expected = {INT: int, FLOAT: float}.get(p.kind, type(value))
                assert type(value) is expected
    assert len({setting_id(setting) for setting in settings}) == len(settings), "no setting twice"


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [0, 1, 12])
def test_as_many_as_asked_for_and_inside_the_ranges(sampler: str, count: int) -> None:
    settings = sample(SPACE, count, sampler, 1, history())
    check(SPACE, settings)
    assert len(settings) == count or (sampler == "grid" and 0 < len(settings) < count)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_thousand(sampler: str) -> None:
    settings = sample(SPACE, 1000, sampler, 1, history())
    check(SPACE, settings)
    assert len(settings) == 1000 or (sampler == "grid" and len(settings) > 400)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "objective",
    [lambda s: 1.0, lambda s: -math.inf, lambda s: math.nan, lambda s: math.inf,
     lambda s: -math.inf if s["optimizer"] == "sgd" else score(s)],
    ids=["equal", "diverged", "nan", "infinite", "half diverged"],
)  # fmt: skip
def test_any_objective(sampler: str, objective: Callable[[dict[str, Value]], float]) -> None:
    settings = sample(SPACE, 3, sampler, 1, history(objective))
    check(SPACE, settings)
    assert 0 < len(settings) <= 3


@pytest.mark.parametrize("sampler", LEARNERS)
def test_learns_and_turns_round_with_the_objective(sampler: str) -> None:
    def median(objective: Callable[[dict[str, Value]], float]) -> float:
        drawn = sample(SPACE, 8, sampler, 5, history(objective, 48))
        return sorted(map(score, drawn))[4]

    assert median(score) > median(lambda s: -score(s)) + 0.5


@pytest.mark.parametrize("sampler", LEARNERS)
def test_keeps_away_from_what_diverged(sampler: str) -> None:
    drawn = sample(SPACE, 8, sampler, 3, history(lambda s: -math.inf if s["optimizer"] == "sgd" else 1, 48))
    assert sum(s["optimizer"] == "adam" for s in drawn) > 5


@pytest.mark.parametrize("sampler", LEARNERS)
def test_the_order_of_the_history_means_nothing(sampler: str) -> None:
    assert sample(SPACE, 3, sampler, 2, history()) == sample(SPACE, 3, sampler, 2, history()[::-1])


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])  # the model learns from outside, too
def test_what_does_not_fit_the_ranges_is_left_out(sampler: str) -> None:
    inside = history()
    strange = [
        Observation({**past()[0], "optimizer.lr": 5.0}, 100.0, scale=1 / 27),
        Observation({**past()[0], "optimizer": "lion"}, 100.0, scale=1 / 27),
        Observation({"width": 16}, 100.0, scale=1 / 27),
        Observation({}, 100.0, scale=1 / 27),
    ]
    assert sample(SPACE, 3, sampler, 2, inside + strange) == sample(SPACE, 3, sampler, 2, inside)


@pytest.mark.parametrize("sampler", LEARNERS)
def test_names_that_the_space_lacks_do_no_harm(sampler: str) -> None:
    extra = [Observation({**seen.params, "other": 3}, seen.objective) for seen in history()]
    check(SPACE, sample(SPACE, 3, sampler, 2, extra))


@pytest.mark.parametrize("sampler", FILLING)
def test_a_small_space_is_used_up_then_given_again(sampler: str) -> None:
    # sgd with and without nesterov, and adam, each with 3 layers.
    assert len(sample(SMALL, 20, sampler, 1)) == 9
    everything = sample(SMALL, 9, sampler, 1)
    check(SMALL, everything)
    ran = [Observation(s, float(i)) for i, s in enumerate(everything[:7])]
    left = {setting_id(s) for s in everything[7:]}
    assert {setting_id(s) for s in sample(SMALL, 2, sampler, 2, ran)} == left
    again = sample(SMALL, 4, sampler, 2, ran)
    check(SMALL, again)
    assert len(again) == 4 and {setting_id(s) for s in again[:2]} == left
    # At another scale they have not run yet; and what the stage has already never comes twice.
    assert len(sample(SMALL, 9, sampler, 2, ran, scale=0.5)) == 9
    fresh = sample(SMALL, 9, sampler, 2, ran, scale=0.5, taken=everything[:4])
    assert {setting_id(s) for s in fresh} == {setting_id(s) for s in everything[4:]}
    assert sample(SMALL, 3, sampler, 2, taken=everything) == []


def test_a_grid_in_waves_gives_only_what_is_new() -> None:
    first = sample(SMALL, 4, "grid", 1)
    check(SMALL, first)
    ran = [Observation(s, 1.0) for s in first]
    assert not {setting_id(s) for s in sample(SMALL, 12, "grid", 1, ran)} & {setting_id(s) for s in first}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_constants_alone_are_one_setting(sampler: str) -> None:
    fixed = tuple(p for p in SPACE if p.constant)
    assert sample(fixed, 5, sampler, 1) == [{"epochs": 3, "decay": 0.25, "act": "relu"}]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", [p.name for p in SPACE if not p.when])
def test_one_parameter_alone(sampler: str, name: str) -> None:
    space = tuple(p for p in SPACE if p.name == name)
    seen = [Observation({name: s[name]}, score(s)) for s in past()]
    drawn = sample(space, 4, sampler, 1, seen, scale=0.5)
    check(space, drawn)
    assert drawn


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_decides(sampler: str) -> None:
    drawn = sample(SPACE, 4, sampler, 1, history())
    assert drawn == sample(SPACE, 4, sampler, 1, history())
    if sampler != "grid":
        assert drawn != sample(SPACE, 4, sampler, 2, history())


CODE = f"""
import json, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_samplers_contract import SPACE, history
from orchestrator.planning.sampling.samplers import sample
names = {SAMPLERS!r}
print(json.dumps({{name: sample(SPACE, 8, name, 11, history()) for name in names}}))
"""


def test_the_same_in_three_processes_with_other_hash_seeds_and_threads() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONHASHSEED": str(seed), "PATH": "", "OMP_NUM_THREADS": threads},
        )
        for seed, threads in ((1, "1"), (2, "2"), (3, "4"))
    ]
    printed = [json.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    for name in SAMPLERS:
        assert printed[0][name] == printed[1][name] == printed[2][name], name
        assert printed[0][name] == sample(SPACE, 8, name, 11, history()), name


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("gp", "model")])
def test_only_the_gaussian_process_imports_torch(sampler: str) -> None:
    code = CODE.replace("names =", f"names = ({sampler!r},) or") + "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
