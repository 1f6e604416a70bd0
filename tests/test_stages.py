"""How a stage goes, through the command line: waves, repeats, pruning, closing early, useless results."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import commands
from commands import assert_finished, orchestrate, outcome_counts, record_files, status, write_user_sweep
from orchestrator.sweep.directory import STAGE, SweepDirectory, read_waves
from orchestrator.sweep.records import COMPLETED, PRUNED

# The better the learning rate, the better the score at every epoch; each epoch that really ran is a line.
EPOCHS = """
import math, time

def train(config, trial):
    score = 0.0
    for epoch in range(1, config.epochs + 1):
        time.sleep(config.pause)
        with open(trial.checkpoint_dir / "epochs.log", "a") as log:
            log.write(f"{epoch}\\n")
        score = (1 - 0.1 * abs(math.log10(config.lr) + 2)) * (1 - 0.5 / epoch)
        trial.report(epoch, {"score": score})
    return {"score": score}
"""
SWEEP = """
name: mine
metric: {name: score, mode: max}
space: {lr: "tag(log, interval(1e-5, 1.0))"}
stages:
  coarse: {trials: 12, epochs: 9}
final: {top: 0}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, fraction: 1.0, epochs: 1, pause: 0.0}
  scale: {data: fraction, epochs: epochs}
