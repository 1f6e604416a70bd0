"""The small jobs that drive a sweep on SLURM: each waits for the sweep's arrays, takes a step and ends.

They are found by their name, which no other job has. What one waits for is written in its comment, because
squeue no longer tells once it is over.
"""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.script import (
    comma_separated,
    environment_outside,
    interpreter,
    log_folder,
    megabytes,
    sbatch_flags,
)
from orchestrator.errors import ClusterUnavailable, SubmissionRefused
from orchestrator.schema import SlurmConfig

# Enough for Optuna, the results and the report of a large sweep, and still the smallest job of a cluster.
DRIVER_MINUTES, DRIVER_GB = 30, 2.0
COMMAND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DriverJob:
    """A living job that drives a sweep: squeue's state and reason, what it waits for, when it may start."""

    job: str
    state: str
    wake: str
    reason: str = ""
    start: str = ""

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state == "PENDING"


@dataclass(frozen=True, slots=True)
class Wake:
    """When a driver shall start: at the end of any of some jobs, and no sooner than in some seconds.

    `wake` says it in one word and the job ids, and is what the job's comment holds.
    """

    wake: str
    after: tuple[str, ...] = ()
    seconds: int = 0

    @property
    def dependency(self) -> str:
        """Return it as sbatch takes it: any of the jobs, however it ended."""
        return "?".join(f"afterany:{job}" for job in self.after)

    @property
    def begin(self) -> str:
        """Return it as sbatch takes it."""
        return f"now+{self.seconds}" if self.seconds else "now"


def driver_jobs(token: str) -> tuple[DriverJob, ...]:
    """Return the living drivers of a sweep, the oldest first.

    Raises:
        ClusterUnavailable: squeue gave no answer.
    """
    rows = _call(["squeue", "--noheader", *_whose(token), "--format=%i|%T|%k|%r|%S"]).splitlines()
    found = [DriverJob(*(part.strip() for part in row.strip().split("|", 4))) for row in rows if row.strip()]
    return tuple(sorted(found, key=lambda job: int(job.job)))


def send_driver(token: str, wake: Wake, resources: SlurmConfig, directory: Path, log: Path) -> str:
    """Submit a driver; returns its job id.

    Raises:
        SubmissionRefused: in sbatch's words.
        ClusterUnavailable: it gave no answer; whether it took the job is seen by the name later.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = ["sbatch", "--parsable", *driver_flags(token, wake, resources, directory, log_folder(log))]
    return _call(command, given=driver_script(resources, directory, log), refusals=True).strip().split(";")[0]


def driver_flags(token: str, wake: Wake, resources: SlurmConfig, directory: Path, log: Path) -> list[str]:
    """Return sbatch's flags for a driver."""
    flags: dict[str, Any] = {
        "job-name": token,
        "comment": wake.wake,
        "requeue": True,
        "chdir": directory,
        "output": log,
        "open-mode": "append",
    }
    if wake.after:
        flags["dependency"] = wake.dependency
    if wake.seconds:
        flags["begin"] = wake.begin
    flags.update(asked_for(resources))
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items()]


def asked_for(resources: SlurmConfig) -> dict[str, Any]:
    """Return sbatch's flags for what a driver needs: the site's as for the tasks, one core, no GPU."""
    own = resources.driver
    chosen = {
        "ntasks": 1,
        "cpus-per-task": 1,
        "mem": megabytes(own.get("mem_gb") or DRIVER_GB),
        "time": own.get("timeout_min") or min(DRIVER_MINUTES, resources.timeout_min),
        "partition": comma_separated(own.get("partition", resources.partition)),
        "account": own.get("account", resources.account),
        "qos": own.get("qos", resources.qos),
    }
    flags = {name: value for name, value in chosen.items() if value is not None}
    return {**flags, **sbatch_flags(own.get("sbatch") or {})}


def driver_script(resources: SlurmConfig, directory: Path, log: Path) -> str:
    """Return the driver's batch script: the sweep's set-up lines, and one `orchestrate advance`."""
    setup = resources.driver.get("setup", resources.setup)
    step = ["-m", "orchestrator.cli", "advance", str(directory), "--quiet", "--log", str(log)]
    words = f"{_driver_python(resources)} {shlex.join(step)}"
    return "\n".join(["#!/bin/bash", *map(str, setup), f"exec {words}", ""])


def change_driver(job: str, wake: Wake) -> bool:
    """Let a waiting driver wait for something else; False where SLURM does not let it."""
    changes = [f"Dependency={wake.dependency}", f"StartTime={wake.begin}", f"Comment={wake.wake}"]
    try:
        _call(["scontrol", "update", f"JobId={job}", *changes])
    except ClusterUnavailable:
        return False
    return True


def requeue_driver(job: str) -> None:
    """Put a running driver back into the queue; it starts again in some minutes.

    Raises:
        ClusterUnavailable: SLURM gives no answer, or does not let it.
    """
    _call(["scontrol", "requeue", job])


def end_drivers(token: str, jobs: Sequence[str] = ()) -> None:
    """End some drivers, or all of a sweep's, those that run among them."""
    _call(["scancel", *_whose(token), *jobs])


def own_driver_job(token: str) -> str:
    """Return the id of the driver job that this process runs in; empty outside of one."""
    return os.environ.get("SLURM_JOB_ID", "") if os.environ.get("SLURM_JOB_NAME") == token else ""


def _driver_python(resources: SlurmConfig) -> str:
    """Return the tasks' python where it is one; a container's, say, has none of SLURM's commands."""
    if own := resources.driver.get("python"):
        return interpreter(own)
    words = shlex.split(resources.python) if resources.python else []
    plain = len(words) == 1 or (resources.python and Path(resources.python).expanduser().is_file())
    return interpreter(resources.python if plain else None)


def _whose(token: str) -> list[str]:
    return [f"--name={token}", f"--user={getpass.getuser()}"]


def _call(command: Sequence[str], *, given: str = "", refusals: bool = False) -> str:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=COMMAND_SECONDS,
            # sbatch hands it on to the job.
            env=environment_outside(),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterUnavailable(f"{command[0]}: {error}") from None
    if done.returncode == 0:
        return done.stdout
    words = done.stderr.strip() or str(done.returncode)
    unreachable = "timed out" in words.lower() or "unable to contact" in words.lower()
    if refusals and not unreachable:
        raise SubmissionRefused(words.replace("sbatch: error: ", ""))
    raise ClusterUnavailable(f"{command[0]}: {words}")
