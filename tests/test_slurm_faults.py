"""Faults on a real SLURM: tasks take too much memory, wait in vain or can't begin, the disk is full."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_slurm import GPU, QUICK, SLOW, squeue

import commands
from commands import (
    SHORT_TRIALS,
    assert_finished,
    orchestrate,
    outcome_counts,
    status,
    wait_for,
    write_user_sweep,
)
from orchestrator.sweep.submissions import read_submissions

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

HUNGRY = """
import time

def train(config, trial):
    blocks = []
    while config.lr > 1e-3 and len(blocks) < 200 * config.hunger:
        blocks.append(bytearray(2 * 2**20))
        time.sleep(0.02)
    return {"score": config.lr}
"""
HUNGRY_SWEEP = """
name: mine
metric: {name: score, mode: max}
space: {lr: "choice(0.0001, 0.1)"}
stages: {coarse: {trials: 2, sampler: grid}}
final: {top: 0}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, hunger: 1}
slurm: {executor: slurm, cpus_per_task: 1, mem_gb: 0.3, timeout_min: 5, tasks_at_once: 2, task_minutes: 0.01,
        sbatch: {acctg-freq: "task=1"}}
"""


def test_a_task_over_its_memory_runs_again_with_the_larger_request_alone(tmp_path: Path) -> None:
    larger = HUNGRY_SWEEP.replace("mem_gb: 0.3", "mem_gb: 0.3, on_out_of_memory: {mem_gb: 4}")
    write_user_sweep(tmp_path, train=HUNGRY, sweep=larger)
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    assert_finished(sweep, trials=2)
    (first, second) = read_submissions(sweep / "stages" / "coarse" / "submissions")
    assert [loss.cause for loss in first.losses.values()] == ["memory"]
    assert second.intent.larger and len(second.intent.tasks) == 1


def test_without_a_larger_request_a_task_over_its_memory_is_given_up_at_once(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, train=HUNGRY, sweep=HUNGRY_SWEEP)
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    (only,) = read_submissions(sweep / "stages" / "coarse" / "submissions")
    assert [loss.cause for loss in only.losses.values()] == ["memory"]
    phase = status(sweep)["phases"][0]
    assert (phase["completed"], phase["failed"]) == (1, 1)
    shown = orchestrate("results", sweep, "--format", "csv", cwd=tmp_path).stdout
    assert "slurm.on_out_of_memory" in shown


def test_two_advances_at_the_same_instant_submit_once(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=QUICK)
    orchestrate("plan", "sweep.yaml", *GPU, cwd=tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    for _ in range(60):
        pair = [
            subprocess.Popen(
                commands.command("advance", "sweeps/mine"), cwd=tmp_path, env=commands.environment(),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        told = [process.communicate()[0] for process in pair]
        assert [process.returncode for process in pair] == [0, 0]
        if any(text.startswith("done") for text in told):
            break
        time.sleep(0.5)
    assert_finished(sweep, SHORT_TRIALS)
    assert set(outcome_counts(sweep).values()) == {1}


def test_a_setup_that_fails_in_every_task_pauses_the_sweep_with_its_own_words(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=QUICK)
    broken = "slurm.setup=['echo no such module: cuda/99; exit 7']"
    done = orchestrate("run", "sweep.yaml", *GPU, broken, cwd=tmp_path, status=1)
    assert "ended before they began a trial" in done.stderr
    assert "no such module: cuda/99" in done.stderr
    sweep = tmp_path / "sweeps" / "mine"
    assert status(sweep)["state"] == "paused"
    file = sweep / "sweep.yaml"
    file.write_text(file.read_text().replace("exit 7", "true"))
    orchestrate("retry", sweep, cwd=tmp_path)
    orchestrate("run", sweep, cwd=tmp_path)
    assert_finished(sweep, SHORT_TRIALS)


def test_a_held_task_is_told(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=QUICK)
    orchestrate("plan", "sweep.yaml", *GPU, "slurm.sbatch.begin=now+1hour", cwd=tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    orchestrate("advance", sweep, cwd=tmp_path)
    wait_for(lambda: status(sweep)["waiting"] == {"BeginTime": 4}, what="word of why they wait")
    assert not status(sweep)["message"]
    subprocess.run(["scontrol", "uhold", *{job.split("_")[0] for job, _ in squeue(sweep)}], check=True)
    wait_for(lambda: "JobHeldUser" in status(sweep)["message"], what="word of the held tasks")
    orchestrate("cancel", sweep, cwd=tmp_path, status=None)
    wait_for(lambda: not squeue(sweep), what="the end of its jobs")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True)
    assert mounted.returncode == 0, "needs to be root, as the single-node SLURM does"
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    write_user_sweep(small_disk, sweep=SLOW)
    orchestrate("plan", "sweep.yaml", *GPU, cwd=small_disk)
    sweep = small_disk / "sweeps" / "mine"
    orchestrate("advance", sweep, cwd=small_disk)
    wait_for(lambda: bool(outcome_counts(sweep)), what="a first outcome")
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as handle, contextlib.suppress(OSError):
        while True:
            handle.write(bytes(4096))
    told = orchestrate("run", sweep, cwd=small_disk, status=None)
    assert "Traceback" not in told.stderr
    wait_for(lambda: not squeue(sweep), what="the end of its jobs")
    filler.unlink(missing_ok=True)
    orchestrate("run", sweep, cwd=small_disk)
    assert_finished(sweep, SHORT_TRIALS)
