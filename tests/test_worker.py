"""The worker: trials that misbehave in every way, side by side in one task."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest

import commands
from commands import orchestrate, write_user_sweep
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, PRUNED
from orchestrator.worker.ending import judge

MISBEHAVING = """
import ctypes, math, os, sys, time

def train(config, trial):
    trial.report(1, {"score": 0.1})
    kind = config.kind
    if kind == "raises":
        raise ValueError("the setting is no good")
    if kind == "segfaults":
        ctypes.string_at(0)
    if kind == "exits":
        os._exit(3)
    if kind == "leaves":
        sys.exit(4)
    if kind == "not_a_number":
        return {"score": math.nan}
    if kind == "infinite":
        return {"score": math.inf}
    if kind == "nothing":
        return None
    if kind == "number":
        return 0.5
    if kind == "text":
        return {"score": "high"}
    if kind == "other":
        return {"accuracy": 0.5}
    if kind == "stops":
        from orchestrator import StopTrial
        raise StopTrial
    if kind == "closes":
        os.closerange(3, 64)
    return {"score": 0.5}
"""

KINDS = {
    "good": (COMPLETED, ""),
    "closes": (FAILED, "before the training function returned"),
    "raises": (FAILED, "ValueError: the setting is no good"),
    "segfaults": (FAILED, "killed by SIGSEGV"),
    "exits": (FAILED, "exited with status 3 before the training function returned"),
    "leaves": (FAILED, "called sys.exit(4)"),
    "not_a_number": (DIVERGED, ""),
    "infinite": (DIVERGED, ""),
    "nothing": (FAILED, "returned nothing; it must return a dict with 'score'"),
    "number": (FAILED, "returned float 0.5; it must return a dict with 'score'"),
    "text": (FAILED, "metric 'score' is str 'high', not a number"),
    "other": (FAILED, "metric 'score' was not returned; there is 'accuracy'"),
    "stops": (PRUNED, ""),
}


def test_each_way_to_fail_has_its_state_and_error_and_leaves_the_others_alone(tmp_path: Path) -> None:
    kinds = list(KINDS)
    sweep = f"""
name: bad
metric: {{name: score}}
space: {{kind: "choice({", ".join(kinds)})", repeat: "choice(1, 2)"}}
stages: {{only: {{trials: {2 * len(kinds)}, sampler: grid}}}}
final: {{top: 0}}
jobs: {{_target_: my_train.train, config: {{kind: good, repeat: 0}}}}
slurm: {{trials_at_once: 3}}
"""
    write_user_sweep(tmp_path, train=MISBEHAVING, sweep=sweep)
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    directory = tmp_path / "sweeps" / "bad"
    trials = pd.read_parquet(directory / "results" / "trials")
    assert len(trials) == 2 * len(kinds)
    for row in trials.to_dict("records"):
        state, error = KINDS[str(row["param.kind"])]
        assert row["state"] == state, row
        assert error in str(row["error"]), row
        assert bool(row["error"]) == (state == FAILED), row
    # One task ran them all: one bad trial did not cost the others theirs.
    assert len(commands.record_files(directory)) == 1
    # A traceback begins in the user's code.
    raised = trials[trials["param.kind"] == "raises"]["error"].iloc[0]
    assert raised.startswith('File "')
    assert "my_train.py" in raised and "worker" not in raised


@pytest.mark.parametrize(
    ("last", "exitcode", "expected"),
    [
        ({"kind": "return", "metrics": {"m": 1.0, "x": 2.0}}, 0, (COMPLETED, {"m": 1.0, "x": 2.0}, "")),
        ({"kind": "return", "metrics": {}}, 0, (FAILED, {}, "no metric")),
        ({"kind": "return", "metrics": {"m": float("-inf")}}, 0, (DIVERGED, {"m": float("-inf")}, "")),
        ({"kind": "stopped"}, 0, (PRUNED, {}, "")),
        ({}, -9, (FAILED, {}, "killed by SIGKILL")),
        ({}, -250, (FAILED, {}, "signal 250")),
        ({}, 0, (FAILED, {}, "exited with status 0")),
    ],
)
def test_judge(last: dict[str, object], exitcode: int, expected: tuple[str, dict[str, float], str]) -> None:
    ending = judge(last, exitcode, "m")
    assert (ending.state, ending.metrics) == expected[:2]
    assert expected[2] in ending.error and bool(ending.error) == bool(expected[2])


def test_a_task_imports_the_job_once_for_all_its_trials(tmp_path: Path) -> None:
    train = "import os\nwith open('imports.log', 'a') as log: log.write(f'{os.getpid()}\\n')\n"
    write_user_sweep(tmp_path, train=train + commands.TRAIN, sweep=commands.SWEEP.replace("top: 2", "top: 0"))
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    imports = (tmp_path / "imports.log").read_text().split()
    # Once for the check before anything is submitted, then once in the fork server of each stage's task.
    assert len(imports) == 3, imports
    runs = list((tmp_path / "sweeps/mine/stages").glob("*/checkpoints/*/runs.log"))
    assert len({path.read_text() for path in runs}) == len(runs) == 18, "each trial has its own process"


def test_a_trial_that_the_cluster_ends_is_taken_up_again(tmp_path: Path) -> None:
    # SLURM signals every process of a job step, the trials' own among them, and not their task alone.
    train = """
