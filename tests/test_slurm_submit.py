"""Sweeps that SLURM itself drives: nobody there, drivers killed, all three ways at once, odd paths."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

import commands
from commands import (
    PLANNED_TRIALS,
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


def queue(directory: Path) -> list[tuple[str, str, str]]:
    """Return job id, name and state of what a sweep has in the queue."""
    uid = json.loads((directory / "plan.json").read_text())["uid"]
    rows = [
        row.strip().split("|") for row in output("squeue", "--noheader", "--format=%i|%j|%T").splitlines()
    ]
    return [(job, name, state) for job, name, state in rows if uid in name]


def drivers(directory: Path) -> list[tuple[str, str]]:
    return [(job, state) for job, name, state in queue(directory) if "-driver-" in name]


def no_driver_left(directory: Path) -> bool:
    """End the drivers; one that has just begun may have left its successor behind."""
    found = [job for job, _ in drivers(directory)]
    if found:
        subprocess.run(["scancel", *found], check=True)
    return not found


def assert_once(sweep: Path, trials: int = SHORT_TRIALS) -> None:
    assert_finished(sweep, trials)
    assert set(outcome_counts(sweep).values()) == {1}


def test_a_sweep_is_driven_to_its_end_with_no_process_alive(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=WHOLE)
    sweep = tmp_path / "sweeps" / "mine"
    shown = orchestrate("submit", "sweep.yaml", *GPU, cwd=tmp_path).stdout
    assert "coarse: submitting 12 trials" in shown
    assert "handed over: SLURM: job" in shown and "waits for array" in shown
    wait_for(lambda: not queue(sweep), seconds=240, what="the end of its jobs")
    assert_once(sweep, PLANNED_TRIALS)
    lines = (sweep / "logs" / "driver.log").read_text().splitlines()
    assert lines and lines[-1].split(" ")[1] == "done:"
    # What follows is a step too many, of which nothing is seen.
    assert orchestrate("advance", sweep, "--quiet", cwd=tmp_path).stdout == ""
    assert "done" in orchestrate("submit", sweep, cwd=tmp_path).stdout
    assert not queue(sweep)


def test_one_driver_waits_and_status_says_for_what(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW.replace("pause: 1.0", "pause: 60.0"))
    sweep = tmp_path / "sweeps" / "mine"
    answer = json.loads(orchestrate("submit", "sweep.yaml", *GPU, "--json", cwd=tmp_path).stdout)
    array = next(job.split("_")[0] for job, name, _ in queue(sweep) if "-coarse-" in name)
    assert answer["state"] == "running"
    orchestrate("submit", sweep, cwd=tmp_path)
    waiting = drivers(sweep)
    assert len(waiting) == 1, "handed over twice, it is still one chain"
    expected = f"SLURM: job {waiting[0][0]} waits for array {array}"
    assert answer["driven_by"] == expected == status(sweep)["driven_by"]
    assert f"driven by {expected}" in orchestrate("status", sweep, cwd=tmp_path).stdout
    orchestrate("cancel", sweep, cwd=tmp_path, status=None)
    wait_for(lambda: not queue(sweep), what="the end of its jobs")
    assert status(sweep)["driven_by"] is None


def test_a_killed_driver_is_made_good_by_any_step(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    orchestrate("submit", "sweep.yaml", *GPU, cwd=tmp_path)
    wait_for(lambda: no_driver_left(sweep), what="the end of the chain")
    shown = orchestrate("status", sweep, cwd=tmp_path).stdout
    assert "the job that drove it is gone" in shown and "orchestrate submit" in shown
    orchestrate("advance", sweep, cwd=tmp_path)
    assert len(drivers(sweep)) == 1
    wait_for(lambda: not queue(sweep), seconds=240, what="the end of its jobs")
    assert_once(sweep)


def test_a_driver_killed_in_the_middle_of_its_step_has_a_successor(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=QUICK)
    sweep = tmp_path / "sweeps" / "mine"
    orchestrate("submit", "sweep.yaml", *GPU, cwd=tmp_path)

    def at_work() -> list[str]:
        found = drivers(sweep)
        return [job for job, state in found if state == "RUNNING" and len(found) > 1]

    wait_for(lambda: bool(at_work()), what="a driver with its successor behind it")
    subprocess.run(["scancel", "--signal=KILL", "--full", at_work()[0]], check=True)
    assert drivers(sweep), "it died, and the next one waits"
    # It would start in five minutes; a person has no such patience.
    orchestrate("run", sweep, cwd=tmp_path)
    wait_for(lambda: not queue(sweep), what="the end of its jobs")
    assert_once(sweep)


def test_all_ways_at_once(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    run = subprocess.Popen(
        commands.command("run", "sweep.yaml", *GPU), cwd=tmp_path, env=commands.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: (sweep / "plan.json").exists() and bool(queue(sweep)), what="its first array")
    # The process that runs it holds the lease: SLURM gets its job all the same.
    assert "handed over" in orchestrate("submit", sweep, cwd=tmp_path).stdout
    assert drivers(sweep)
    while run.poll() is None:
        orchestrate("advance", sweep, cwd=tmp_path, status=None)
        time.sleep(0.5)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    wait_for(lambda: not queue(sweep), what="the end of its jobs")
    assert_once(sweep)


def test_run_is_killed_and_the_chain_goes_on(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    orchestrate("submit", "sweep.yaml", *GPU, cwd=tmp_path)
    run = subprocess.Popen(commands.command("run", sweep), cwd=tmp_path, env=commands.environment())
    wait_for(lambda: len(outcome_counts(sweep)) > 2, what="some outcomes")
    run.kill()
    run.wait()
    wait_for(lambda: not queue(sweep), seconds=240, what="the end of its jobs")
    assert_once(sweep)


def test_cancel_ends_drivers_too(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    orchestrate("submit", "sweep.yaml", *GPU, cwd=tmp_path)
    # As after an unclean death: the fact is gone, the job is not.
    (sweep / "driven-by-slurm.json").unlink()
    orchestrate("cancel", sweep, cwd=tmp_path, status=None)
    wait_for(lambda: not queue(sweep), what="the end of its jobs")
    assert status(sweep)["state"] == "cancelled"
    assert "was cancelled" in orchestrate("submit", sweep, cwd=tmp_path, status=2).stderr


def test_a_paused_sweep_ends_the_chain_and_retry_with_submit_goes_on(tmp_path: Path) -> None:
    broken = commands.TRAIN.replace("import math, os, time", "import math, os, time\nLIMIT = 0").replace(
        "def train(config, trial):", "def train(config, trial):\n    if not LIMIT: raise OSError('no data')"
    )
    write_user_sweep(tmp_path, train=broken, sweep=QUICK)
    sweep = tmp_path / "sweeps" / "mine"
    orchestrate("submit", "sweep.yaml", *GPU, cwd=tmp_path)
    wait_for(lambda: status(sweep)["state"] == "paused" and not queue(sweep), what="the pause")
    assert "no data" in (sweep / "logs" / "driver.log").read_text()
    assert orchestrate("submit", sweep, cwd=tmp_path, status=1).stderr.count("orchestrate retry") == 1
    assert not queue(sweep)
    (tmp_path / "my_train.py").write_text(commands.TRAIN)
    orchestrate("retry", sweep, cwd=tmp_path)
    orchestrate("submit", sweep, cwd=tmp_path)
    wait_for(lambda: not queue(sweep), seconds=240, what="the end of its jobs")
    assert_finished(sweep, SHORT_TRIALS)


def test_a_refused_request_leaves_no_chain(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=QUICK)
    sweep = tmp_path / "sweeps" / "mine"
    cpu = "+slurm.driver.partition=gpu"
    done = orchestrate("submit", "sweep.yaml", *GPU, "slurm.partition=nowhere", cpu, cwd=tmp_path, status=2)
    assert "invalid partition specified: nowhere" in done.stderr
    assert not queue(sweep) and not (sweep / "driven-by-slurm.json").exists()
    other = ["name=other", "+slurm.driver.partition=nowhere"]
    done = orchestrate("submit", "sweep.yaml", *GPU, *other, cwd=tmp_path, status=2)
    assert "slurm.driver" in done.stderr and "nowhere" in done.stderr
    assert not queue(tmp_path / "sweeps" / "other")


@pytest.mark.parametrize("name", ['it\'s "a" ünï%j dir', "back\\slash, new\nline $HOME `x`"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    write_user_sweep(folder, sweep=QUICK)
    sweep = folder / "sweeps" / "mine"
    orchestrate("submit", "sweep.yaml", *GPU, cwd=folder)
    wait_for(lambda: not queue(sweep), seconds=240, what="the end of its jobs")
    assert_once(sweep)
    assert len(list(sweep.glob("logs/mine-coarse-*/*_log.out"))) == 4, "SLURM found the folder of the logs"
    strays = {path.name for path in tmp_path.iterdir()} - {name}
    assert all(stray.startswith(".orchestrate-logs-") for stray in strays), strays


def test_the_script_that_is_shown_is_the_one_that_is_sent(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=QUICK)
    sweep = tmp_path / "sweeps" / "mine"
    more = ["slurm.setup=['export SEEN=1']", "+slurm.sbatch.nice=true", "slurm.partition=[gpu,urgent]"]
    orchestrate("plan", "sweep.yaml", *GPU, *more, cwd=tmp_path)
    shown = json.loads(
        orchestrate("plan", "sweep.yaml", *GPU, *more, "--show-script", "--json", cwd=tmp_path).stdout
    )
    orchestrate("submit", "sweep.yaml", *GPU, *more, cwd=tmp_path)
    (sent,) = sweep.glob("logs/mine-coarse-*/*_submission.sh")
    assert sent.read_text() == shown["coarse"]
    driver = drivers(sweep)[0][0]
    assert output("scontrol", "write", "batch_script", driver, "-") in (
        shown["driver"].split("# sent by")[0],
        shown["driver"].split("# sent by")[0] + "\n",
    )
    orchestrate("cancel", sweep, cwd=tmp_path, status=None)


def test_the_doctor_finds_this_cluster_well(tmp_path: Path) -> None:
    write_user_sweep(tmp_path / "50% ünï", sweep=QUICK)
    folder = tmp_path / "50% ünï"
    orchestrate("plan", "sweep.yaml", *GPU, cwd=folder)
    before = sorted(path for path in tmp_path.rglob("*"))
    findings = json.loads(orchestrate("doctor", "sweeps/mine", "--json", cwd=folder).stdout)
    assert {found["result"] for found in findings} == {"ok"}, findings
    names = {found["check"] for found in findings}
    assert names >= {"compute node", "GPUs", "clocks", "seen there", "python there", "request of driver"}
    assert sorted(path for path in tmp_path.rglob("*")) == before, "it cleans up after itself"


def test_the_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=QUICK)
    wrong = ["slurm.partition=shrot", "slurm.timeout_min=5"]
    done = orchestrate("doctor", "sweep.yaml", *GPU, *wrong, cwd=tmp_path, status=1)
    assert "Did you mean 'short'?" in done.stdout
    wrong = ["slurm.partition=short", "slurm.timeout_min=5"]
    done = orchestrate("doctor", "sweep.yaml", *GPU, *wrong, cwd=tmp_path, status=1)
    assert "allows 1 minutes" in done.stdout and "slurm.timeout_min=1" in done.stdout
    wrong = ["slurm.python=/nowhere/python"]
    done = orchestrate("doctor", "sweep.yaml", *GPU, *wrong, cwd=tmp_path, status=1)
    assert "/nowhere/python" in done.stdout
    wrong = ["slurm.setup=['sleep 30']"]
    done = orchestrate("doctor", "sweep.yaml", *GPU, *wrong, "--no-job", cwd=tmp_path)
    assert "no problems" in done.stdout
