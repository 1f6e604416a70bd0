"""The planner through the command line: a budget that holds, settings to start from, the model, repeats."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from commands import orchestrate, status, write_user_sweep
from orchestrator.sweep.directory import STAGE, SweepDirectory, read_waves

# Each trial writes down what it really trained, in full-scale trainings (10 epochs on all of the data).
TRAIN = """
import math

def train(config, trial):
    for epoch in range(1, config.epochs + 1):
        with open(trial.checkpoint_dir / "trained.log", "a") as log:
            log.write(f"{config.fraction / 10}\\n")
        near = -abs(math.log10(config.lr) + 2) - 0.3 * abs(config.dropout - 0.2)
        score = near - 0.5 / (epoch * config.fraction)
        trial.report(epoch, {"score": score})
    return {"score": score}
"""
SWEEP = """
name: mine
metric: {name: score, mode: max}
space:
  lr: tag(log, interval(1e-5, 1.0))
  dropout: interval(0.0, 0.7)
budget: 8 trainings
stages: auto
jobs:
  _target_: my_train.train
  config: {lr: 0.1, dropout: 0.0, fraction: 1.0, epochs: 10}
  scale: {data: fraction, epochs: epochs}
slurm: {trials_at_once: 2}
"""


def trained(sweep: Path) -> float:
    """Return what was really trained, in full-scale trainings."""
    logs = [*sweep.glob("stages/*/checkpoints/*/trained.log"), *sweep.glob("final/checkpoints/*/trained.log")]
    return sum(float(line) for log in logs for line in log.read_text().split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planner")
    orchestrate("run", write_user_sweep(folder, train=TRAIN, sweep=SWEEP), cwd=folder)
    return folder / "sweeps" / "mine"


def test_an_automatic_ladder_spends_its_budget_and_no_more(finished: Path) -> None:
    spent = trained(finished)
    assert 6.5 < spent <= 8.0 + 1e-6
    shown = orchestrate("budget", finished, cwd=finished.parent).stdout
    assert "of a budget of 8 trainings" in shown
    assert status(finished)["state"] == "done"


def test_it_comes_near_the_best_setting(finished: Path) -> None:
    trials = pd.read_parquet(finished / "results" / "trials")
    final = trials[trials["stage"] == "final"]
    # log10(lr) = -2 and dropout 0.2 are best; a random setting is 1.3 away on average.
    assert final["objective"].max() > -0.5 - 0.25


def test_every_wave_is_frozen_apart_and_the_last_stage_repeats_its_best(finished: Path) -> None:
    directory = SweepDirectory(finished)
    plan = json.loads(directory.plan.read_text())
    stages = [phase for phase in plan["phases"] if phase["kind"] == STAGE]
    for phase in stages:
        waves = read_waves(directory.phase(STAGE, phase["name"]))
        assert len(waves) == phase["waves"] + (phase["repeats"] > 0)
        names = [trial.trial_id for wave in waves for trial in wave]
        assert len(set(names)) == len(names)
    origins = {
        trial.origin
        for phase in stages
        for wave in read_waves(directory.phase(STAGE, phase["name"]))
        for trial in wave
    }
    assert "survivor" in origins
    assert ("repeat" in origins) == any(phase["repeats"] for phase in stages)


def test_a_sweep_stops_at_its_budget_and_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    """Trials take longer than the job declares: what comes next is not begun, and no result is lost."""
    sweep = SWEEP.replace("budget: 8 trainings", "budget: 0.0015 core-hours").replace(
        "stages: auto",
        "stages: {coarse: {trials: 4, data: 0.1, epochs: 2}}\nfinal: {top: 1, seeds: 1, epochs: 3}",
    )
    sweep = sweep.replace("  config:", "  cost: {startup_seconds: 0.01}\n  config:")
    pause = "        import time; time.sleep(4 * config.fraction)\n"
    slow = TRAIN.replace("        near =", f"{pause}        near =")
    write_user_sweep(tmp_path, train=slow, sweep=sweep)
    stopped = orchestrate("run", "sweep.yaml", cwd=tmp_path, status=1)
    assert "budget" in stopped.stdout + stopped.stderr
    content = status(tmp_path / "sweeps/mine")
    assert content["state"] == "stuck"
    assert [phase["completed"] for phase in content["phases"]] == [4, 0]
    assert "orchestrate budget" in content["message"]
    orchestrate("budget", "sweeps/mine", "1 core-hours", cwd=tmp_path)
    orchestrate("run", "sweeps/mine", cwd=tmp_path)
    assert [phase["completed"] for phase in status(tmp_path / "sweeps/mine")["phases"]] == [4, 1]


def test_a_budget_that_the_plan_exceeds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    sweep = SWEEP.replace("stages: auto", "stages: {fine: {trials: 9}}\nfinal: {top: 1, seeds: 1}")
    write_user_sweep(tmp_path, train=TRAIN, sweep=sweep)
    refused = orchestrate("plan", "sweep.yaml", cwd=tmp_path, status=2).stderr
    assert "budget" in refused
    assert "8 trainings" in refused
    assert not (tmp_path / "sweeps").exists()


def test_settings_to_start_from_are_tried_first_although_their_file_is_gone(tmp_path: Path) -> None:
    sweep = SWEEP.replace(
        "budget: 8 trainings\nstages: auto", "stages: {coarse: {trials: 6, data: 0.1, epochs: 1}}"
    )
    sweep += "final: {top: 0}\nstart_from: [{lr: 0.5}, paper.yaml]\n"
    file = write_user_sweep(tmp_path, train=TRAIN, sweep=sweep)
    (tmp_path / "paper.yaml").write_text("- {lr: 0.01, dropout: 0.2}\n")
    orchestrate("plan", file, cwd=tmp_path)
    (tmp_path / "paper.yaml").unlink()
    orchestrate("run", "sweeps/mine", cwd=tmp_path)
    first = read_waves(SweepDirectory(tmp_path / "sweeps/mine").phase(STAGE, "coarse"))[0]
    assert [trial.origin for trial in first] == ["start_from"] * 2 + ["sampled"] * 4
    # What a setting leaves out is as in the job's own config.
    assert first[0].params == {"lr": 0.5, "dropout": 0.0}
    assert first[1].params == {"lr": 0.01, "dropout": 0.2}
