"""Hours: a small first wave measures what a trial takes, whatever was declared."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_job import own

from orchestrator.planning.budget import CALIBRATION_TRIALS, parse_budget
from orchestrator.planning.cost import Price
from orchestrator.planning.plan import Plan
from orchestrator.planning.reprice import reprice
from orchestrator.planning.spending import Spent

FILE = """\
name: tiny
metric: {name: acc}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, fraction: 1.0, epochs: 9}
  scale: {data: fraction, epochs: epochs}
  cost: {startup_seconds: 0.001, sample_seconds: 2.0e-6}
datasets: {samples: 1000, num_classes: 2}
space: {lr: "tag(log, interval(1e-4, 1.0))"}
stages:
  coarse: {trials: 60, data: 0.33, epochs: 3}
  fine: {trials: 6, data: 0.5, epochs: 9}
final: {top: 2, seeds: 1}
budget: 0.00015 core-hours
"""


def planned(*overrides: str) -> tuple[Plan, Price]:
    found = own(FILE, "slurm.cpus_per_task=1", *overrides)
    return found.plan, Price.of(found.config)


def test_a_declared_price_that_is_wrong_costs_one_small_wave(here: Path) -> None:
    plan, price = planned()
    budget = parse_budget(plan.budget)
    assert "jobs.cost may be wrong on these cores, so the first wave of 'coarse' measures" in plan.notes[-1]
    first = reprice(plan, {}, budget, price).plan.phases[0]
    assert first.wave_sizes == (CALIBRATION_TRIALS, 60 - CALIBRATION_TRIALS)
    seconds = 16 * (plan.phases[0].cost.seconds or 0.0) / 60
    spent = Spent(
        drawn=CALIBRATION_TRIALS, settings=CALIBRATION_TRIALS, waves=1, whole=CALIBRATION_TRIALS,
        whole_seconds=CALIBRATION_TRIALS * seconds,
    )  # fmt: skip
    # What was declared would have paid for the other 52.
    assert reprice(plan, {"coarse": spent}, budget, price).plan.phases[0].trials == CALIBRATION_TRIALS


def test_what_is_not_counted_in_hours_needs_no_measuring(here: Path) -> None:
    plan, price = planned("budget=30 trainings")
    assert plan.notes == ()
    assert reprice(plan, {}, parse_budget(plan.budget), price).plan.phases[0].wave_sizes == (60,)


@pytest.mark.parametrize("declared", [True, False])
def test_a_grid_is_drawn_at_once_and_measures_as_a_whole(here: Path, declared: bool) -> None:
    unknown = ["jobs.cost.startup_seconds=null", "jobs.cost.sample_seconds=null"]
    plan, price = planned("stages.coarse.sampler=grid", *unknown * (not declared))
    assert plan.phases[0].wave_sizes == (60,)
    assert "so the whole grid of 'coarse' measures it" in plan.notes[-1]
    assert reprice(plan, {}, parse_budget(plan.budget), price).plan.phases[0].wave_sizes == (60,)