slurm: {trials_at_once: 2}
"""


def epochs_run(sweep: Path) -> dict[str, int]:
    """Return how many epochs each trial of the first stage really trained."""
    logs = sweep.glob("stages/coarse/checkpoints/*/epochs.log")
    return {log.parent.name: len(log.read_text().split()) for log in logs}


def sweep_with(folder: Path, sweep: str = SWEEP, train: str = EPOCHS, *overrides: str) -> Path:
    write_user_sweep(folder, train=train, sweep=sweep)
    orchestrate("run", "sweep.yaml", *overrides, cwd=folder)
    return folder / "sweeps" / "mine"


def assert_pruned_well(sweep: Path) -> None:
    trials = pd.read_parquet(sweep / "results" / "trials").set_index("trial_id")
    epochs = epochs_run(sweep)
    assert set(trials["state"]) == {COMPLETED, PRUNED}
    for trial, row in trials.iterrows():
        ran = epochs[str(trial)]
        assert ran == 9 if row["state"] == COMPLETED else ran in (1, 3), "stopped at a rung"
    # The best setting is the one whose learning rate is nearest to the optimum.
    best = str(trials["param.lr"].map(lambda lr: abs(math.log10(lr) + 2)).idxmin())
    assert trials["state"][best] == COMPLETED
    assert trials["objective"].idxmax() == best
    # What a stopped trial reported last is its objective.
    curves = pd.read_parquet(sweep / "results" / "curves")
    last = curves[curves["metric"] == "score"].sort_values("step").groupby("trial_id")["value"].last()
    stopped = trials.index[trials["state"] == PRUNED]
    assert (trials.loc[stopped, "objective"] == last.loc[stopped]).all()


def test_pruning_spends_fewer_epochs_and_keeps_the_best(tmp_path: Path) -> None:
    whole = sweep_with(tmp_path / "whole")
    pruned = sweep_with(tmp_path / "pruned", SWEEP.replace("epochs: 9}", "epochs: 9, prune: 3}"))
    assert sum(epochs_run(whole).values()) == 12 * 9
    assert sum(epochs_run(pruned).values()) <= 12 * 9 * 0.6
    assert_pruned_well(pruned)
    assert status(pruned)["phases"][0]["pruned"] >= 4
    assert "pruned" in orchestrate("status", pruned, cwd=tmp_path).stdout


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
def test_tasks_side_by_side_prune_by_each_others_records(tmp_path: Path) -> None:
    sweep = SWEEP.replace("slurm: {trials_at_once: 2}\n", "").replace("epochs: 9}", "epochs: 9, prune: 3}")
    sweep = sweep.replace("pause: 0.0", "pause: 0.05")
    gpu = ["slurm=gpu", "slurm.cpus_per_task=1", "slurm.tasks_at_once=6", "slurm.task_minutes=0.01"]
    directory = sweep_with(tmp_path, sweep, EPOCHS, *gpu)
    # Two trials of a task by themselves are too few to judge by.
    assert len({file.header["task"] for file in record_files(directory)}) == 6
    assert sum(epochs_run(directory).values()) <= 12 * 9 * 0.8
    assert_pruned_well(directory)


def test_where_less_is_better_the_least_goes_on(tmp_path: Path) -> None:
    train = EPOCHS.replace('trial.report(epoch, {"score": score})', 'trial.report(epoch, {"score": -score})')
    train = train.replace('return {"score": score}', 'return {"score": -score}')
    sweep = SWEEP.replace("mode: max", "mode: min").replace("epochs: 9}", "epochs: 9, prune: 3}")
    trials = pd.read_parquet(sweep_with(tmp_path, sweep, train) / "results" / "trials")
    assert trials.sort_values("objective")["state"].iloc[0] == COMPLETED
    assert (trials["state"] == PRUNED).sum() >= 4


def test_what_is_run_for_comparison_is_not_pruned(tmp_path: Path) -> None:
    sweep = SWEEP.replace(
        "  coarse: {trials: 12, epochs: 9}\n",
        "  first: {trials: 6, epochs: 1}\n"
        "  coarse: {trials: 12, epochs: 9, prune: 3, survivors: 1, controls: 3, repeats: 2}\n",
    )
    trials = pd.read_parquet(sweep_with(tmp_path, sweep) / "results" / "trials")
    trials = trials[trials["stage"] == "coarse"]
    compared = trials[trials["origin"].isin(["control", "repeat"])]
    assert len(compared) == 5 and set(compared["state"]) == {COMPLETED}
    assert (trials["state"] == PRUNED).any()


def test_a_stage_in_waves_with_repeats(tmp_path: Path) -> None:
    sweep = sweep_with(
        tmp_path, SWEEP.replace("trials: 12, epochs: 9}", "trials: 10, epochs: 1, waves: 3, repeats: 2}")
    )
    assert_finished(sweep, trials=12)
    folder = SweepDirectory(sweep).phase(STAGE, "coarse")
    waves = read_waves(folder)
    assert [len(wave) for wave in waves] == [4, 3, 3, 2]
    assert [path.name for path in sorted(folder.path.glob("trials*"))] == [
        "trials-001.parquet", "trials-002.parquet", "trials-003.parquet", "trials.parquet",
    ]  # fmt: skip
    specs = [spec for wave in waves for spec in wave]
    assert [spec.trial_id for spec in specs] == [f"coarse-{index:05d}" for index in range(12)]
    assert len({spec.setting_id for spec in specs[:10]}) == 10, "no wave repeats another"
    # The repeats are the best settings, from other seeds.
    before = {spec.trial_id: spec for spec in specs[:10]}
    trials = pd.read_parquet(sweep / "results" / "trials").set_index("trial_id")
    best = trials.loc[list(before), "objective"].idxmax()
    assert best in {spec.parent for spec in waves[3]}
    for spec in waves[3]:
        assert spec.origin == "repeat" and spec.setting_id == before[spec.parent].setting_id
        assert spec.seed != before[spec.parent].seed
    assert "12/12, wave 4 of 4" in orchestrate("status", sweep, cwd=tmp_path).stdout
    phase = status(sweep)["phases"][0]
    assert (phase["wave"], phase["waves"], phase["planned"]) == (4, 4, 12)
    # A wave is submitted when those before it are in.
    assert len(list(folder.submissions.glob("*.intent.json"))) == 4


def test_a_wave_is_drawn_anew_after_a_crash_before_its_trials(tmp_path: Path) -> None:
    sweep = SWEEP.replace("trials: 12, epochs: 9}", "trials: 6, epochs: 1, waves: 2}")
    whole = sweep_with(tmp_path / "whole", sweep)
    again = sweep_with(tmp_path / "again", sweep)
    # As a crash leaves it: ranges without trials, or the first wave's results without the second's trials.
    second = SweepDirectory(again).phase(STAGE, "coarse")
    second.wave(1).unlink()
    (again / "results" / "compacted.json").unlink()
    orchestrate("run", "sweeps/mine", cwd=tmp_path / "again")
    first = SweepDirectory(whole).phase(STAGE, "coarse")
    assert read_waves(second) == read_waves(first), "the same results give the same trials"
    assert_finished(again, trials=6)
    fresh = tmp_path / "fresh"
    write_user_sweep(fresh, train=EPOCHS, sweep=sweep)
    orchestrate("plan", "sweep.yaml", cwd=fresh)
    folder = SweepDirectory(fresh / "sweeps" / "mine").phase(STAGE, "coarse")
    folder.path.mkdir(parents=True)
    folder.space.write_text(first.space.read_text())
    orchestrate("run", "sweeps/mine", cwd=fresh)
    assert read_waves(folder) == read_waves(first)


# The one trial that waits does so until the file is there, or for good.
WAITS = """
import os, time

