"""The parts of the clusters that need no cluster: sbatch's parameters, SLURM's states, local job ids."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster import slurm as slurm_cluster
from orchestrator.cluster.interface import ACTIVE, BY_HAND, ENDED, MEMORY, PENDING, TaskStatus
from orchestrator.cluster.local import LocalCluster, job_of
from orchestrator.cluster.processes import with_token
from orchestrator.cluster.script import parameters
from orchestrator.cluster.slurm import SlurmCluster
from orchestrator.errors import UserError
from orchestrator.schema import SlurmConfig


def test_what_sbatch_is_asked_for() -> None:
    chosen = parameters(
        SlurmConfig(
            executor="slurm", partition="a100", gpus_per_task=1, cpus_per_task=4, mem_gb=1.5, timeout_min=240,
            tasks_at_once=8, setup=["module load cuda"], sbatch={"reservation": "mine"},
        ),
        "token",
    )  # fmt: skip
    assert chosen["job_name"] == "token"
    assert (chosen["partition"], chosen["gpus_per_node"], chosen["mem"]) == ("a100", 1, "1536M")
    assert (chosen["time"], chosen["array_parallelism"], chosen["signal_delay_s"]) == (240, 8, 90)
    assert chosen["additional_parameters"] == {"reservation": "mine"}
    assert "account" not in chosen and "qos" not in chosen, "what is not set is the cluster's default"


def test_the_warning_before_the_limit_comes_after_the_start() -> None:
    for minutes in (1, 2, 5, 10, 600):
        chosen = parameters(SlurmConfig(executor="slurm", timeout_min=minutes), "token")
        assert chosen["signal_delay_s"] < 60 * minutes


@pytest.mark.parametrize(
    ("squeue", "sacct", "expected"),
    [
        ("7_0|RUNNING|None\n7_1|PENDING|Resources\n", "", (ACTIVE, PENDING)),
        ("7_0|COMPLETING|None\n7_1|CONFIGURING|None\n", "", (ACTIVE, ACTIVE)),
        ("7_0|SUSPENDED|None\n7_1|REQUEUE_HOLD|None\n", "", (ACTIVE, PENDING)),
        ("7_0|OUT_OF_MEMORY|None\n", "7_1|CANCELLED by 0\n", (ENDED, ENDED)),
        ("7_0|PENDING|JobHeldUser\n", "7_1|FAILED\n", (PENDING, ENDED)),
        # Accounting is late, or off: what squeue no longer lists has ended all the same.
        ("", "7_0|RUNNING\n", (ENDED, ENDED)),
        ("", "", (ENDED, ENDED)),
    ],
)
def test_states_from_squeue_and_sacct(
    monkeypatch: pytest.MonkeyPatch, squeue: str, sacct: str, expected: tuple[str, str]
) -> None:
    monkeypatch.setattr(
        slurm_cluster, "_command", lambda command, check=True: squeue if command[0] == "squeue" else sacct
    )
    cluster = SlurmCluster.__new__(SlurmCluster)
    states = cluster.poll(["7_0", "7_1"])
    assert (states["7_0"].state, states["7_1"].state) == expected
    if "CANCELLED" in sacct:
        assert states["7_0"] == TaskStatus(ENDED, "OUT_OF_MEMORY", MEMORY)
        assert states["7_1"] == TaskStatus(ENDED, "CANCELLED by 0", BY_HAND)
    assert states["7_0"].stuck == ("Held" in squeue)


@pytest.mark.parametrize(
    ("words", "later"),
    [
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", True),
        ("sbatch: error: Batch job submission failed: Invalid job array specification", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("sbatch: error: invalid partition specified: nowhere", False),
    ],
)
def test_a_full_cluster_is_told_from_a_wrong_request(words: str, later: bool) -> None:
    assert bool(slurm_cluster._FULL.search(words)) == later


def test_a_refusal_in_sbatchs_own_words() -> None:
    text = (
        "sbatch: error: invalid partition specified: nowhere\nsbatch: error: Batch job submission failed: x"
    )
    assert slurm_cluster._sbatch_words(text) == (
        "invalid partition specified: nowhere; Batch job submission failed: x"
    )


def test_a_local_job_lives_as_long_as_its_process() -> None:
    cluster = LocalCluster(SlurmConfig())
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    job = job_of(process.pid)
    assert cluster.poll([job])[job].state == ACTIVE
    process.communicate(b"\n")
    assert cluster.poll([job])[job].state == ENDED
    # A process that has the number by now is another one.
    again = f"{os.getpid()}@1.00@{socket.gethostname()}"
    assert cluster.poll([again])[again].state == ENDED


def test_a_local_job_of_another_machine_is_not_called_dead(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="started on elsewhere"):
        LocalCluster(SlurmConfig()).poll([f"{os.getpid()}@1.00@elsewhere"])


def test_a_process_that_ends_while_it_is_looked_at_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending(psutil.Process):
        def cmdline(self) -> list[str]:
            return ["sbatch", "--job-name=token-0001"]

        def name(self) -> str:
            raise psutil.NoSuchProcess(self.pid)

    monkeypatch.setattr(psutil, "process_iter", lambda: iter([Ending(os.getppid())]))
    assert len(with_token("token-0001")) == 1
    assert with_token("token-0001", name="sbatch") == []
