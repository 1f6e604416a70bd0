"""Stages with `tune`: what they hold, at which values, what is learned there, and what is said of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from commands import write_user_sweep
from made_results import number, stage
from orchestrator.cli import main
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.control.draw import freeze
from orchestrator.errors import UserError
from orchestrator.planning.narrowing.holding import Held, hold, searchable, with_held
from orchestrator.planning.narrowing.importance import unimportant
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.samplers import sample
from orchestrator.report.planned import show_plan
from orchestrator.report.ranges import ranges_view
from orchestrator.space import CHOICE, FLOAT, Parameter, Value
from orchestrator.sweep.directory import read_trials
from orchestrator.sweep.spaces import read_space

SWEEP = """
defaults: [sweep, {slurm: local}, _self_]
name: held
metric: {name: acc, mode: max}
space:
  lr: tag(log, interval(1e-5, 1))
  weight_decay: tag(log, interval(1e-6, 1e-1))
  width: choice(16, 32, 64, 128)
stages:
  first: {trials: 6, data: 0.1, tune: [lr]}
  second: {trials: 8, data: 1.0}
final: {top: 0}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, weight_decay: 0.001, width: 64, fraction: 1.0}
  scale: {data: fraction}
"""
OPTIMIZER = Parameter(name="optimizer", kind=CHOICE, values=("sgd", "adam"))
MOMENTUM = Parameter(name="momentum", kind=FLOAT, low=0.5, high=1, when="optimizer == 'sgd'")
BETA = Parameter(name="beta", kind=FLOAT, low=0.5, high=1, when="optimizer == 'adam'")
WIDTH = Parameter(name="width", kind=FLOAT, low=1, high=6)
LR = Parameter(name="lr", kind=FLOAT, low=1e-5, high=1, log=True)
DECAY = Parameter(name="decay", kind=FLOAT, low=1e-6, high=1e-1, log=True)
CONDITIONAL = (OPTIMIZER, MOMENTUM, BETA, WIDTH)


def first_space(tmp_path: Path, own: str = "0.001", *overrides: str) -> tuple[dict[str, Any], list[Any]]:
    """Return the space.json of a first stage, and its settings."""
    text = SWEEP.replace("weight_decay: 0.001", f"weight_decay: {own}")
    planned = work_out(write_user_sweep(tmp_path, sweep=text), list(overrides))
    freeze_plan(planned)
    first = planned.plan.stages[0]
    freeze(planned.directory, planned.plan, planned.config, first, 0)
    folder = planned.directory.phase(first.kind, first.name)
    assert read_space(folder.space)
    return json.loads(folder.space.read_text()), [t.params for t in read_trials(folder.trials)]


@pytest.mark.parametrize("own", ["0", "0.0", "-1", "auto", "null", "5.0"])
def test_a_first_stage_holds_nothing_at_a_value_that_cant_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content, settings = first_space(tmp_path, own)
    decay = content["parameters"]["weight_decay"]
    assert decay["low"] == decay["high"] == pytest.approx(math.sqrt(1e-7))
    assert decay["reason"] == "held at 0.000316, the middle of its range: this stage tunes others"
    assert len({setting["lr"] for setting in settings}) == len(settings) == 6
    assert {(number(s["weight_decay"]), s["width"]) for s in settings} == {(decay["low"], 64)}


def test_a_first_stage_holds_the_jobs_own_values_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, settings = first_space(tmp_path)
    assert content["parameters"]["width"]["values"] == [64]
    reason = content["parameters"]["weight_decay"]["reason"]
    assert reason == "held at 0.001, the job's own value: this stage tunes others"
    assert {s["weight_decay"] for s in settings} == {0.001}
    assert [p.span() for p in searchable(content)][1] == "1e-06 … 0.1 (log)"


def away(best: float, settings: list[dict[str, Any]]) -> list[float]:
    """Return how far settings lie from a learning rate, in decades."""
    return [abs(math.log10(s["lr"] / best)) for s in settings]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
@pytest.mark.parametrize("kind", ["number", "choice", "choices"])
def test_samplers_learn_from_results_before_what_is_held_now(sampler: str, kind: str) -> None:
    others: tuple[Parameter, ...] = (DECAY,)
    if kind != "number":
        count = 2 if kind == "choice" else 4
        others = tuple(Parameter(name=f"c{n}", kind=CHOICE, values=("a", "b")) for n in range(count))
    space = (LR, *others)
    history = [
        Observation(params, -abs(math.log10(number(params["lr"])) + 3))
        for params in sample(space, 64, "sobol", 1)
    ]
    values: dict[str, Held] = {p.name: ("a" if p.kind == CHOICE else 1e-3, "") for p in space}
    held = hold(space, {p.name: "" for p in others}, values)
    # One at a time: of a batch a Gaussian process spends most on what is far from all that it knows.
    drawn = [sample(held, 1, sampler, seed, history)[0] for seed in range(6)]
    spread = [sample(held, 1, "sobol", seed)[0] for seed in range(6)]
    assert drawn != spread
    assert sum(away(1e-3, drawn)) < sum(away(1e-3, spread)) / 2


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_results_with_another_option_are_left_out_where_there_are_enough(sampler: str) -> None:
    space = (LR, OPTIMIZER)
    history = []
    for params in sample(space, 96, "sobol", 1):
        # Adam is better throughout, and its best learning rate is another one.
        adam = params["optimizer"] == "adam"
        score = adam - abs(math.log10(number(params["lr"])) + (4 if adam else 1))
        history.append(Observation(params, score))
    held = hold(space, {"optimizer": ""}, {"lr": (0.1, ""), "optimizer": ("sgd", "")})
    drawn = sample(held, 12, sampler, 3, history)
    assert sum(away(1e-1, drawn)) < sum(away(1e-4, drawn))


def conditional_results(only: str = "") -> list[Observation]:
    """Results where Adam is best: its settings have no momentum."""
    found = []
    for number_, params in enumerate(sample((OPTIMIZER, MOMENTUM, BETA, WIDTH), 24, "sobol", 1)):
        if only in ("", params["optimizer"]):
            adam = params["optimizer"] == "adam"
            found.append(
                Observation(params, adam - abs(number(params["width"]) - (3 if adam else 5)) + number_ * 1e-6)
            )
    return found


def new_settings(
    tune: tuple[str, ...], seen: list[Observation], own: dict[str, Value] | None = None
) -> list[Any]:
    return sample(with_held(tune, CONDITIONAL, seen, own or {}), 8, "sobol", 5)


def test_a_conditional_parameter_is_tuned_where_it_exists() -> None:
    held = {p.name: p for p in with_held(("momentum",), CONDITIONAL, conditional_results(), {})}
    assert held["optimizer"].values == ("sgd",)
    assert held["optimizer"].reason == "held at sgd, the best so far with momentum: this stage tunes others"
    assert number(held["width"].low) == pytest.approx(5, abs=1), "as in the best trial that has it"
    settings = new_settings(("momentum",), conditional_results())
    assert len({s["momentum"] for s in settings}) == 8
    best = {p.name: p for p in with_held(("width",), CONDITIONAL, conditional_results(), {})}
    assert best["optimizer"].values == ("adam",), "where nothing conditional is tuned the best decides"


def test_where_no_trial_has_what_is_tuned_its_relatives_are_free() -> None:
    settings = new_settings(("momentum",), conditional_results("adam"))
    assert any("momentum" in s for s in settings)
    assert {s["width"] for s in settings} != set() and len({s["width"] for s in settings}) == 1
    # Two that exclude each other.
    settings = new_settings(("momentum", "beta"), conditional_results())
    assert {s["optimizer"] for s in settings} == {"sgd", "adam"}
    # Before any result: the job's own optimizer has no momentum.
    settings = new_settings(("momentum",), [], {"optimizer": "adam"})
    assert any("momentum" in s for s in settings)
    settings = new_settings(("momentum",), [], {"optimizer": "sgd"})
    assert all("momentum" in s for s in settings)


def test_a_name_within_a_condition_s_words_is_no_condition() -> None:
    space = (
        Parameter(name="lr", kind=FLOAT, low=1e-4, high=1, log=True),
        Parameter(name="a", kind=FLOAT, low=0, high=1),
        Parameter(name="width", kind=FLOAT, low=0, high=1, when="max(lr, 0.0) > 0 and lr < 2"),
    )
    seen = stage(
        space, lambda p: -((math.log10(number(p["lr"])) + 2) ** 2) - number(p["width"]), 256
    ).observations
    assert list(unimportant(space, seen)) == ["a"]
    decides = (*space[:2], replace(space[2], when="max(a, 0.0) >= 0"))
    assert list(unimportant(decides, seen)) == []


def test_auto_names_the_importance_that_decided() -> None:
    space = (LR, DECAY)
    seen = stage(space, lambda p: -((math.log10(number(p["lr"])) + 2) ** 2), 256).observations
    (share,) = unimportant(space, seen).values()
    (reason,) = (p.reason for p in with_held(("auto",), space, seen, {}) if p.constant)
    assert reason.endswith(f", the best so far: {share:.1%} of the results' variation is its doing")
    assert with_held(("auto",), space, (), {}) == space
    assert with_held((), space, seen, {}) == space


def plan_text(folder: Path, *overrides: str) -> str:
    planned = work_out(write_user_sweep(folder, sweep=SWEEP), list(overrides))
    console = Console(file=StringIO(), width=200, color_system=None)
    show_plan(console, planned.plan, planned.space, folder)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_plan_says_what_a_stage_tunes(tmp_path: Path) -> None:
    text = plan_text(tmp_path, "stages.second.tune=[auto]")
    assert "first: 6 new settings by model, tuning lr and holding the rest; then" in text
    assert "5 new settings by model, all tuned but what hardly mattered before, which is held" in text
    assert "holding" not in plan_text(tmp_path, "stages.first.tune=[]")


@pytest.mark.parametrize(
    ("survivors", "controls", "told"),
    [
        (3, 1, "second: 3 survivors and 1 control, 4 new settings"),
        (1, 0, "second: 1 survivor, 7 new settings"),
        (0, 2, "second: 2 controls, 6 new settings"),
        (0, 0, "second: 8 new settings"),
    ],
)
def test_the_plan_says_what_runs_again(tmp_path: Path, survivors: int, controls: int, told: str) -> None:
    asked = [f"stages.second.survivors={survivors}", f"stages.second.controls={controls}"]
    assert told in plan_text(tmp_path, "stages.second.trials=8", *asked)


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ("auto", "expected a list. Put it in brackets: tune: [...]"),
        ("[auto,lr]", "'auto' stands alone. Write tune: [auto], or the names alone"),
        ("[lrr]", "'lrr' is not known. Did you mean 'lr'?"),
    ],
)
def test_what_is_wrong_with_tune(tmp_path: Path, tune: str, message: str) -> None:
    file = write_user_sweep(tmp_path, sweep=SWEEP)
    with pytest.raises(UserError) as caught:
        work_out(file, [f"stages.first.tune={tune}"])
    assert str(caught.value) == f"command line: stages.first.tune: {message}"


def test_the_ranges_are_shown_from_what_was_declared() -> None:
    space = (LR, DECAY)
    held = hold(space, {"decay": "this stage tunes others"}, {"decay": (1e-3, "the job's own value")})
    narrow = (LR, replace(DECAY, high=1e-2, reason="narrowed"))

    def shown(**spaces: tuple[Parameter, ...]) -> str:
        console = Console(file=StringIO(), width=140, color_system=None)
        console.print(ranges_view(spaces, declared=space, width=140))
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return text

    (row,) = (line for line in shown(first=held, second=narrow).splitlines() if "second:" in line)
    assert row.split("  ")[0].strip() == "decay" and "1e-06 … 0.1 (log)" in row and "0.001" not in row
    assert "ranges as declared: lr, decay" in shown(first=held, second=space)
    assert "held at 0.001" in shown(first=space, second=held)


def test_status_shows_what_a_first_stage_held_as_it_was_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planned = work_out(write_user_sweep(tmp_path, sweep=SWEEP), [])
    freeze_plan(planned)
    for phase in planned.plan.stages:
        freeze(planned.directory, planned.plan, planned.config, phase, 0)
    text = CliRunner().invoke(main, ["status", str(planned.directory.path)]).output
    assert "ranges as declared: lr, weight_decay, width" in text
