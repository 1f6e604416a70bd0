"""Trials as processes: those that hang, run out of memory, crash or cling on, beside others that do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_task import MadeTask, made_task

from commands import wait_for
from orchestrator.sweep.records import COMPLETED, FAILED, HUNG, MEMORY
from orchestrator.worker import children
from orchestrator.worker.child import DUMP_SIGNAL
from orchestrator.worker.offspring import INTERRUPTED

TRAIN = """
import ctypes, os, signal, subprocess, sys, threading, time

def train(config, trial):
    with open(trial.checkpoint_dir / "log", "a") as log:
        log.write(f"{os.getpid()}\\n")
    return globals()[config.kind](trial) or {"score": 0.5}

def good(trial):
    pass

def lively(trial):
    for _ in range(8):
        time.sleep(0.2)
        trial.alive()

def naps(trial):
    time.sleep(1.5)

def sleeps(trial):
    trial.report(3, {"score": 0.1})
    time.sleep(600)

def spins(trial):
    while True:
        pass

def frozen(trial):
    os.kill(os.getpid(), signal.SIGSTOP)

def stubborn(trial):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (trial.checkpoint_dir / "child").write_text(str(child.pid))
    time.sleep(600)

def memory(trial):
    try:
        [0] * 10**18
    except MemoryError as error:
        raise RuntimeError("could not build the model") from error

def killed(trial):
    os.kill(os.getpid(), signal.SIGKILL)

def segfaults(trial):
    ctypes.string_at(0)

def lingers(trial):
    # The pipe to the task outlives the trial in a process that it leaves behind.
    left = os.fork()
    if left == 0:
        time.sleep(60)
        os._exit(0)
    (trial.checkpoint_dir / "child").write_text(str(left))
    os._exit(5)

def saves(trial):
    done = trial.checkpoint_dir / "done"
    def save(number, frame):
        done.write_text("saved")
        trial.keep(done, 7)
        sys.exit(1)
    signal.signal(signal.SIGTERM, save)
    trial.report(1, {"score": 0.1})
    while True:
        time.sleep(0.1)

def returns(trial):
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    trial.report(1, {"score": 0.1})
    ended.wait()
