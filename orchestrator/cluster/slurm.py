"""SLURM as a cluster: submitit submits, squeue and sacct tell what became of it."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.cluster.interface import (
    ACTIVE,
    ALIVE,
    ENDED,
    PENDING,
    Capacity,
    Request,
    TaskStatus,
)
from orchestrator.cluster.processes import with_token
from orchestrator.errors import ClusterUnavailable, SubmissionRefused, UserError
from orchestrator.schema import SlurmConfig
from orchestrator.sweep.submissions import Intent, Receipt

# Everything else that squeue or sacct may say of a job means that it has ended.
_PENDING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_ACTIVE = {
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
}

# An sbatch that another machine started may still be under way for so long.
SBATCH_SECONDS = 120.0
COMMAND_SECONDS = 60.0


class SlurmCluster:
    """Runs tasks as SLURM job arrays. A job id is ARRAY_TASK, or a plain number for a single task."""

    def __init__(self) -> None:
        missing = [name for name in ("sbatch", "squeue", "scancel", "srun") if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"no {', '.join(missing)} on this machine",
                key="slurm",
                hint="Run it where SLURM's commands are, or on this machine alone: slurm=local",
            )

    def capacity(self) -> Capacity:
        """Return what the cluster takes."""
        return Capacity()

    def submit(self, request: Request) -> Receipt:
        """Submit all tasks as one array; see `Cluster.submit`."""
        from submitit.core.utils import FailedJobError
        from submitit.slurm.slurm import SlurmExecutor

        request.logs.mkdir(parents=True, exist_ok=True)
        executor = SlurmExecutor(request.logs, python=request.resources.python)
        executor.update_parameters(**parameters(request.resources, request.intent.token))
        try:
            jobs = executor.submit_array(list(request.tasks))
        except FailedJobError as error:
            # submitit raises it when sbatch itself said no; a timeout on the wire reads differently.
            if "timed out" in str(error).lower() or "unable to contact" in str(error).lower():
                raise ClusterUnavailable(str(error)) from None
            raise SubmissionRefused(_sbatch_words(str(error))) from None
        return Receipt(jobs=tuple(job.job_id for job in jobs))

    def find(self, intent: Intent, logs: Path) -> tuple[str, ...]:
        """Return the live jobs of a token, or a word for an sbatch that is still under way."""
        if intent.host == socket.gethostname():
            if any(process.name() == "sbatch" for process in with_token(intent.token)):
                return ("sbatch under way",)
        elif time.time() - intent.created < SBATCH_SECONDS:
            return ("sbatch perhaps under way",)
        return tuple(job for job, status in self._squeue(name=intent.token).items() if status.state in ALIVE)

    def adopt(self, intent: Intent, logs: Path) -> Receipt | None:
        """Return a receipt when every task of the array can find its payload."""
        arrays = {job.split("_")[0] for job in self._squeue(name=intent.token)}
        if len(arrays) != 1:
            return None
        array = arrays.pop()
        count = len(intent.tasks)
        jobs = tuple(f"{array}_{index}" for index in range(count)) if count > 1 else (array,)
        whole = all((logs / f"{job}_submitted.pkl").exists() for job in jobs)
        return Receipt(jobs=jobs) if whole else None

    def poll(self, jobs: Sequence[str]) -> Mapping[str, TaskStatus]:
        """Return each job's state: squeue for what lives, sacct for how the others ended."""
        queued = self._squeue()
        gone = [job for job in jobs if job not in queued]
        # The controller forgets ended jobs after some minutes; one it no longer lists has ended, even
        # where accounting is off or late and can't say how.
        ended = {job: TaskStatus(ENDED, "no longer known to SLURM") for job in gone}
        if gone:
            ended.update(self._sacct(gone))
        return {job: queued[job] if job in queued else ended[job] for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        """scancel jobs."""
        known = [job for job in jobs if job[:1].isdigit()]
        for start in range(0, len(known), 500):
            _command(["scancel", *known[start : start + 500]], check=False)

    def _squeue(self, name: str | None = None) -> dict[str, TaskStatus]:
        command = ["squeue", "--noheader", "--array", "--states=all", "--user", getpass.getuser()]
        rows = _command([*command, *(["--name", name] if name else []), "--format=%i|%T|%r"]).splitlines()
        states = {}
        for row in rows:
            job, _, rest = row.strip().partition("|")
            state, _, reason = rest.partition("|")
            states[job] = _status(state, reason)
        return states

    def _sacct(self, jobs: Sequence[str]) -> dict[str, TaskStatus]:
        try:
            arrays = sorted({job.split("_")[0] for job in jobs})
            rows = _command(
                ["sacct", "--noheader", "--allocations", "--parsable2", "--jobs", ",".join(arrays),
                 "--format=JobID,State"]
            )  # fmt: skip
        except ClusterUnavailable:
            return {}
        wanted = set(jobs)
        states = {}
        for row in rows.splitlines():
            job, _, state = row.strip().partition("|")
            # sacct may lag behind squeue: a job that squeue no longer lists is not running, whatever it says.
            if job in wanted and state.split()[:1] and state.split()[0] not in _PENDING | _ACTIVE:
                states[job] = TaskStatus(ENDED, state)
        return states


def parameters(resources: SlurmConfig, token: str) -> dict[str, Any]:
    """Return submitit's parameters for a submission."""
    chosen: dict[str, Any] = {
        "job_name": token,
        "comment": token,
        "time": resources.timeout_min,
        # The warning before the limit: submitit's 90 seconds are longer than a short job.
        "signal_delay_s": min(90, 15 * resources.timeout_min),
        "cpus_per_task": resources.cpus_per_task,
        "array_parallelism": resources.tasks_at_once,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "gpus_per_node": resources.gpus_per_task or None,
        "mem": f"{resources.mem_gb * 1024:.0f}M" if resources.mem_gb else None,
        "setup": resources.setup or None,
        "stderr_to_stdout": True,
        "additional_parameters": resources.sbatch or None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _status(state: str, reason: str = "") -> TaskStatus:
    if state in _PENDING:
        return TaskStatus(PENDING, reason)
    return TaskStatus(ACTIVE, reason) if state in _ACTIVE else TaskStatus(ENDED, state)


def _sbatch_words(text: str) -> str:
    lines = [line for line in text.splitlines() if "sbatch: error" in line or "error:" in line]
    return "; ".join(line.split("error:", 1)[1].strip() for line in lines) or text.strip()


def _command(command: Sequence[str], *, check: bool = True) -> str:
    """Run one of SLURM's commands.

    Raises:
        ClusterUnavailable: it failed, or did not answer in time.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterUnavailable(f"{command[0]}: {error}") from None
    if check and done.returncode != 0:
        raise ClusterUnavailable(f"{command[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout
