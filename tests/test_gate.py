"""The checks before the first stage: what they make of a sweep, decided, planned and run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from commands import assert_finished, orchestrate
from orchestrator.cluster.interface import Capacity
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.control.decide import PAUSED, RUNNING, Freeze, Limits, decide
from orchestrator.control.rates import with_range_test
from orchestrator.errors import UserError
from orchestrator.planning.plan import Cost, Phase, Plan, Scale, plan_from_json, plan_to_json
from orchestrator.space import CHOICE, FLOAT, Parameter
from orchestrator.sweep.directory import CHECK_TRIALS, CHECKS, STAGE, SweepDirectory, TrialSpec
from orchestrator.sweep.facts import Facts, PhaseFacts, read_facts, read_plan
from orchestrator.sweep.files import write_json
from orchestrator.sweep.records import COMPLETED, FAILED, Outcome

GATE = Phase(kind=CHECKS, name=CHECKS, trials=2, scale=Scale(), batch=2)
COARSE = Phase(kind=STAGE, name="coarse", trials=2, scale=Scale())
PLAN = Plan(
    uid="ab", name="tiny", metric="acc", mode="max", created=0.0, folder="/x", unit="core",
    phases=(GATE, COARSE), total=Cost(), full_scale_share=None,
)  # fmt: skip
ANY = Limits(attempts=3, capacity=Capacity())
FOUND = {"parameter": "lr", "low": 0.002, "high": 0.3, "best": 0.1, "exploded": True}
SWEEP = """
name: tiny
metric: {name: score, mode: max}
space: {lr: "tag(log, interval(1e-5, 1.0))"%s}
stages: {first: {trials: 2}}
final: {top: 0}
checks: {%s}
jobs:
  _target_: mine.train
  setup: mine.setup
  config: {lr: 0.1, optimizer: sgd}
"""


def facts(states: dict[str, str], *, accepted: bool = False) -> Facts:
    trials = tuple(TrialSpec(trial_id=name, setting_id="", params={}, seed=0) for name in CHECK_TRIALS)
    outcomes = {
        name: Outcome(trial=name, state=state, metrics={}, seconds=1.0, error=f"{name} saw this")
        for name, state in states.items()
    }
    gate = PhaseFacts(phase=GATE, waves=1, trials=trials, outcomes=outcomes)
    return Facts(plan=PLAN, phases=(gate, PhaseFacts(phase=COARSE)), checked=True, accepted=accepted)


def test_sound_checks_let_the_first_stage_begin() -> None:
    decision = decide(facts(dict.fromkeys(CHECK_TRIALS, COMPLETED)), {}, ANY)
    assert (decision.state, decision.actions) == (RUNNING, (Freeze(COARSE),))


def test_a_failed_check_stops_the_sweep_and_says_what_it_saw() -> None:
    sanity, rates = CHECK_TRIALS
    decision = decide(facts({sanity: FAILED, rates: COMPLETED}), {}, ANY)
    assert (decision.state, decision.message) == (PAUSED, f"{sanity} saw this")
    assert not any(isinstance(action, Freeze) for action in decision.actions)


def test_a_person_may_want_it_to_go_on_anyway() -> None:
    decision = decide(facts(dict.fromkeys(CHECK_TRIALS, FAILED), accepted=True), {}, ANY)
    assert (decision.state, decision.actions) == (RUNNING, (Freeze(COARSE),))


def test_checks_that_the_cluster_ends_again_and_again_stop_the_sweep_too() -> None:
    known = facts({CHECK_TRIALS[1]: COMPLETED})
    gate = replace(known.phases[0], closed=True)  # nobody waits for it, so it counts as given up
    decision = decide(replace(known, phases=(gate, known.phases[1])), {}, ANY)
    assert decision.state == PAUSED and decision.message.startswith("the checks: ")


def test_the_plan_begins_with_the_checks_where_the_job_has_a_setup(tmp_path: Path) -> None:
    plan = _plan(tmp_path, "range_test: lr")
    assert [(phase.kind, phase.trials) for phase in plan.phases] == [(CHECKS, 2), (STAGE, 2)]
    assert plan.checks is not None and plan.stages == plan.phases[1:]
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan
    assert [phase.kind for phase in _plan(tmp_path, "enabled: false").phases] == [STAGE]


def _plan(folder: Path, checks: str, space: str = "") -> Plan:
    (folder / "mine.py").write_text("def train(config, trial): ...\ndef setup(config): ...\n")
    (folder / "sweep.yaml").write_text(SWEEP % (space, checks))
    return work_out(folder / "sweep.yaml", [f"dir={folder / 'sweep'}"]).plan


@pytest.mark.parametrize(
    ("checks", "space", "told"),
    [
        ("range_test: lrr", "", "checks.range_test: 'lrr' is not known. Did you mean 'lr'?"),
        ("range_test: lr, enabled: false", "", "the checks are switched off"),
        ("human_accuracy: 98", "", "98 is no share of right answers"),
        ("range_tset: lr", "", "checks.range_tset"),
        ("skip: [D33]", "", "checks.skip: 'D33' is not known"),
    ],
)
def test_wrong_checks_are_refused(tmp_path: Path, checks: str, space: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        _plan(tmp_path, checks, space)


def test_the_range_test_gives_the_first_range(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path)
    rate = Parameter(name="lr", kind=FLOAT, low=1e-5, high=1.0, log=True)
    space = (rate, Parameter(name="width", kind=CHOICE, values=(8, 16)))
    assert with_range_test(space, directory, "lr") == space
    write_json(directory.range_test, FOUND)
    lr, width = with_range_test(space, directory, "lr")
    assert (lr.low, lr.high, width) == (0.002, 0.3, space[1])
    assert "declared was 1e-05 … 1 (log)" in lr.reason
    assert with_range_test(space, directory, None) == space
    wide = replace(rate, low=0.01, high=0.1)
    assert with_range_test((wide,), directory, "lr")[0].low == 0.01, "what was declared counts too"
    elsewhere = replace(rate, low=1e-6, high=1e-4)
    assert with_range_test((elsewhere,), directory, "lr")[0].high == 0.3, "unless the two never meet"
    limited = (replace(space[0], limits=(None, 0.05)),)
    assert with_range_test(limited, directory, "lr")[0].high == 0.05
    write_json(directory.range_test, {**FOUND, "low": None, "high": None})
    assert with_range_test(space, directory, "lr") == space


def test_the_frozen_first_stage_has_the_range_that_was_tested(tmp_path: Path) -> None:
    from orchestrator.control.draw import freeze
    from orchestrator.sweep.files import read_json

    _plan(tmp_path, "range_test: lr")
    planned = work_out(tmp_path / "sweep.yaml", [f"dir={tmp_path / 'sweep'}"])
    freeze_plan(planned)
    directory, plan = planned.directory, planned.plan
    freeze(directory, plan, planned.config, plan.phases[0], 0)
    write_json(directory.range_test, FOUND)
    freeze(directory, plan, planned.config, plan.phases[1], 0)
    lr = read_json(directory.phase(STAGE, "first").space)["parameters"]["lr"]
    assert (lr["low"], lr["high"]) == (0.002, 0.3)


UNSOUND = """
import torch
from torch import nn