def train(config, trial):
    if trial.stage == "coarse" and trial.id.endswith("0"):
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.05)
    if trial.stage == "fine" and os.environ["THEN"] == "go":
        open(os.environ["GO"], "w").close()
        time.sleep(1.0)
    return {"score": 1 - abs(config.lr - 0.01)}
"""
CLOSING = """
name: mine
metric: {name: score, mode: max}
space: {lr: "tag(log, interval(1e-5, 1.0))"}
stages:
  coarse: {trials: 4, close: 0.75, data: 0.5}
  fine: {trials: 3}
final: {top: 1, seeds: 1}
jobs: {_target_: my_train.train, config: {lr: 0.1, fraction: 1.0}, scale: {data: fraction}}
slurm: {tasks_at_once: 4}
"""


@pytest.mark.parametrize("then", ["go", "never"])
def test_the_next_stage_begins_without_a_straggler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setitem(os.environ, "GO", str(tmp_path / "go"))
    monkeypatch.setitem(os.environ, "THEN", then)
    sweep = sweep_with(tmp_path, CLOSING, WAITS)
    content = status(sweep)
    assert content["state"] == "done"
    trials = pd.read_parquet(sweep / "results" / "trials").set_index("trial_id")
    assert len(trials) == 4 + 3 + 1
    straggler = trials.loc["coarse-00000"]
    # Nothing was submitted again.
    assert [
        len(list(sweep.glob(f"**/{stage}/submissions/*.intent.json"))) for stage in ("coarse", "fine")
    ] == [
        1,
        1,
    ]
    if then == "go":
        assert straggler["state"] == COMPLETED, "its result counts though its stage had closed"
        assert set(outcome_counts(sweep).values()) == {1}
    else:
        # Nobody waits for it at the end, and it does not run on.
        assert (straggler["state"], straggler["error"]) == ("failed", "its stage had closed")
        pids = [file.header["pid"] for file in record_files(sweep)]
        commands.wait_for(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in pids))


USELESS = """
import math

def train(config, trial):
    if trial.stage != "coarse":
        return {"score": config.lr}
    kind = config.kind
    number = int(trial.id[-2:])
    if kind == "all fail":
        raise [ValueError, KeyError, OSError, TypeError][number % 4](f"{number}")
    if kind == "mostly nan" and number == 3:
        return {"score": 0.5}
    return {"score": {"all diverge": math.nan, "equal": 0.5}.get(kind, math.inf if number % 2 else math.nan)}
"""
USELESS_SWEEP = """
name: mine
metric: {name: score, mode: max}
space: {lr: "tag(log, interval(1e-4, 1e-1))"}
stages:
  coarse: {trials: 8, data: 0.5}
  fine: {trials: 6, survivors: 2, controls: 1}
