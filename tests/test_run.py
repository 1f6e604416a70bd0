"""Whole sweeps through the command line on this machine: finishing, dying, going on, cancelling, retrying."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

import commands
from commands import (
    PLANNED_TRIALS,
    SHORT,
    SHORT_TRIALS,
    TRAIN,
    assert_finished,
    loaded_after,
    orchestrate,
    outcome_counts,
    status,
    wait_for,
    write_user_sweep,
)
from orchestrator.cluster.interface import FAILED
from orchestrator.control.draw import freeze
from orchestrator.control.opened import open_sweep
from orchestrator.sweep.directory import SweepDirectory, read_trials
from orchestrator.sweep.submissions import (
    Intent,
    Loss,
    Receipt,
    read_submissions,
    write_intent,
    write_loss,
    write_receipt,
)

SLOW = SHORT.replace("pause: 0.0", "pause: 0.3")


def start_run(folder: Path, *, new_session: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        commands.command("run", "sweep.yaml"), cwd=folder, text=True, env=commands.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=new_session,
    )  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A finished sweep of all phases, not to be changed, and what was shown while it ran."""

    folder: Path
    shown: str

    @property
    def sweep(self) -> Path:
        return self.folder / "sweeps" / "mine"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    write_user_sweep(folder)
    return Finished(folder, orchestrate("run", "sweep.yaml", cwd=folder).stdout)


def test_a_users_function_is_swept_without_importing_this_package(finished: Finished) -> None:
    sweep = finished.sweep
    assert_finished(sweep)
    assert "best setting" in finished.shown
    assert set(outcome_counts(sweep).values()) == {1}
    trials = pd.read_parquet(sweep / "results" / "trials")
    assert set(trials["stage"]) == {"coarse", "fine", "final"}
    # The declared optimum is at 1e-2: what goes on to full scale must lie around it.
    final = trials[trials["stage"] == "final"]
    assert final["param.lr"].between(1e-3, 1e-1).all()
    assert final["param.lr"].nunique() == 2 and len(final) == 4
    curves = pd.read_parquet(sweep / "results" / "curves")
    assert len(curves) == 2 * (12 * 1 + 6 * 2 + 4 * 3)
    assert (sweep / "report.html").read_text().startswith("<!DOCTYPE html>") or "<html" in (
        sweep / "report.html"
    ).read_text()
    # Running it again finds nothing to do.
    orchestrate("run", "sweep.yaml", cwd=finished.folder)
    orchestrate("run", "sweeps/mine", cwd=finished.folder)
    assert set(outcome_counts(sweep).values()) == {1}


def test_advance_alone_drives_a_sweep(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SHORT)
    orchestrate("plan", "sweep.yaml", cwd=tmp_path)
    assert not (tmp_path / "sweeps/mine/stages").exists(), "planning submits nothing"

    def at_rest() -> bool:
        shown = orchestrate("advance", "sweeps/mine", "--json", cwd=tmp_path)
        return bool(json.loads(shown.stdout)["state"] == "done")

    wait_for(at_rest, what="the sweep's end")
    assert_finished(tmp_path / "sweeps" / "mine", SHORT_TRIALS)


