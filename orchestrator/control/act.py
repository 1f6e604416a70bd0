"""Acting: each action of a decision, done once and written down. Thin; what to do was decided elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.cluster.interface import MEMORY, NODE, PREEMPTED, TIME_LIMIT, Cluster, Request
from orchestrator.control.decide import (
    Action,
    CheckJob,
    Compact,
    Freeze,
    MarkLost,
    Reconcile,
    Stop,
    Submit,
)
from orchestrator.control.draw import freeze
from orchestrator.control.memory import with_larger_requests
from orchestrator.errors import LeaseLost, SubmissionRefused, UserError
from orchestrator.planning.plan import Phase, Plan
from orchestrator.schema import SweepConfig, larger, processes
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import checked_path, compacted_path, read_facts
from orchestrator.sweep.files import write_json
from orchestrator.sweep.lease import Lease
from orchestrator.sweep.submissions import (
    Intent,
    Loss,
    Refusal,
    Submission,
    is_abandoned,
    read_submissions,
    write_abandoned,
    write_intent,
    write_loss,
    write_receipt,
)
from orchestrator.worker.task import tasks_of

# Of a task's log, enough to say how it ended.
LOG_BYTES = 4000
_OUT_OF_MEMORY = re.compile("slurmstepd.*(exceeded.*memory limit|oom.?kill)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Where actions happen: one sweep, its cluster, and the lease that allows writing."""

    directory: SweepDirectory
    plan: Plan
    config: SweepConfig
    cluster: Cluster
    lease: Lease


def perform(action: Action, scene: Scene) -> bool:
    """Do one action.

    Returns:
        Whether it may have made room for further ones at once, without waiting for the cluster.

    Raises:
        LeaseLost: another process took the sweep over.
        UserError: the job can't be imported, or the cluster refuses the request as it is.
        ClusterUnavailable: the cluster can't be asked just now.
    """
    scene.lease.confirm()
    match action:
        case CheckJob():
            _check_job(scene)
        case Freeze(phase, wave):
            freeze(scene.directory, scene.plan, scene.config, phase, wave)
        case Submit():
            return not _submit(scene, action)
        case Reconcile(phase, submission):
            _reconcile(scene, phase, submission)
        case MarkLost():
            _mark_lost(scene, action)
        case Stop(_, jobs):
            scene.cluster.cancel(jobs)
        case Compact(rows):
            _compact(scene, rows)
    return isinstance(action, CheckJob | Freeze | MarkLost)


