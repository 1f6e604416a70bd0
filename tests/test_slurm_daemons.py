"""The daemons of a real SLURM die under a sweep. No other test uses SLURM meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_slurm import GPU, SLOW, running_job, start_run

import commands
from commands import SHORT_TRIALS, assert_finished, orchestrate, outcome_counts, wait_for, write_user_sweep

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm_alone", "daemons")]

HOME = Path(os.environ.get("ORCHESTRATOR_SLURM_HOME", "/var/lib/orchestrator-slurm"))
START = Path(__file__).parent.parent / "slurm" / "single_node" / "start.sh"


def daemon(name: str) -> int:
    return int((HOME / "run" / f"{name}.pid").read_text())


@pytest.fixture
def daemons() -> Iterator[None]:
    """All of them run, and whatever a test has stopped runs again afterwards."""
    subprocess.run([START], check=True, capture_output=True)
    yield
    subprocess.run([START], check=True, capture_output=True)


def test_slurmctld_is_away_for_a_while(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SLOW)
    sweep = tmp_path / "sweeps" / "mine"
    run = start_run(tmp_path)
    wait_for(lambda: bool(outcome_counts(sweep)), what="a first outcome")
    # Not SIGKILL: it forgets what it began in the last seconds, and begins it again where it runs.
    os.kill(daemon("slurmctld"), signal.SIGTERM)
    before = len(outcome_counts(sweep))
    wait_for(lambda: len(outcome_counts(sweep)) > before, what="work without slurmctld")
    told = orchestrate("advance", sweep, cwd=tmp_path, status=None)
    assert "Traceback" not in told.stderr
    assert run.poll() is None, "the one that drives it waits"
    subprocess.run([START], check=True, capture_output=True)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert_finished(sweep, SHORT_TRIALS)
    assert set(outcome_counts(sweep).values()) == {1}


@pytest.mark.usefixtures("two_nodes")
def test_a_node_dies_under_its_tasks(tmp_path: Path) -> None:
    sweep_file = SLOW.replace("pause: 1.0", "pause: 2.0")
    write_user_sweep(tmp_path, sweep=sweep_file)
    sweep = tmp_path / "sweeps" / "mine"
    # Two tasks of two GPUs to a node, so that both nodes have some.
    run = subprocess.Popen(
        commands.command("run", "sweep.yaml", *GPU, "slurm.gpus_per_task=2"), cwd=tmp_path, text=True,
        env=commands.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    on_n2 = ["squeue", "--noheader", "--nodelist=n2", "--states=RUNNING", "--format=%i"]
    wait_for(
        lambda: bool(running_job(sweep)) and bool(subprocess.check_output(on_n2).strip()), what="tasks on n2"
    )
    os.kill(daemon("slurmd-n2"), signal.SIGKILL)
    _, errors = run.communicate(timeout=420)
    assert run.returncode == 0, errors
    assert_finished(sweep, SHORT_TRIALS)
