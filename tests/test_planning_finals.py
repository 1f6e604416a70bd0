"""Which settings the final runs have when one parameter's values take turns, and what is refused of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import load_sweep
from orchestrator.errors import UserError
from orchestrator.planning.finished import Finished
from orchestrator.planning.plan import Phase, Scale
from orchestrator.planning.promotion import Known, final_trials
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.validate_final import validate_final
from orchestrator.schema import SweepConfig
from orchestrator.space import Value, parse_space, setting_id
from orchestrator.space.conditions import declared_space
from orchestrator.sweep.directory import FINAL, TrialSpec
from orchestrator.worker.job import scale_values

SPACE = parse_space(
    {"model": "choice(cnn, mlp, tree)", "lr": "interval(0, 1)"}, {}, "sweep.yaml"
)  # fmt: skip


def finished(index: int, objective: float, **params: Value) -> Finished:
    spec = TrialSpec(trial_id=f"fine-{index:05d}", setting_id=setting_id(params), params=params, seed=0)
    return Finished(spec=spec, objective=objective)


def ran(models: str, start: int = 0, base: float = 0.0) -> list[Finished]:
    """Return finished trials, best first: `c` cnn, `m` mlp, `t` tree, `-` without a model."""
    names = {"c": "cnn", "m": "mlp", "t": "tree"}
    return [
        finished(
            start + place,
            base + 1 - place / 100,
            lr=(start + place) / 20,
            **({"model": names[each]} if each != "-" else {}),
        )
        for place, each in enumerate(models)
    ]


def finals(top: int, waves: int = 1) -> Phase:
    return Phase(kind=FINAL, name=FINAL, trials=top, scale=Scale(), survivors=top, waves=waves)


def models(trials: list[TrialSpec]) -> str:
    return "".join(str(trial.params.get("model", "-"))[0] for trial in trials)


@pytest.mark.parametrize(
    ("results", "top", "expected"),
    [
        ("ccccmcct", 3, "cmt"),
        ("ccccmcct", 5, "cmtcc"),
        ("mcmcmc", 4, "mcmc"),
        ("ccc", 3, "ccc"),
        # Where the parameter is not active there is no value: it comes after the others in each turn.
        ("--c-m", 3, "cm-"),
        ("--c-m", 5, "cm---"),
    ],
)
def test_the_best_of_each_value_come_first(results: str, top: int, expected: str) -> None:
    known = Known(before=ran(results))
    assert models(final_trials(finals(top), 1, 0, SPACE, "sobol", known, of_each="model")) == expected
    # Without it they are the best, whatever they are.
    plain = models(final_trials(finals(top), 1, 0, SPACE, "sobol", known))
    assert plain == results[:top]


def test_a_value_that_was_narrowed_away_comes_from_an_earlier_stage() -> None:
    known = Known(before=ran("cmcm"), earlier=ran("tct", start=10, base=-5))
    trials = final_trials(finals(4), 1, 0, SPACE, "sobol", known, of_each="model")
    assert models(trials) == "cmtc"
    assert trials[2].parent == "fine-00010"
    gone = [replace(item, objective=-math.inf) for item in ran("t", start=10)]
    trials = final_trials(
        finals(3), 1, 0, SPACE, "sobol", Known(before=ran("cmc"), earlier=gone), of_each="model"
    )
    assert models(trials) == "cmc", "what diverged is no best of anything"


@settings(max_examples=40)
@given(st.text("cmt-", min_size=1, max_size=20), st.integers(1, 8))
def test_waves_give_what_one_wave_gives(results: str, top: int) -> None:
    known = Known(before=ran(results))
    whole = final_trials(finals(top), 1, 0, SPACE, "sobol", known, of_each="model")
    drawn: list[TrialSpec] = []
    phase = finals(top, min(2, top))
    for wave in range(phase.waves):
        now = replace(known, drawn=drawn)
        drawn = drawn + final_trials(phase, 1, 0, SPACE, "sobol", now, wave, of_each="model")
    assert sorted(spec.setting_id for spec in drawn) == sorted(spec.setting_id for spec in whole)
    wanted = {spec.spec.params.get("model") for spec in known.before} - {None}
    if top >= len(wanted):
        assert {spec.params.get("model") for spec in drawn} >= wanted


def test_a_later_wave_of_the_model_begins_with_the_values_that_are_missing() -> None:
    known = Known(before=ran("ccccccmct"))
    history = [Observation(item.spec.params, item.objective, 0.1) for item in known.before]
    phase = finals(6, waves=3)
    first = final_trials(phase, 1, 0, SPACE, "model", replace(known, history=history), 0, of_each="model")
    assert set(models(first)) <= set("cmt") and len(first) == 2
    own = [Finished(spec=spec, objective=1.0) for spec in first]
    history += [Observation(item.spec.params, item.objective, 1.0) for item in own]
    now = replace(known, own=own, drawn=first, history=history)
    second = final_trials(phase, 1, 0, SPACE, "model", now, 1, of_each="model")
    assert len(second) == 2 and set(models(first)) | set(models(second)) == set("cmt")


# Refusals


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    file = tmp_path_factory.mktemp("declared") / "sweep.yaml"
    file.write_text(
        "defaults: [sweep, {jobs: classify}, {datasets: digits}, _self_]\n"
        "name: mine\nmetric: {name: val/accuracy}\nstages: {only: {trials: 4}}\n"
        "space: {optimizer.lr: 'interval(0.1, 1)', model.name: 'choice(mlp, cnn)', "
        "schedule.name: 'choice(cosine, none)'}\n"
    )
    return load_sweep(file)


def check(declared: SweepConfig, final: dict[str, Any], space: dict[str, str] | None = None) -> None:
    config = replace(declared, final=replace(declared.final, **final), space=space or declared.space)
    validate_final(config, declared_space(config, "sweep.yaml"), "sweep.yaml")


@pytest.mark.parametrize(
    ("final", "message"),
    [
        ({"checkpoints": ["bets"]}, "final.checkpoints: 'bets'.*Did you mean 'best'"),
        ({"checkpoints": "best"}, r"final.checkpoints: 'best' is neither.*\[best\]"),
        ({"checkpoints": 0}, "final.checkpoints: 0 is too few"),
        ({"checkpoints": 2.5}, "2.5 is neither a count nor"),
        ({"checkpoints": None}, "None is neither a count nor"),
        ({"checkpoints": True}, "True is neither a count nor"),
        ({"checkpoints": ["every 20"]}, "never comes in 10 epochs"),
        ({"checkpoints": ["every 20"], "epochs": 19}, "never comes in 19 epochs"),
        ({"checkpoints": ["cycles"]}, "'none' has none.*cyclical, one_cycle, cosine"),
        ({"disk_gb": 0.0}, "final.disk_gb: 0 is no size"),
        ({"disk_gb": -1.0}, "-1 is no size"),
        ({"disk_gb": math.nan}, "nan is no size"),
        ({"of_each": "model.nam"}, "is no parameter.*Did you mean 'model.name'"),
        ({"of_each": "optimizer.lr"}, "searched as a range, not as a choice"),
        ({"of_each": "model.name", "top": 1}, "are 2 settings, and final.top is 1"),
    ],
)
def test_what_means_nothing_is_refused_when_it_is_planned(
    declared: SweepConfig, final: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check(declared, final)
    assert "sweep.yaml" in str(refused.value)


def test_what_means_something_is_not(declared: SweepConfig) -> None:
    moments = ["best", "last", "every 10"]
    check(declared, {"checkpoints": moments, "disk_gb": 0.5, "of_each": "model.name"})
    check(declared, {"checkpoints": ["cycles"], "top": 0})
    check(declared, {"checkpoints": ["cycles"]}, {"schedule.name": "choice(cosine, cyclical)"})
    check(declared, {"checkpoints": ["cycles"]}, {"schedule": "choice(cosine, one_cycle)"})
    # A whole group that is chosen, and the job's own where nothing is searched.
    for space in ({"schedule": "choice(cosine, step)"}, {"optimizer.lr": "interval(0.1, 1)"}):
        with pytest.raises(UserError, match="has none"):
            check(declared, {"checkpoints": ["cycles"]}, space)
    # What schedules a function of the user's own has is not known.
    own = replace(declared, jobs=replace(declared.jobs, _target_="my_train.train"))
    check(own, {"checkpoints": ["cycles"]})


def test_moments_reach_the_job_as_a_list() -> None:
    values = scale_values(Scale(checkpoints=("best", "every 2"), disk_gb=0.5), 3)
    assert values["checkpoints"] == ["best", "every 2"] and values["disk_gb"] == 0.5
    assert scale_values(Scale(), 3)["checkpoints"] is None
