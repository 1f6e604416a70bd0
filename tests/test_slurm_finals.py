"""Final runs that a real SLURM stops again and again have the bits of those that nothing stopped."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_slurm import squeue

import commands
from commands import assert_finished, orchestrate, record_files, wait_for
from trained import same_weights

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

# Dropout and the order of samples need the generators, cycles the schedule, batch norm its running means; the
# disk's share has no room for all of the nine checkpoints.
SWEEP = """
defaults: [sweep, {jobs: classify}, {datasets: digits}, _self_]
name: long
metric: {name: val/accuracy}
space: {optimizer.lr: "choice(0.01, 0.02)"}
stages: {only: {trials: 2, sampler: grid, data: 0.1, epochs: 1}}
final: {top: 2, seeds: 1, epochs: 24, checkpoints: [cycles, last, best], disk_gb: 4.4e-4}
checks: {enabled: false}
jobs:
  predict: null
  config:
    model: {dropout: 0.3, batch_norm: true, width: 32}
    schedule: {name: cyclical, cycle_epochs: 2}
    stopping: {patience: 3, then: report}
    batch_size: 32
    save_seconds: 0
slurm: {cpus_per_task: 1, tasks_at_once: 2, task_minutes: 0.01, attempts: 20}
"""
# Which run is stopped at which step, and how: as a preemption does, or with the warning before one.
REQUEUE, WARN = ["scontrol", "requeue"], ["scancel", "--signal=USR2"]
STOPS = (("final-00000", 3, REQUEUE), ("final-00001", 5, WARN), ("final-00000", 9, WARN))


def reported(sweep: Path) -> dict[str, int]:
    """Return the last step that each final run has reported."""
    steps: dict[str, int] = {}
    for file in record_files(sweep / "final"):
        for line in file.lines:
            if line["kind"] == "report":
                steps[line["trial"]] = max(line["step"], steps.get(line["trial"], 0))
    return steps


def left(sweep: Path) -> dict[str, list[str]]:
    """Return the members of each final run that are on disk and that its records say were kept."""
    said: dict[str, set[str]] = {}
    for file in record_files(sweep / "final"):
        for line in file.lines:
            if line["kind"] == "checkpoint":
                said.setdefault(line["trial"], set()).add(line["path"])
            if line["kind"] == "dropped":
                said[line["trial"]].discard(line["path"])
    folders = {trial: sweep / "final" / "checkpoints" / trial for trial in said}
    for trial, paths in said.items():
        there = {path.name for path in folders[trial].glob("epoch-*.pt")}
        assert there == {path for path in paths if path.startswith("epoch")}
        assert not list(folders[trial].glob("all-data.pt"))
    return {trial: sorted(paths) for trial, paths in sorted(said.items())}


def results(sweep: Path, name: str) -> list[dict[str, Any]]:
    """Return what the results say of the final runs, without where and when they ran."""
    rows = pd.read_parquet(sweep / "results" / name)
    rows = rows[rows["trial_id"].str.startswith("final")]
    names = ["trial_id", "step", "metric", "value"]
    if name == "trials":
        metrics = [str(column) for column in rows.columns if str(column).startswith("metric.")]
        names = ["trial_id", "objective", "diagnosis_evidence", *metrics]
    found = rows[names].sort_values(names[:3]).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in found]


def ends(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what a leg says of itself alone: what only a whole training is judged by, and waiting."""
    for row in rows:
        seen = str(row["diagnosis_evidence"]).splitlines()
        row["diagnosis_evidence"] = [line for line in seen if "plateau at" in line]
    return rows


def disturb(run: subprocess.Popen[str], sweep: Path, trial: str, point: int, command: list[str]) -> None:
    """Stop one of a sweep's final runs when it has got so far."""
    arrived = f"step {point} of {trial}"
    wait_for(lambda: reported(sweep).get(trial, 0) >= point or run.poll() is not None, 240, arrived)
    assert run.poll() is None, f"before {arrived}: {run.communicate()}"
    task = int(trial[-5:])
    (job,) = [job for job, state in squeue(sweep) if state == "RUNNING" and job.endswith(f"_{task}")]
    subprocess.run([*command, job], check=True)


def test_runs_that_are_stopped_again_and_again_have_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    calm, stopped = tmp_path / "calm", tmp_path / "stopped"
    gpu = ["slurm=gpu", "slurm.tasks_at_once=2", "slurm.cpus_per_task=1", "slurm.attempts=20"]
    run = subprocess.Popen(
        commands.command("run", "sweep.yaml", *gpu, "slurm.task_minutes=0.01", f"dir={stopped}"),
        cwd=tmp_path, env=commands.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for trial, point, command in STOPS:
            disturb(run, stopped, trial, point, command)
        one = ["slurm.trials_at_once=1", "slurm.tasks_at_once=1", "slurm.task_minutes=10"]
        orchestrate("run", "sweep.yaml", f"dir={calm}", *one, cwd=tmp_path)
        shown, errors = run.communicate(timeout=200)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 0, shown + errors
    assert_finished(stopped, trials=4)
    lines = [line for file in record_files(stopped / "final") for line in file.lines]
    starts = Counter(line["trial"] for line in lines if line["kind"] == "start")
    assert starts == {"final-00000": 3, "final-00001": 2}
    assert left(stopped) == left(calm)
    for trial, names in left(calm).items():
        assert len(names) > 3, "some were kept"
        for name in names:
            place = Path("final") / "checkpoints" / trial / name
            assert same_weights(calm / place, stopped / place), place
    assert results(stopped, "curves") == results(calm, "curves")
    assert ends(results(stopped, "trials")) == ends(results(calm, "trials"))