def setup(config):
    torch.manual_seed(0)
    inputs = torch.randn(120, 6)
    targets = (inputs[:, 0] > 0).long()
    return {
        "model": nn.Linear(6, 2), "inputs": inputs, "targets": targets,
        "loss": lambda outputs, targets: nn.functional.cross_entropy(outputs%s, targets),
    }

def train(config, trial):
    return {"score": config.lr}
"""


def test_an_unsound_set_up_costs_nothing_and_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(UNSOUND % ".detach()")
    (tmp_path / "sweep.yaml").write_text(SWEEP % ("", "range_test: lr"))
    stopped = orchestrate("run", "sweep.yaml", cwd=tmp_path, status=1)
    assert "likely cause" in stopped.stderr and "detach" in stopped.stderr
    assert "orchestrate check sweeps/tiny --accept" in stopped.stderr
    directory = SweepDirectory(tmp_path / "sweeps" / "tiny")
    assert not directory.phase(STAGE, "first").trials.exists(), "no trial of the sweep was so much as drawn"
    (tmp_path / "mine.py").write_text(UNSOUND % "")
    orchestrate("retry", "sweeps/tiny", cwd=tmp_path)
    orchestrate("run", "sweeps/tiny", cwd=tmp_path)
    assert_finished(directory.path, trials=2)
    lr = json.loads(directory.phase(STAGE, "first").space.read_text())["parameters"]["lr"]
    assert "the range test's" in lr["reason"] and 1e-5 < lr["low"] < lr["high"]
    page = directory.report.read_text()
    assert "Checks before the first stage" in page and "Learning-rate range test" in page


def test_what_a_person_accepts_is_written_down(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(UNSOUND % ".detach()")
    (tmp_path / "sweep.yaml").write_text(SWEEP % ("", ""))
    freeze_plan(work_out(tmp_path / "sweep.yaml", [f"dir={tmp_path / 'sweep'}"]))
    told = orchestrate("check", "sweep", "--accept", cwd=tmp_path).stdout
    assert "orchestrate run sweep" in told
    directory = SweepDirectory(tmp_path / "sweep")
    assert read_facts(directory, read_plan(directory)).accepted
    orchestrate("check", "elsewhere", "--accept", cwd=tmp_path, status=2)
