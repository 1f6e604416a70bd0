"""Sweeps on a real SLURM: arrays, one GPU for each task, requeues, losses, refusals, cancelling."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

import commands
from commands import (
    SHORT,
    SHORT_TRIALS,
    SWEEP,
    assert_finished,
    orchestrate,
    outcome_counts,
    status,
    wait_for,
    write_user_sweep,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

GPU = ["slurm=gpu", "slurm.cpus_per_task=1", "slurm.tasks_at_once=4", "slurm.task_minutes=0.01"]
WHOLE = SWEEP.replace("slurm: {trials_at_once: 4}\n", "")
QUICK = SHORT.replace("slurm: {trials_at_once: 4}\n", "")
SLOW = QUICK.replace("pause: 0.0", "pause: 1.0")


def output(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def squeue(directory: Path) -> list[list[str]]:
    """Return job id and state of what a sweep has in the queue."""
    if not (directory / "plan.json").exists():
        return []
    uid = json.loads((directory / "plan.json").read_text())["uid"]
    rows = output("squeue", "--noheader", "--array", "--format=%j|%i|%T").splitlines()
    return [row.strip().split("|")[1:] for row in rows if uid in row]


def start_run(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        commands.command("run", "sweep.yaml", *GPU), cwd=folder, text=True, env=commands.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def running_job(directory: Path) -> str:
    jobs = [job for job, state in squeue(directory) if state == "RUNNING"]
    return jobs[0] if jobs else ""


def test_a_users_function_on_one_gpu_for_each_task(tmp_path: Path) -> None:
    write_user_sweep(tmp_path / "with spaces, ünïcode", sweep=WHOLE)
    folder = tmp_path / "with spaces, ünïcode"
    orchestrate("run", "sweep.yaml", *GPU, cwd=folder)
    sweep = folder / "sweeps" / "mine"
    assert_finished(sweep)
    assert set(outcome_counts(sweep).values()) == {1}
    headers = [file.header for file in commands.record_files(sweep)]
    coarse = [header for header in headers if header["token"].split("-")[1] == "coarse"]
    assert len(coarse) == 4, "twelve trials in four tasks"
    assert all(header["devices"].isdigit() for header in headers), "each task sees one GPU"
    trials = pd.read_parquet(sweep / "results" / "trials")
    assert trials["slurm_job_id"].str.match(r"\d+(_\d+)?$").all()
    assert (trials["gpu_seconds"] > 0).all()
    # One sbatch for each phase, whatever the number of tasks.
    assert len({header["slurm_job_id"].split("_")[0] for header in headers}) == 3


def test_kill_9_of_the_driver_loses_and_repeats_nothing(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    run = start_run(tmp_path)
    wait_for(lambda: bool(outcome_counts(sweep)), what="a first outcome")
    run.kill()
    run.communicate()
    wait_for(lambda: status(sweep)["phases"][0]["completed"] == 12, what="the stage's end without a driver")
    orchestrate("run", "sweep.yaml", *GPU, cwd=tmp_path)
    assert_finished(sweep, SHORT_TRIALS)
    assert set(outcome_counts(sweep).values()) == {1}


def test_kill_9_between_sbatch_and_its_receipt(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    run = start_run(tmp_path)
    # The moment an intent is there, sbatch is being called or has just been.
    wait_for(lambda: bool(list(sweep.glob("**/*.intent.json"))), what="an intent")
    time.sleep(0.05)
    run.kill()
    run.communicate()
    for receipt in sweep.glob("**/*.receipt.json"):
        receipt.unlink()
    orchestrate("run", "sweeps/mine", cwd=tmp_path)
    assert_finished(sweep, SHORT_TRIALS)
    assert all(count == 1 for count in outcome_counts(sweep).values())


def test_a_requeued_task_goes_on_and_repeats_no_finished_trial(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    run = start_run(tmp_path)
    wait_for(lambda: len(outcome_counts(sweep)) >= 4 and bool(running_job(sweep)), what="a running task")
    job = running_job(sweep)
    subprocess.run(["scontrol", "requeue", job], check=True)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert_finished(sweep, SHORT_TRIALS)
    assert set(outcome_counts(sweep).values()) == {1}
    attempts = [file.header["attempt"] for file in commands.record_files(sweep)]
    assert max(attempts) == 1, "the requeued task wrote a file of its own"


def test_a_task_cancelled_by_hand_is_lost_and_run_again(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    run = start_run(tmp_path)
    wait_for(lambda: bool(running_job(sweep)) and bool(outcome_counts(sweep)), what="a running task")
    subprocess.run(["scancel", running_job(sweep)], check=True)
    shown, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert "was lost (CANCELLED" in shown
    assert_finished(sweep, SHORT_TRIALS)


def test_a_refused_request_is_one_message_and_loses_nothing(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=QUICK)
    refused = orchestrate("run", "sweep.yaml", *GPU, "slurm.partition=nowhere", cwd=tmp_path, status=2)
    assert "invalid partition specified: nowhere" in refused.stderr
    assert "slurm" in refused.stderr and "Traceback" not in refused.stderr
    sweep = tmp_path / "sweeps" / "mine"
    file = sweep / "sweep.yaml"
    file.write_text(file.read_text().replace("partition: nowhere", "partition: gpu"))
    orchestrate("run", "sweeps/mine", cwd=tmp_path)
    assert_finished(sweep, SHORT_TRIALS)


def test_cancel_ends_its_own_jobs_and_nothing_else(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    other = output(
        "sbatch", "--parsable", "--job-name=somebody-elses", "--output=/dev/null", "--wrap=sleep 120"
    ).strip()
    try:
        run = start_run(tmp_path)
        wait_for(lambda: bool(running_job(sweep)), what="a running task")
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        orchestrate("cancel", "sweeps/mine", cwd=tmp_path, status=None)
        wait_for(lambda: not squeue(sweep), what="the end of its jobs")
        assert status(sweep)["state"] == "cancelled"
        state = output("squeue", "--noheader", "--job", other, "--format=%T").strip()
        assert state in ("RUNNING", "PENDING")
    finally:
        subprocess.run(["scancel", other], check=True)
