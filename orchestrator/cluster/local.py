"""This machine as a cluster, through submitit's local executor.

submitit starts a task's processes as children of whoever submits, in the same terminal session: Ctrl-C and a
closed terminal would end them. So a small launcher, in a session of its own, submits and writes the receipt;
it also finishes its work when the process that started it is killed in between.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from orchestrator.cluster.interface import ACTIVE, ENDED, Capacity, Request, TaskStatus
from orchestrator.cluster.processes import with_token
from orchestrator.errors import Damaged, SubmissionRefused, UserError
from orchestrator.schema import SlurmConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.submissions import Intent, Receipt, read_submissions


class LocalCluster:
    """Runs at most `slots` tasks at a time on this machine. A job id is PID@START@HOST."""

    def __init__(self, resources: SlurmConfig) -> None:
        self._capacity = Capacity(tasks=resources.tasks_at_once)

    def capacity(self) -> Capacity:
        """Return how many tasks may run here at once: there is no queue."""
        return self._capacity

    def submit(self, request: Request) -> Receipt:
        """Start all tasks of a request; see `Cluster.submit`."""
        request.logs.mkdir(parents=True, exist_ok=True)
        task = request.tasks[0]
        command = [
            sys.executable, "-m", "orchestrator.cluster.launch",
            task.sweep, task.kind, task.phase, str(task.submission), request.intent.token,
        ]  # fmt: skip
        log = request.logs / "launch.log"
        with open(log, "ab") as output:
            launcher = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
            )
        if launcher.wait() != 0:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise SubmissionRefused(f"the launcher failed: {lines[-1] if lines else 'no output'} (see {log})")
        folder = SweepDirectory(Path(task.sweep)).phase(task.kind, task.phase).submissions
        submission = next(s for s in read_submissions(folder) if s.number == task.submission)
        assert submission.receipt is not None, "the launcher ends well only after its receipt"
        return submission.receipt

    def find(self, intent: Intent, logs: Path) -> tuple[str, ...]:
        """Return live processes with the intent's token, the launcher among them."""
        _on_this_machine(intent.host)
        return tuple(_job_id(process) for process in with_token(intent.token))

    def adopt(self, intent: Intent, logs: Path) -> Receipt | None:
        """Return None: a launcher that lived to submit everything has written the receipt itself."""
        return None

    def poll(self, jobs: Sequence[str]) -> Mapping[str, TaskStatus]:
        """Return whether any process of each task is alive."""
        return {
            job: TaskStatus(ACTIVE) if _processes(job) else TaskStatus(ENDED, "its process ended")
            for job in jobs
        }

    def cancel(self, jobs: Sequence[str]) -> None:
        """Ask each task's processes to end; submitit's controller hands the signal on."""
        for job in jobs:
            for process in _processes(job):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGTERM)


def _on_this_machine(host: str) -> None:
    if host != socket.gethostname():
        raise UserError(
            f"its tasks were started on {host}, which this machine ({socket.gethostname()}) can't see",
            hint=f"Go on from {host}, or use a cluster: slurm=gpu",
        )


def _job_id(process: psutil.Process) -> str:
    return f"{process.pid}@{process.create_time():.2f}@{socket.gethostname()}"


def job_of(pid: int) -> str:
    """Return the job id of a process that was just started."""
    return _job_id(psutil.Process(pid))


def _processes(job: str) -> list[psutil.Process]:
    """Return a job's living processes: submitit's controller, or what it left behind when it was killed.

    Raises:
        UserError: it was started on another machine, so nothing can be said of it here.
        Damaged: it is no job of this cluster's.
    """
    try:
        pid, created, host = job.split("@", 2)
        number, start = int(pid), float(created)
        if number < 1:
            raise ValueError(pid)
    except ValueError:
        hint = "Restore the receipt that has it (submissions/*.receipt.json), or plan anew"
        raise Damaged(f"the job '{job}' is no PROCESS@START@HOST", hint=hint) from None
    _on_this_machine(host)
    controller = _alive(number)
    # A number that another process has by now is not it.
    if controller is not None and abs(controller.create_time() - start) < 0.1:
        return [controller]
    return [process for process in psutil.process_iter() if _belongs(process, pid, start)]


def _alive(pid: int) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _belongs(process: psutil.Process, controller: str, created: float) -> bool:
    """Say whether a process was started by a controller; a task goes on when its controller is killed."""
    try:
        return (
            process.status() != psutil.STATUS_ZOMBIE
            and process.create_time() >= created
            and process.environ().get("SUBMITIT_LOCAL_JOB_ID") == controller
        )
    except psutil.Error:
        return False
