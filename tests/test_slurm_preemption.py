"""A job with a better claim takes the whole of a real SLURM. No other test uses it meanwhile."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from test_slurm_worker import SLURM, legs_of, sweep_of

import commands
from commands import assert_finished, wait_for, write_user_sweep

# The second trial goes on until its place is taken away, however long that takes.
PREEMPTED = """
import time

def train(config, trial):
    place = trial.checkpoint_dir / "step"
    done = int(place.read_text()) if place.exists() else 0
    with open(trial.checkpoint_dir / "legs", "a") as legs:
        legs.write(f"{done}\\n")
    last = 500 if config.kind == "b" and not done else done + 2
    for step in range(done + 1, last + 1):
        time.sleep(0.5)
        trial.report(step, {"score": step / 500})
        place.write_text(str(step))
    return {"score": 1.0}
"""

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm_alone", "two_nodes")]


def test_a_preempted_task_goes_on_and_repeats_no_finished_trial(tmp_path: Path) -> None:
    kinds = ["a", "b", "c"]
    write_user_sweep(tmp_path, train=PREEMPTED, sweep=sweep_of(kinds, "preempted"))
    sweep = tmp_path / "sweeps" / "preempted"
    run = subprocess.Popen(
        commands.command("run", "sweep.yaml", *SLURM, "slurm.task_minutes=10"), cwd=tmp_path,
        env=commands.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: len(commands.outcome_counts(sweep)) == 1, what="a first outcome")
        wait_for(lambda: any((path / "step").exists() for path in unfinished(sweep)), what="a checkpoint")
        # All GPUs of both nodes: something has to go.
        urgent = ["sbatch", "--parsable", "-p", "urgent", "-N", "2", "--gres=gpu:4", "--output=/dev/null"]
        job = subprocess.run([*urgent, "--wrap=sleep 3"], capture_output=True, text=True, check=True)
        shown, errors = run.communicate(timeout=300)
    finally:
        run.kill()
    subprocess.run(["scancel", job.stdout.strip()], check=False)
    assert run.returncode == 0, shown + errors
    assert_finished(sweep, trials=3)
    assert set(commands.outcome_counts(sweep).values()) == {1}
    legs = sorted(legs_of(sweep), key=len)
    assert legs[0] == [0] and len(legs[-1]) == 2 and legs[-1][1] > 0, "one went on from its checkpoint"


def unfinished(sweep: Path) -> list[Path]:
    done = commands.outcome_counts(sweep)
    return [path for path in sweep.glob("stages/only/checkpoints/*") if path.name not in done]
