"""SLURM as a cluster: submitit submits, squeue and sacct tell what became of it."""

from __future__ import annotations

import functools
import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.cluster.interface import (
    ACTIVE,
    ALIVE,
    BY_HAND,
    COMPLETED,
    ENDED,
    FAILED,
    MEMORY,
    NODE,
    PENDING,
    PREEMPTED,
    TIME_LIMIT,
    UNTOLD,
    Capacity,
    Request,
    TaskStatus,
)
from orchestrator.cluster.processes import with_token
from orchestrator.cluster.script import interpreter, log_folder, parameters
from orchestrator.errors import ClusterUnavailable, SubmissionRefused, UserError
from orchestrator.schema import SlurmConfig
from orchestrator.sweep.submissions import Intent, Receipt

# What squeue or sacct says of a job that has ended. Everything else that they may say means an end of which
# nobody knows the cause.
_CAUSES = {
    "COMPLETED": COMPLETED,
    "FAILED": FAILED,
    "OUT_OF_MEMORY": MEMORY,
    "TIMEOUT": TIME_LIMIT,
    "DEADLINE": TIME_LIMIT,
    "NODE_FAIL": NODE,
    "BOOT_FAIL": NODE,
    "PREEMPTED": PREEMPTED,
    "CANCELLED": BY_HAND,
}

# Reasons for waiting that no passing of time removes: somebody has to act.
_STUCK = re.compile(
    "held|BadConstraints|NeverSatisfied|NotAllowed|Invalid|PerJob|WallDuration|PartitionNodeLimit|"
    "PartitionTimeLimit|MaxMemPerLimit|HoldMaxRequeue",
    re.IGNORECASE,
)

# What sbatch says when it is a matter of how much is asked for at once.
_FULL = re.compile(
    "MaxSubmit|MaxJobCount|job array specification|violates accounting/QOS policy|too many|"
    "temporarily unable to accept|limit (?:has been )?reached",
    re.IGNORECASE,
)

# By submitit's own count a long trial ends after three legs. The worker ends those that get no further.
MOST_LEGS = 100_000

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

    def __init__(self, resources: SlurmConfig) -> None:
        self._resources = resources
        missing = [name for name in ("sbatch", "squeue", "scancel", "srun") if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"no {', '.join(missing)} on this machine",
                key="slurm",
                hint="Run it where SLURM's commands are, or on this machine alone: slurm=local",
            )

    def capacity(self) -> Capacity:
        """Return what the cluster takes."""
        return self._limits

    @functools.cached_property
    def _limits(self) -> Capacity:
        # A limit that is not shown here is learned when sbatch refuses.
        shown = dict(re.findall(r"^(\w+)\s*=\s*(\S+)", _asked(["scontrol", "show", "config"]), re.MULTILINE))
        tasks = [shown.get("MaxJobCount", ""), *_submit_limits(self._resources)]
        array = shown.get("MaxArraySize", "")
        known = [int(limit) for limit in tasks if limit.isdigit()]
        if self._resources.max_queued:
            known.append(self._resources.max_queued)
        return Capacity(tasks=min(known, default=None), array=int(array) if array.isdigit() else None)

    def submit(self, request: Request) -> Receipt:
        """Submit all tasks as one array; see `Cluster.submit`."""
        from submitit.core.utils import FailedJobError
        from submitit.slurm.slurm import SlurmExecutor

        request.logs.mkdir(parents=True, exist_ok=True)
        executor = SlurmExecutor(
            log_folder(request.logs),
            max_num_timeout=MOST_LEGS,
            python=interpreter(request.resources.python),
        )
        chosen = parameters(request.resources, request.intent.token, request.processes)
        executor.update_parameters(**chosen)
        try:
            jobs = executor.submit_array(list(request.tasks))
        except FailedJobError as error:
            # submitit raises it when sbatch itself said no; a timeout on the wire reads differently.
            if "timed out" in str(error).lower() or "unable to contact" in str(error).lower():
                raise ClusterUnavailable(str(error)) from None
            words = _sbatch_words(str(error))
            raise SubmissionRefused(words, later=bool(_FULL.search(words))) from None
        return Receipt(jobs=tuple(job.job_id for job in jobs))

    def find(self, intent: Intent, logs: Path) -> tuple[str, ...]:
        """Return the live jobs of a token, or a word for an sbatch that is still under way."""
        if intent.host == socket.gethostname():
            if with_token(intent.token, name="sbatch"):
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
                states[job] = _status(state)
        return states


def _status(state: str, reason: str = "") -> TaskStatus:
    if state in _PENDING:
        return TaskStatus(PENDING, reason, stuck=bool(_STUCK.search(reason)))
    if state in _ACTIVE:
        return TaskStatus(ACTIVE, reason)
    # sacct writes "CANCELLED by 1000".
    return TaskStatus(ENDED, state, cause=_CAUSES.get(state.split()[0], UNTOLD) if state else UNTOLD)


def _submit_limits(resources: SlurmConfig) -> list[str]:
    """Return how many jobs this user may have, by association and QOS, where accounting says so."""
    user = ["where", f"user={getpass.getuser()}"]
    if resources.account:
        user.append(f"account={resources.account}")
    rows = _asked(["sacctmgr", "--noheader", "--parsable2", "show", "assoc", *user,
                   "format=MaxSubmitJobs,DefaultQOS"]).splitlines()  # fmt: skip
    limits = [row.partition("|")[0] for row in rows]
    names = {row.partition("|")[2] for row in rows} if resources.qos is None else {resources.qos}
    if named := ",".join(sorted(filter(None, names))):
        shown = _asked(["sacctmgr", "--noheader", "--parsable2", "show", "qos", "where", f"name={named}",
                        "format=MaxSubmitJobsPerUser,MaxSubmitJobsPerAccount"])  # fmt: skip
        limits += re.split(r"[|\s]", shown)
    return limits


def _asked(command: Sequence[str]) -> str:
    """Return what a command says, nothing where it can't be asked."""
    try:
        return _command(command)
    except ClusterUnavailable:
        return ""


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
