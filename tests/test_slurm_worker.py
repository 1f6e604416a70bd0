"""What happens to trials inside a real SLURM's tasks: crashes, hangs, time limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import commands
from commands import assert_finished, orchestrate, write_user_sweep
from orchestrator.sweep.records import COMPLETED, FAILED

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

SLURM = ["slurm=gpu", "slurm.cpus_per_task=1", "slurm.tasks_at_once=1"]

MISBEHAVING = """
import ctypes, time

def train(config, trial):
    if config.kind == "segfaults":
        ctypes.string_at(0)
    if config.kind == "memory":
        raise MemoryError("no room for the model")
    if config.kind == "hangs":
        trial.report(4, {"score": 0.1})
        time.sleep(600)
    return {"score": 0.5}
"""

# Resumes from its checkpoint; where it took up is written down.
RESUMING = """
import time

def train(config, trial):
    place = trial.checkpoint_dir / "step"
    done = int(place.read_text()) if place.exists() else 0
    with open(trial.checkpoint_dir / "legs", "a") as legs:
        legs.write(f"{done}\\n")
    for step in range(done + 1, config.steps + 1):
        time.sleep(1)
        trial.report(step, {"score": step / config.steps})
        place.write_text(str(step))
    return {"score": 1.0}
"""


def sweep_of(kinds: list[str], name: str = "mine", steps: int = 0) -> str:
    return f"""
name: {name}
metric: {{name: score}}
space: {{kind: "choice({", ".join(kinds)})"}}
stages: {{only: {{trials: {len(kinds)}, sampler: grid}}}}
final: {{top: 0}}
jobs: {{_target_: my_train.train, config: {{kind: x, steps: {steps}}}}}
"""


def trials_of(sweep: Path) -> dict[str, dict[str, Any]]:
    rows = pd.read_parquet(sweep / "results" / "trials").to_dict("records")
    return {str(row["param.kind"]): {str(name): value for name, value in row.items()} for row in rows}


def legs_of(sweep: Path) -> list[list[int]]:
    return [[int(step) for step in path.read_text().split()] for path in sorted(sweep.glob("**/legs"))]


def test_a_crash_a_hang_and_want_of_memory_cost_nobody_else(tmp_path: Path) -> None:
    write_user_sweep(
        tmp_path, train=MISBEHAVING, sweep=sweep_of(["segfaults", "memory", "hangs", "good", "fine"])
    )
    orchestrate("run", "sweep.yaml", *SLURM, "slurm.quiet_minutes=0.05", cwd=tmp_path, status=None)
    sweep = tmp_path / "sweeps" / "mine"
    trials = trials_of(sweep)
    assert {kind: row["state"] for kind, row in trials.items()} == {
        "segfaults": FAILED, "memory": FAILED, "hangs": FAILED, "good": COMPLETED, "fine": COMPLETED,
    }  # fmt: skip
    assert "SIGSEGV" in trials["segfaults"]["error"] and "my_train.py" in trials["segfaults"]["error"]
    assert trials["memory"]["diagnosis"] == "out of memory"
    assert trials["hangs"]["diagnosis"] == "hung" and "was 4" in trials["hangs"]["error"]
    logs = "".join(path.read_text() for path in sweep.glob("logs/*/*_log.out"))
    assert logs.count("the stacks of its threads:") == 2


def test_a_trial_longer_than_the_time_limit_gets_through_in_legs(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, train=RESUMING, sweep=sweep_of(["a", "b"], "long", steps=75))
    limited = [*SLURM, "slurm.partition=short", "slurm.timeout_min=1", "slurm.trials_at_once=2"]
    orchestrate("run", "sweep.yaml", *limited, cwd=tmp_path, timeout=400)
    sweep = tmp_path / "sweeps" / "long"
    assert_finished(sweep, trials=2)
    legs = legs_of(sweep)
    assert all(len(taken_up) >= 2 for taken_up in legs)
    assert all(t == sorted(set(t)) for t in legs), "each leg takes up where the one before was"
    curve = pd.read_parquet(sweep / "results" / "curves")
    assert sorted(curve["step"]) == sorted(2 * list(range(1, 76))), "every step once"
    kinds = [line["kind"] for file in commands.record_files(sweep) for line in file.lines]
    ended = sum(len(taken_up) - 1 for taken_up in legs)
    assert kinds.count("interrupted") == ended, "each leg was ended in time, and in peace"
