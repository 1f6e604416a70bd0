"""Calling the real command, and the small jobs that tests sweep over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked

from orchestrator.sweep import records

# A job in plain Python, so that a whole sweep takes seconds: best at lr 0.01, and every run is written down.
TRAIN = """
import math, os, time

def train(config, trial):
    with open(trial.checkpoint_dir / "runs.log", "a") as log:
        log.write(f"{os.getpid()}\\n")
    for epoch in range(1, config.epochs + 1):
        time.sleep(config.pause)
        score = 1 - 0.1 * abs(math.log10(config.lr) + 2) - 0.2 / (epoch * config.fraction * config.width)
        trial.report(epoch, {"score": score, "loss": 1 - score})
    return {"score": score}
"""

SWEEP = """
name: mine
metric: {name: score, mode: max}
space:
  lr: tag(log, interval(1e-5, 1.0))
  width: choice(8, 16, 32)
stages:
  coarse: {trials: 12, data: 0.1, epochs: 1}
  fine: {trials: 6, data: 1.0, epochs: 2}
final: {top: 2, seeds: 2, epochs: 3}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, width: 8, fraction: 1.0, epochs: 1, pause: 0.0}
  scale: {data: fraction, epochs: epochs}
slurm: {trials_at_once: 4}
"""

PLANNED_TRIALS = 12 + 6 + 4
# One stage and its final runs, for what is not about the stages: each costs three seconds of processor time.
SHORT = SWEEP.replace("  fine: {trials: 6, data: 1.0, epochs: 2}\n", "").replace(
    "final: {top: 2, seeds: 2, epochs: 3}", "final: {top: 2, seeds: 1, epochs: 1}"
)
SHORT_TRIALS = 12 + 2


def write_user_sweep(folder: Path, train: str = TRAIN, sweep: str = SWEEP) -> Path:
    """Write a user's folder: a sweep file beside a training function with no import of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my_train.py").write_text(train)
    (folder / "sweep.yaml").write_text(sweep)
    return folder / "sweep.yaml"


def command(*arguments: object) -> list[str]:
    """Return the command line of `orchestrate`, run by the tests' own Python."""
    return [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)]


def orchestrate(
    *arguments: object, cwd: Path, status: int | None = 0, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Call `orchestrate` and check its exit status (None: any)."""
    done = forked.call([str(word) for word in arguments], cwd, environment(), timeout)
    if status is not None:
        assert done.returncode == status, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done


def environment() -> dict[str, str]:
    """Return the environment of a plain terminal, whatever started the tests."""
    return {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}


def status(directory: Path) -> dict[str, Any]:
    """Return `orchestrate status --json`."""
    shown = orchestrate("status", directory, "--json", cwd=directory.parent)
    content: dict[str, Any] = json.loads(shown.stdout)
    return content


def wait_for(condition: Callable[[], bool], seconds: float = 120, what: str = "it") -> None:
    """Wait until something is so; fails when it does not become so."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline, f"{what} did not happen within {seconds} s"
        # What takes long to find out is asked less often: others need the processor too.
        time.sleep(max(0.05, now - began))


def record_files(directory: Path) -> list[records.RecordFile]:
    """Return all record files of a sweep."""
    return [records.read_file(path) for path in sorted(directory.glob("**/records/*.jsonl"))]


def outcome_counts(directory: Path) -> Counter[str]:
    """Return how many outcomes each trial has, over all attempts."""
    return Counter(outcome.trial for file in record_files(directory) for outcome in records.outcomes(file))


def assert_finished(directory: Path, trials: int = PLANNED_TRIALS) -> None:
    """Check a finished sweep: every planned trial counted once, in the records' count and in the results."""
    import pandas as pd

    content = status(directory)
    assert content["state"] == "done", content
    trained = [phase for phase in content["phases"] if phase["kind"] != "checks"]
    assert sum(phase["planned"] for phase in trained) == trials
    assert sum(phase["completed"] for phase in trained) == trials
    table = pd.read_parquet(directory / "results" / "trials")
    assert len(table) == trials
    assert table["trial_id"].is_unique
    assert (table["state"] == "completed").all()


# What commands that do not train must not import.
HEAVY = {"torch", "dask", "optuna", "sklearn", "pandas", "scipy"}


def loaded_after(code: str, cwd: Path) -> set[str]:
    """Return the heavy packages that a fresh process has loaded after some code."""
    script = f"import sys\n{code}\nprint(*(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())