final: {top: 1, seeds: 1}
jobs: {_target_: my_train.train, config: {lr: 0.1, kind: KIND, fraction: 1.0}, scale: {data: fraction}}
slurm: {trials_at_once: 4}
"""


def after_useless(folder: Path, kind: str) -> tuple[Path, dict[str, Any], pd.DataFrame]:
    """Run a sweep whose first stage tells little or nothing.

    Returns:
        The sweep, and of its second stage the range and the trials.
    """
    sweep = sweep_with(folder, USELESS_SWEEP.replace("KIND", kind), USELESS)
    fine = pd.read_parquet(sweep / "results" / "trials")
    content = json.loads((sweep / "stages" / "fine" / "space.json").read_text())
    return sweep, content["parameters"]["lr"], fine[fine["stage"] == "fine"]


@pytest.mark.parametrize("kind", ["all fail", "all diverge"])
def test_a_stage_without_any_result_leaves_the_ranges_as_they_were_and_says_so(
    tmp_path: Path, kind: str
) -> None:
    sweep, lr, fine = after_useless(tmp_path, kind)
    assert (status(sweep)["state"], status(sweep)["message"]) == (
        "done",
        "no trial of 'coarse' gave a finite score",
    )
    assert (lr["low"], lr["high"]) == (1e-4, 1e-1)
    assert "no trial" in lr["reason"], lr["reason"]
    # There was nobody to promote: all of its trials are new.
    assert list(fine["origin"]) == ["sampled"] * 6
    assert set(fine["state"]) == {COMPLETED}


def test_equal_results_narrow_nothing(tmp_path: Path) -> None:
    _, lr, fine = after_useless(tmp_path, "equal")
    assert (lr["low"], lr["high"]) == (1e-4, 1e-1)
    assert lr["reason"].startswith("kept"), lr["reason"]
    assert list(fine["origin"]).count("survivor") == 2


def test_one_finite_result_among_others_is_kept_and_nothing_is_drawn_from_it(tmp_path: Path) -> None:
    sweep, lr, fine = after_useless(tmp_path, "mostly nan")
    trials = pd.read_parquet(sweep / "results" / "trials").set_index("trial_id")
    assert list(fine["parent"][fine["origin"] == "survivor"]) == ["coarse-00003"]
    assert lr["low"] <= trials.loc["coarse-00003", "param.lr"] <= lr["high"]
    assert (fine["origin"] == "sampled").sum() == 5


def test_a_last_stage_without_any_result_leaves_the_final_runs_to_the_one_before(tmp_path: Path) -> None:
    train = USELESS.replace('if trial.stage != "coarse":', 'if trial.stage != "fine":')
    write_user_sweep(tmp_path, train=train, sweep=USELESS_SWEEP.replace("KIND", "all diverge"))
    done = orchestrate("run", "sweep.yaml", cwd=tmp_path)
    said = "no trial of 'fine' gave a finite score: the final runs take the settings of 'coarse'"
    assert said in " ".join(done.stdout.split())
    trials = pd.read_parquet(tmp_path / "sweeps" / "mine" / "results" / "trials")
    best = trials[trials["stage"] == "coarse"].nlargest(1, "objective")["param.lr"].iloc[0]
    assert list(trials[trials["stage"] == "final"]["param.lr"]) == [best]


def test_a_last_stage_without_any_result_is_stuck_with_one_message(tmp_path: Path) -> None:
    sweep = USELESS_SWEEP.replace("  fine: {trials: 6, survivors: 2, controls: 1}\n", "")
    write_user_sweep(tmp_path, train=USELESS, sweep=sweep.replace("KIND", "all diverge"))
    stuck = orchestrate("run", "sweep.yaml", cwd=tmp_path, status=1)
    said = "no trial of 'coarse' gave a finite score, so there is no setting for the final runs"
    assert said in " ".join(stuck.stderr.split())
    assert "Traceback" not in stuck.stderr