"""


@pytest.mark.parametrize(
    ("kind", "step"), [("sleeps", "reported was 3"), ("spins", "no step"), ("stubborn", "no step")]
)
def test_a_silent_trial_is_ended_and_says_where_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str, step: str
) -> None:
    shorten(monkeypatch)
    task = made_task(tmp_path, TRAIN, [kind, "lively", "good"], slurm={"quiet_minutes": 0.01})
    assert task.run() == {COMPLETED: 2, FAILED: 1}
    line = task.outcomes()[kind]
    assert line["cause"] == HUNG
    assert "0.01 minutes (slurm.quiet_minutes)" in line["error"] and step in line["error"]
    assert "my_train.py" in line["error"] and f"in {kind}" in line["error"]
    log = capfd.readouterr().err
    assert f"{kind}: the stacks of its threads:" in log and log.count("(most recent call first)") >= 2
    assert gone(task, kind)
    if kind == "stubborn":
        left = int((task.folder.checkpoints(kind) / "child").read_text())
        wait_for(lambda: not running(left), 10, "the end of what the trial had started")


def test_a_stopped_process_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    task = made_task(tmp_path, TRAIN, ["frozen", "good"], slurm={"quiet_minutes": 0.01})
    assert task.run() == {COMPLETED: 1, FAILED: 1}
    line = task.outcomes()["frozen"]
    assert line["cause"] == HUNG and "could not write down where it was" in line["error"]
    assert gone(task, "frozen")


def test_what_nothing_ends_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a process in an uninterruptible wait: no signal that is sent ends it.
    monkeypatch.setattr(children, "_ENDING", ((0, 0.1), (0, 0.1), (0, 0.1)))
    task = made_task(tmp_path, TRAIN, ["frozen", "good"], slurm={"quiet_minutes": 0.01})
    try:
        assert task.run() == {COMPLETED: 1, FAILED: 1}
        assert task.outcomes()["frozen"]["cause"] == HUNG
    finally:
        os.kill(int(task.log("frozen")), signal.SIGKILL)


def test_a_whole_job_that_was_suspended_does_not_hang(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task = made_task(tmp_path, TRAIN, ["naps"], slurm={"quiet_minutes": 0.04})
    process = start(task, look_seconds=0.3)
    wait_for(lambda: bool(task.log("naps")), what="the trial's start")
    child = only_child(only_child(process.pid))
    for pid in (process.pid, child):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(process.pid, signal.SIGCONT)
    time.sleep(0.5)
    os.kill(child, signal.SIGCONT)
    assert process.wait(60) == 0
    assert task.outcomes()["naps"]["state"] == COMPLETED
    assert "stacks" not in capfd.readouterr().err, "it was not even asked where it is"


def test_want_of_memory_is_told_from_other_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = made_task(tmp_path, TRAIN, ["memory", "killed", "segfaults", "good"])
    assert task.run() == {COMPLETED: 1, FAILED: 3}
    outcomes = task.outcomes()
    assert (
        outcomes["memory"]["cause"] == MEMORY and "could not build the model" in outcomes["memory"]["error"]
    )
    assert outcomes["killed"]["cause"] == MEMORY and "SIGKILL: out of memory" in outcomes["killed"]["error"]
    assert "cause" not in outcomes["segfaults"]
    assert "killed by SIGSEGV, in\n" in outcomes["segfaults"]["error"]
    assert "in segfaults" in outcomes["segfaults"]["error"]
    assert "segfaults: the stacks of its threads:\nFatal Python error" in capfd.readouterr().err


def test_a_process_left_behind_does_not_hold_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "LOOK_SECONDS", 0.3)
    task = made_task(tmp_path, TRAIN, ["lingers"])
    assert task.run() == {FAILED: 1}
    assert "exited with status 5" in task.outcomes()["lingers"]["error"]
    left = int((task.folder.checkpoints("lingers") / "child").read_text())
    assert running(left), "its task did not wait for it"
    os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_task_that_is_ended_lets_its_trials_save_and_counts_nothing(tmp_path: Path, number: int) -> None:
    task = made_task(tmp_path, TRAIN, ["saves", "returns"])
    process = start(task)

    def at_work() -> bool:
        return [line["kind"] for file in task.files() for line in file.lines].count("report") == 2

    wait_for(at_work, what="both trials' reports")
    pids = [int(task.log(kind)) for kind in ("saves", "returns")]
    # As SLURM does it: the warning, and the end before one could be done; to all of the job's processes.
    for pid in (process.pid, only_child(process.pid), *pids):
        os.kill(pid, number)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) != 0
    assert not task.outcomes(), "what is returned when asked to end is the result of stopping early"
    kinds = [line["kind"] for file in task.files() for line in file.lines]
    assert kinds.count(INTERRUPTED) == 2 and kinds.count("checkpoint") == 1
    assert (task.folder.checkpoints("saves") / "done").read_text() == "saved"
    assert all(gone(task, kind) for kind in ("saves", "returns"))


def test_trials_end_with_a_task_that_is_killed(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["sleeps", "spins"])
    process = start(task)
    wait_for(lambda: bool(task.log("sleeps") and task.log("spins")), what="both trials")
    server = only_child(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: gone(task, "sleeps") and gone(task, "spins") and not running(server), 20, "their end")


def test_a_lost_fork_server_is_replaced(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["lively", "good"], slurm={"trials_at_once": 1})
    process = start(task)
    wait_for(lambda: bool(task.log("lively")), what="the first trial")
    os.kill(only_child(process.pid), signal.SIGKILL)
    assert process.wait(60) == 0
    assert {trial: line["state"] for trial, line in task.outcomes().items()} == {
        "lively": COMPLETED,
        "good": COMPLETED,
    }


@pytest.mark.parametrize("imports", ["os._exit(3)", "time.sleep(600)"])
def test_imports_that_end_or_hang_are_each_trials_own(tmp_path: Path, imports: str) -> None:
    train = f"import os, time\n{imports}\n" + "def train(config, trial):\n    return {'score': 0.5}\n"
    task = made_task(tmp_path, train, ["a", "b"], slurm={"quiet_minutes": 0.02})
    assert task.run() == {FAILED: 2}
    said = "no sign of life" if "sleep" in imports else "exited with status 3 before the training function"
    assert all(said in line["error"] for line in task.outcomes().values())


def test_the_users_modules_stay_out_of_the_task(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["good"])
    before = list(sys.path), os.getcwd()
    assert task.run() == {COMPLETED: 1}
    assert "my_train" not in sys.modules and (list(sys.path), os.getcwd()) == before


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a silent trial have less time to end."""
    steps = ((DUMP_SIGNAL, 0.5), (signal.SIGTERM, 0.5), (signal.SIGKILL, 5.0))
    monkeypatch.setattr(children, "_ENDING", steps)


def start(task: MadeTask, look_seconds: float = 10.0) -> subprocess.Popen[bytes]:
    """Run the task in a process of its own, where SIGUSR2 ends it as it does under submitit."""
    code = f"""
import pathlib, signal, sys
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.worker import batch, children
children.LOOK_SECONDS = {look_seconds}
signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit(-1))
batch.run_batch(SweepDirectory(pathlib.Path({str(task.directory.path)!r})), "only", 1, 0)
"""
    return subprocess.Popen([sys.executable, "-c", code])


def only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(task: MadeTask, trial: str) -> bool:
    return not running(int(task.log(trial)))
