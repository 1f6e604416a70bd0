"""Final runs in waves, through the command line: what full scale gave decides about the next settings."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import commands
from commands import assert_finished, orchestrate, outcome_counts, status, wait_for, write_user_sweep
from orchestrator.sweep.directory import FINAL, SweepDirectory, TrialSpec, read_waves
from orchestrator.sweep.files import read_json, write_json

# Best at lr = 0.01 at the smallest scale, and at ever larger ones towards full scale.
TRAIN = """
import math, time

def train(config, trial):
    time.sleep(config.pause * (config.fraction > 0.9))
    score = -abs(math.log10(config.lr) + 1 - math.log10(config.fraction)) - 0.1 * config.dropout
    path = trial.checkpoint_dir / "model"
    path.write_text(str(score))
    trial.report(1, {"score": score})
    trial.keep(path, 1)
    return {"score": score}

def predict(config, checkpoint, split):
    import numpy as np
    from orchestrator.ensemble.members import Predictions
    ids = np.arange(40)
    margin = 0.1 + 0.05 * float(checkpoint.read_text()) ** 2
    first = np.where((ids % 2 == 0) == (ids % 7 > 0), 0.5 + margin, 0.5 - margin)
    probabilities = np.stack([first, 1 - first], axis=1).astype(np.float32)
    return Predictions(probabilities, ids % 2, ids)
"""
SWEEP = """
name: mine
metric: {name: score, mode: max}
space:
  lr: tag(log, interval(1e-5, 1.0))
  dropout: interval(0.0, 0.7)
budget: 20 trainings
stages: auto
jobs:
  _target_: my_train.train
  config: {lr: 0.1, dropout: 0.0, fraction: 1.0, pause: 0.0}
  scale: {data: fraction}
"""


def drawn(sweep: Path) -> list[list[TrialSpec]]:
    return read_waves(SweepDirectory(sweep).phase(FINAL, FINAL))


def planned(sweep: Path) -> int:
    return sum(phase["trials"] + phase["repeats"] for phase in read_json(sweep / "plan.json")["phases"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finals")
    sweep = SWEEP.replace("  config:", "  predict: my_train.predict\n  config:")
    orchestrate("run", write_user_sweep(folder, train=TRAIN, sweep=sweep), cwd=folder)
    return folder / "sweeps" / "mine"


def test_half_of_a_large_budget_goes_to_final_runs_in_four_waves(finished: Path) -> None:
    waves = drawn(finished)
    assert [len(wave) for wave in waves] == [3, 3, 2, 2]
    trials = [spec for wave in waves for spec in wave]
    assert [spec.trial_id for spec in trials] == [f"final-{index:05d}" for index in range(10)]
    assert len({spec.setting_id for spec in trials}) == 10
    assert {spec.origin for spec in waves[0]} == {"survivor"}
    # Full scale wants a higher rate than any smaller one.
    assert "sampled" in {spec.origin for wave in waves[1:] for spec in wave}
    assert all(bool(spec.parent) == (spec.origin == "survivor") for spec in trials)


def test_later_waves_find_better_settings_at_full_scale(finished: Path) -> None:
    trials = pd.read_parquet(finished / "results" / "trials").set_index("trial_id")
    scores = [[trials["objective"][spec.trial_id] for spec in wave] for wave in drawn(finished)]
    assert max(max(later) for later in scores[1:]) > max(scores[0])


def test_all_waves_are_shown_counted_and_combined(finished: Path) -> None:
    assert status(finished)["state"] == "done"
    final = next(phase for phase in status(finished)["phases"] if phase["name"] == FINAL)
    assert (final["planned"], final["completed"]) == (10, 10)
    assert "10/10, wave 4 of 4" in orchestrate("status", finished, cwd=finished.parent).stdout
    assert "spent 20 of a budget of 20 trainings" in orchestrate("budget", finished, cwd=finished).stdout
    result = read_json(SweepDirectory(finished).ensemble_result)
    assert result["candidates"] == 10
    report = (finished / "report.html").read_text()
    assert all(spec.setting_id in report for wave in drawn(finished) for spec in wave)


def test_a_sweep_that_dies_among_its_final_runs_goes_on_within_a_smaller_budget(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, train=TRAIN, sweep=SWEEP.replace("pause: 0.0", "pause: 0.5"))
    sweep = tmp_path / "sweeps" / "mine"
    run = subprocess.Popen(
        commands.command("run", "sweep.yaml"), cwd=tmp_path, env=commands.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: len(drawn(sweep)) >= 2, what="the second wave")
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = drawn(sweep)
    orchestrate("budget", sweep, "17.5 trainings", cwd=tmp_path)
    orchestrate("run", sweep, cwd=tmp_path)
    after = drawn(sweep)
    assert after[: len(before)] == before
    # The search took 10 of them, and what was drawn is paid for; a wave that is not is empty.
    assert len(after) == 4 and sum(map(len, after)) == max(7, sum(map(len, before)))
    trials = pd.read_parquet(sweep / "results" / "trials")
    assert_finished(sweep, planned(sweep) - 10 + sum(map(len, after)))
    assert set(outcome_counts(sweep)) == set(trials["trial_id"])


def test_counts_in_the_file_and_plans_of_before_are_one_wave(tmp_path: Path) -> None:
    stages = "stages: {coarse: {trials: 6, data: 0.1, sampler: model}}\nfinal: {top: 3, seeds: 3}\n"
    text = SWEEP.replace("budget: 20 trainings\nstages: auto\n", stages)
    write_user_sweep(tmp_path, train=TRAIN, sweep=text)
    sweep = tmp_path / "sweeps" / "mine"
    orchestrate("plan", "sweep.yaml", cwd=tmp_path)
    content = read_json(sweep / "plan.json")
    for phase in content["phases"]:
        del phase["waves"], phase["sizes"]
    write_json(sweep / "plan.json", content)
    orchestrate("run", sweep, cwd=tmp_path)
    (wave,) = drawn(sweep)
    assert [spec.seed for spec in wave] == [0] * 3 + [1] * 3 + [2] * 3
    assert len({spec.setting_id for spec in wave}) == 3
    assert_finished(sweep, 15)
    assert set(outcome_counts(sweep).values()) == {1}


def test_waves_of_a_file_with_its_own_stages(tmp_path: Path) -> None:
    stages = (
        "stages: {coarse: {trials: 12, data: 0.1, sampler: model}}\nfinal: {top: 5, seeds: 2, waves: 2}\n"
    )
    text = SWEEP.replace("budget: 20 trainings\nstages: auto\n", stages)
    write_user_sweep(tmp_path, train=TRAIN, sweep=text)
    shown = orchestrate("plan", "sweep.yaml", cwd=tmp_path).stdout
    assert "the best 5 settings from 2 seeds, chosen in 2 waves" in " ".join(shown.split())
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    assert [len(wave) for wave in drawn(tmp_path / "sweeps" / "mine")] == [6, 4]
    wrong = ("6", "5 settings can't be chosen in 6 waves"), ("6", "final.waves=5"), ("0", "the least is 1")
    for waves, words in wrong:
        refused = orchestrate(
            "plan", "sweep.yaml", "name=other", f"final.waves={waves}", cwd=tmp_path, status=2
        )
        assert words in " ".join(refused.stderr.split())