def _check_job(scene: Scene) -> None:
    command = [sys.executable, "-m", "orchestrator.worker.job", str(scene.directory.path.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        detail = "\n".join(lines[-12:-1])
        raise UserError(
            (lines[-1] if lines else f"exit status {done.returncode}") + (f"\n{detail}" if detail else ""),
            file=scene.directory.config,
        )
    write_json(checked_path(scene.directory), {"time": time.time(), "host": socket.gethostname()})


def _submit(scene: Scene, action: Submit) -> bool:
    """Submit one array, between an intent and a receipt; False when the cluster has no room for it."""
    phase, number = action.phase, action.number
    folder = scene.directory.phase(phase.kind, phase.name).submissions
    token = f"{scene.plan.name.replace(' ', '_')}-{phase.name}-{scene.plan.uid}-{number:04d}"
    intent = Intent(
        number=number, token=token, tasks=action.tasks, created=time.time(), host=socket.gethostname(),
        larger=action.larger,
    )  # fmt: skip
    if not write_intent(folder, intent):
        return True
    config = scene.config
    if action.larger:
        config = replace(config, slurm=larger(config.slurm))
    request = Request(
        intent=intent,
        tasks=tasks_of(scene.directory.path, phase.kind, phase.name, intent),
        resources=config.slurm,
        logs=scene.directory.logs / token,
        processes=processes(config, phase.kind),
    )
    try:
        receipt = scene.cluster.submit(request)
    except SubmissionRefused as refusal:
        gone = Refusal(str(refusal), time.time(), refused=True, full=refusal.later)
        write_abandoned(folder, number, gone)
        shutil.rmtree(request.logs, ignore_errors=True)
        if refusal.later:
            return False
        raise UserError(
            f"the cluster refused the job: {refusal}",
            file=scene.directory.config,
            key="slurm",
            hint=f"Nothing is lost: change it, then orchestrate run {os.path.relpath(scene.directory.path)}",
        ) from None
    if is_abandoned(folder, number):
        # This process was taken for dead in between. What it submitted ends by itself; this ends it sooner.
        scene.cluster.cancel(receipt.jobs)
        raise LeaseLost(f"another process took over {scene.directory.path} while this one was stalled")
    write_receipt(folder, number, receipt)
    return True


def _reconcile(scene: Scene, phase: Phase, submission: Submission) -> None:
    """Settle an intent without a receipt by its token: taken over, cancelled, or certain to be nothing."""
    folder = scene.directory.phase(phase.kind, phase.name).submissions
    logs = scene.directory.logs / submission.intent.token
    if receipt := scene.cluster.adopt(submission.intent, logs):
        write_receipt(folder, submission.number, receipt)
        return
    alive = scene.cluster.find(submission.intent, logs)
    if any(s.number == submission.number and s.receipt for s in read_submissions(folder)):
        return  # the launcher finished in the meantime
    if alive:
        # Part of it is there and can't be used; only when it is gone may its trials run again.
        scene.cluster.cancel(alive)
    else:
        gone = Refusal("its submission was interrupted; nothing of it is left", time.time())
        write_abandoned(folder, submission.number, gone)


def _mark_lost(scene: Scene, action: MarkLost) -> None:
    log = _end_of_log(scene, action.submission, action.task)
    # Where SLURM does without cgroups it kills for memory too, and tells of it in the log alone.
    cause = MEMORY if _OUT_OF_MEMORY.search(log) else action.cause
    last = log.strip().rpartition("\n")[2].strip()
    reason = f"{action.reason}: {last}" if last and not action.begun else action.reason
    loss = Loss(reason=reason, blamed=_blamed(action.left, action.begun, cause), cause=cause)
    folder = scene.directory.phase(action.phase.kind, action.phase.name).submissions
    write_loss(folder, action.submission.number, action.task, loss)


def _blamed(left: tuple[str, ...], begun: frozenset[str], cause: str) -> tuple[str, ...]:
    """Return the trials that a task's end counts against."""
    if not begun:
        # None of them began, so the task itself can't run, unless the cluster wanted its place.
        return () if cause in (PREEMPTED, NODE) else left
    # The worker itself ends what gets no further from one time limit to the next.
    return () if cause in (PREEMPTED, TIME_LIMIT) else tuple(trial for trial in left if trial in begun)


def _end_of_log(scene: Scene, submission: Submission, task: int) -> str:
    """Return the end of a task's log; empty where there is none (any more)."""
    assert submission.receipt is not None, "a task that was lost had been submitted"
    job = submission.receipt.jobs[task].partition("@")[0]
    paths = (scene.directory.logs / submission.intent.token).glob(f"{job}_*_log.*")
    return "\n".join(_end_of(path) for path in sorted(paths))


def _end_of(log: Path) -> str:
    with open(log, "rb") as file:
        # A log may have grown to gigabytes.
        file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
        return file.read().decode(errors="replace")


def _compact(scene: Scene, rows: int) -> None:
    refresh_results(scene.directory, scene.plan, scene.config)
    write_json(compacted_path(scene.directory), {"rows": rows, "time": time.time()})


def refresh_results(directory: SweepDirectory, plan: Plan, config: SweepConfig) -> None:
    """Bring the Parquet results and the report up to date with the records."""
    from orchestrator.report.html import write_report

    compact_results(directory, plan, config)
    write_report(directory.path)


def compact_results(
    directory: SweepDirectory, plan: Plan, config: SweepConfig, dask: str | None = None
) -> None:
    """Bring the Parquet results up to date with the records; see `compact_sweep`."""
    from orchestrator.control.compacting import compact_sweep

    given_up: dict[str, str] = {}
    for known in with_larger_requests(read_facts(directory, plan), config.slurm).phases:
        given_up.update(known.given_up(config.slurm.attempts))
    compact_sweep(directory, plan, config, given_up, dask)