import os, signal

def train(config, trial):
    once = trial.checkpoint_dir / "once"
    if not once.exists():
        once.touch()
        os.kill(os.getpid(), getattr(signal, config.signal))
    return {"score": 0.5}
"""
    sweep = """
name: ended
metric: {name: score}
space: {signal: "choice(SIGTERM, SIGUSR2, SIGINT)"}
stages: {only: {trials: 3, sampler: grid}}
final: {top: 0}
jobs: {_target_: my_train.train, config: {signal: SIGTERM}}
"""
    write_user_sweep(tmp_path, train=train, sweep=sweep)
    done = orchestrate("run", "sweep.yaml", cwd=tmp_path)
    assert "was lost" in done.stdout
    commands.assert_finished(tmp_path / "sweeps" / "ended", trials=3)


def test_editing_the_code_while_a_sweep_runs_changes_nothing(tmp_path: Path) -> None:
    train = """
import time
from pathlib import Path
from my_helper import SCORE

def train(config, trial):
    from my_late import LATE
    # The first trial waits for the edit; those of the next stage begin after it.
    while not Path("edited").exists():
        time.sleep(0.05)
    return {"score": SCORE + LATE}
"""
    sweep = """
name: edited
metric: {name: score}
space: {x: "interval(0.0, 1.0)"}
stages: {first: {trials: 2}, second: {trials: 2}}
final: {top: 0}
jobs: {_target_: my_train.train, config: {x: 0.1}}
"""
    write_user_sweep(tmp_path, train=train, sweep=sweep)
    (tmp_path / "my_helper.py").write_text("SCORE = 0.25\n")
    (tmp_path / "my_late.py").write_text("LATE = 0.5\n")
    run = subprocess.Popen(
        commands.command("run", "sweep.yaml"), cwd=tmp_path, env=commands.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    directory = tmp_path / "sweeps" / "edited"
    commands.wait_for(lambda: bool(list(directory.glob("**/records/*.jsonl"))), what="a task")
    (tmp_path / "my_train.py").write_text("raise RuntimeError('half edited')\n")
    (tmp_path / "my_helper.py").write_text("SCORE = -1.0\n")
    (tmp_path / "my_late.py").unlink()
    (tmp_path / "edited").touch()
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    commands.assert_finished(directory, trials=4)
    assert set(pd.read_parquet(directory / "results" / "trials")["objective"]) == {0.75}


def test_a_trial_can_use_what_its_task_has_used(tmp_path: Path) -> None:
    # A trial's process is forked from one that has numpy and pyarrow loaded, whose threads are not.
    train = """
import numpy as np

def train(config, trial):
    import pandas as pd

    square = np.random.default_rng(trial.seed).normal(size=(300, 300))
    for _ in range(20):
        square = square @ square.T / 300
    frame = pd.DataFrame(square)
    frame.columns = frame.columns.astype(str)
    path = trial.checkpoint_dir / "frame.parquet"
    frame.to_parquet(path)
    assert pd.read_parquet(path).equals(frame)
    return {"score": 0.5}
"""
    sweep = """
name: threads
metric: {name: score}
space: {x: "interval(0.0, 1.0)"}
stages: {only: {trials: 4}}
final: {top: 0}
jobs: {_target_: my_train.train, config: {x: 0.1}}
slurm: {trials_at_once: 2, quiet_minutes: 2}
"""
    write_user_sweep(tmp_path, train=train, sweep=sweep)
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    commands.assert_finished(tmp_path / "sweeps" / "threads", trials=4)