def test_ctrl_c_leaves_the_jobs_running_and_says_how_to_go_on(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    # A terminal sends Ctrl-C to everything in its foreground group.
    run = start_run(tmp_path, new_session=True)
    sweep = tmp_path / "sweeps" / "mine"
    wait_for(lambda: bool(outcome_counts(sweep)), what="a first outcome")
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "orchestrate run sweeps/mine" in errors
    # Nobody drives it, and still the stage's trials come in.
    wait_for(lambda: status(sweep)["phases"][0]["completed"] == 12, what="the end of the stage")
    orchestrate("run", "sweeps/mine", cwd=tmp_path)
    assert_finished(sweep, SHORT_TRIALS)
    assert set(outcome_counts(sweep).values()) == {1}


@pytest.mark.parametrize("seconds", [0.6, 1.5, 2.5, 4.0])
def test_kill_9_at_any_moment_and_run_again(tmp_path: Path, seconds: float) -> None:
    write_user_sweep(tmp_path, sweep=SLOW.replace("pause: 0.3", "pause: 0.1"))
    run = start_run(tmp_path)
    time.sleep(seconds)
    run.kill()
    run.communicate()
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    assert_finished(sweep, SHORT_TRIALS)
    assert set(outcome_counts(sweep).values()) == {1}, "a trial ran again although its task lived on"


def test_a_killed_task_is_taken_up_where_it_was(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    run = start_run(tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    wait_for(lambda: len(outcome_counts(sweep)) >= 4, what="some outcomes")
    header = commands.record_files(sweep)[0].header
    os.kill(header["pid"], signal.SIGKILL)
    output, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    assert "was lost" in output
    assert_finished(sweep, SHORT_TRIALS)
    submissions = read_submissions(sweep / "stages" / "coarse" / "submissions")
    assert len(submissions) == 2 and submissions[0].losses
    # Finished trials were not repeated.
    assert set(outcome_counts(sweep).values()) == {1}


def test_two_drivers_at_once_submit_nothing_twice(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SHORT)
    orchestrate("plan", "sweep.yaml", cwd=tmp_path)
    runs = [start_run(tmp_path) for _ in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=240)
        assert run.returncode == 0, errors
    sweep = tmp_path / "sweeps" / "mine"
    assert_finished(sweep, SHORT_TRIALS)
    assert set(outcome_counts(sweep).values()) == {1}
    assert len(list(sweep.glob("**/submissions/*.intent.json"))) == 2


def test_cancel_stops_everything_and_retry_goes_on(tmp_path: Path) -> None:
    half_hang = TRAIN.replace("config.pause", "60 if config.lr < 0.01 else 0")
    write_user_sweep(tmp_path, train=half_hang, sweep=SHORT)
    run = start_run(tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    wait_for(lambda: bool(outcome_counts(sweep)), what="a first outcome")
    orchestrate("cancel", "sweeps/mine", cwd=tmp_path)
    run.communicate(timeout=60)
    pids = [file.header["pid"] for file in commands.record_files(sweep)]
    wait_for(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in pids), what="the task's end")
    before = outcome_counts(sweep)
    assert status(sweep)["state"] == "cancelled"
    refused = orchestrate("run", "sweeps/mine", cwd=tmp_path, status=2)
    assert "orchestrate retry sweeps/mine" in refused.stderr
    (tmp_path / "my_train.py").write_text(TRAIN)
    orchestrate("retry", "sweeps/mine", cwd=tmp_path)
    orchestrate("run", "sweeps/mine", cwd=tmp_path)
    assert_finished(sweep, SHORT_TRIALS)
    assert all(outcome_counts(sweep)[trial] == 1 for trial in before), "a finished trial ran again"


def test_the_same_error_everywhere_pauses_and_a_fix_goes_on(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, train=TRAIN.replace('return {"score"', 'return {"scroe"'), sweep=SHORT)
    paused = orchestrate("run", "sweep.yaml", cwd=tmp_path, status=1)
    assert paused.stderr.count("metric 'score' was not returned; there is 'scroe'") == 1
    assert "orchestrate retry sweeps/mine" in paused.stderr
    sweep = tmp_path / "sweeps" / "mine"
    assert status(sweep)["state"] == "paused"
    # Going on without a fix stays where it is.
    orchestrate("run", "sweeps/mine", cwd=tmp_path, status=1)
    (tmp_path / "my_train.py").write_text(TRAIN)
    shown = orchestrate("retry", "sweeps/mine", cwd=tmp_path)
    assert re.match(r"[1-9]\d* trials will run again", shown.stdout)
    orchestrate("run", "sweeps/mine", cwd=tmp_path)
    assert_finished(sweep, SHORT_TRIALS)


def test_what_ended_while_a_sweep_stood_still_does_not_pause_it_again_after_a_retry(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SHORT)
    orchestrate("plan", "sweep.yaml", cwd=tmp_path)
    sweep = open_sweep(SweepDirectory(tmp_path / "sweeps" / "mine"))
    phase = sweep.plan.phases[0]
    freeze(sweep.directory, sweep.plan, sweep.config, phase, 0)
    folder = sweep.directory.phase(phase.kind, phase.name)
    tasks = [(trial.trial_id,) for trial in read_trials(folder.trials)]
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = f"{ended.pid}@0.00@{socket.gethostname()}"
    # Two of the tasks were seen to have failed and were sent again; then three more were seen. By the time
    # that the sweep stood still, all of the others and those that it had sent again had ended as well.
    for number, sent, seen in ((1, tasks, {0, 1, 2, 3, 4}), (2, tasks[:2], set[int]())):
        token = f"mine-coarse-{number}"
        intent = Intent(number=number, token=token, tasks=tuple(sent), created=0.0, host=socket.gethostname())
        write_intent(folder.submissions, intent)
        write_receipt(folder.submissions, number, Receipt(jobs=(dead,) * len(sent)))
        for index in seen:
            loss = Loss(reason="FAILED: no such module", blamed=sent[index], cause=FAILED)
            write_loss(folder.submissions, number, index, loss)
    assert "5 tasks of 'coarse' ended before they began" in status(sweep.directory.path)["message"]
    orchestrate("retry", sweep.directory.path, cwd=tmp_path)
    orchestrate("run", sweep.directory.path, cwd=tmp_path)
    assert_finished(sweep.directory.path, SHORT_TRIALS)
    assert set(outcome_counts(sweep.directory.path).values()) == {1}


def test_editing_the_code_while_the_sweep_runs_changes_nothing(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SHORT)
    orchestrate("plan", "sweep.yaml", cwd=tmp_path)
    (tmp_path / "my_train.py").write_text("raise RuntimeError('half edited')\n")
    orchestrate("run", "sweeps/mine", cwd=tmp_path)
    assert_finished(tmp_path / "sweeps" / "mine", SHORT_TRIALS)


def test_a_job_whose_import_fails_is_shown_before_anything_is_submitted(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, train="import not_installed_anywhere\n" + TRAIN)
    refused = orchestrate("run", "sweep.yaml", cwd=tmp_path, status=2)
    assert "No module named 'not_installed_anywhere'" in refused.stderr
    assert "my_train.train" in refused.stderr
    assert not list(tmp_path.glob("sweeps/mine/**/*.intent.json"))


def test_torn_and_foreign_lines_in_records_are_passed_over(finished: Finished, tmp_path: Path) -> None:
    sweep = Path(shutil.copytree(finished.sweep, tmp_path / "sweeps" / "mine"))
    file = next((sweep / "stages" / "coarse" / "records").glob("*.jsonl"))
    with file.open("a") as handle:
        handle.write('{"kind": "something-new", "trial": 3}\n{"kind":"outcome","tri')
    shown = orchestrate("status", "sweeps/mine", cwd=tmp_path)
    assert "1 unreadable line" in shown.stdout
    orchestrate("report", "sweeps/mine", cwd=tmp_path)
    assert_finished(sweep)


def test_results_and_status_as_a_person_asks_for_them(finished: Finished, tmp_path: Path) -> None:
    sweep = finished.sweep
    shown = orchestrate("results", sweep, "--stage", "coarse", "--top", 3, cwd=tmp_path)
    assert shown.stdout.count("coarse-0") == 3 and "completed" in shown.stdout
    rows = json.loads(orchestrate("results", sweep, "--json", cwd=tmp_path).stdout)
    assert len(rows) == PLANNED_TRIALS and rows[0]["stage"] == "final"
    orchestrate("results", sweep, "--output", "out.csv", cwd=tmp_path)
    assert len(pd.read_csv(tmp_path / "out.csv")) == PLANNED_TRIALS
    wrong = orchestrate("results", sweep, "--stage", "corse", cwd=tmp_path, status=2)
    assert "Did you mean 'coarse'?" in wrong.stderr
    status_text = orchestrate("status", sweep, "--why", cwd=tmp_path).stdout
    assert "the best at" in status_text, "the reason for each range is shown"
    code = "from orchestrator.cli import main\nmain(['status', 'sweeps/mine'], standalone_mode=False)"
    assert loaded_after(code, finished.folder) == set(), "status answers at once, with or without results"


def test_a_task_that_outlives_submitits_controller_is_not_run_again(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    run = start_run(tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    wait_for(lambda: len(outcome_counts(sweep)) >= 2, what="some outcomes")
    (receipt,) = sweep.glob("stages/coarse/submissions/*.receipt.json")
    controller = json.loads(receipt.read_text())["jobs"][0].split("@")[0]
    os.kill(int(controller), signal.SIGKILL)
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    assert_finished(sweep, SHORT_TRIALS)
    assert set(outcome_counts(sweep).values()) == {1}
    assert len(list(sweep.glob("stages/coarse/submissions/*.intent.json"))) == 1


def test_the_results_follow_a_retry_of_the_last_phase(tmp_path: Path) -> None:
    only = SHORT.replace("top: 2", "top: 0")
    write_user_sweep(tmp_path, train=TRAIN.replace('return {"score"', 'return {"scroe"'), sweep=only)
    orchestrate("run", "sweep.yaml", "stages.coarse.trials=4", cwd=tmp_path, status=1)
    sweep = tmp_path / "sweeps" / "mine"
    assert set(pd.read_parquet(sweep / "results" / "trials")["state"]) == {"failed"}
    (tmp_path / "my_train.py").write_text(TRAIN)
    orchestrate("retry", "sweeps/mine", cwd=tmp_path)
    orchestrate("run", "sweeps/mine", cwd=tmp_path)
    assert_finished(sweep, trials=4)
