"""Acting: each action of a decision, done once and written down. Thin; what to do was decided elsewhere."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from orchestrator.cluster.interface import Cluster, Request
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
from orchestrator.errors import SubmissionRefused, UserError
from orchestrator.planning.plan import Phase, Plan
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import checked_path, compacted_path, read_facts, read_phase
from orchestrator.sweep.files import write_json
from orchestrator.sweep.lease import Lease
from orchestrator.sweep.submissions import (
    Intent,
    Loss,
    Refusal,
    Submission,
    read_submissions,
    write_abandoned,
    write_intent,
    write_loss,
    write_receipt,
)
from orchestrator.worker.task import tasks_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Where actions happen: one sweep, its cluster, and the lease that allows writing."""

    directory: SweepDirectory
    plan: Plan
    config: SweepConfig
    cluster: Cluster
    lease: Lease


def perform(action: Action, scene: Scene) -> None:
    """Do one action.

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
        case Submit(phase, tasks):
            _submit(scene, phase, tasks)
        case Reconcile(phase, submission):
            _reconcile(scene, phase, submission)
        case MarkLost(phase, submission, task, reason):
            _mark_lost(scene, phase, submission, task, reason)
        case Stop(_, jobs):
            scene.cluster.cancel(jobs)
        case Compact(rows):
            _compact(scene, rows)


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


def _submit(scene: Scene, phase: Phase, tasks: tuple[tuple[str, ...], ...]) -> None:
    folder = scene.directory.phase(phase.kind, phase.name).submissions
    number = max((s.number for s in read_submissions(folder)), default=0) + 1
    token = f"{scene.plan.name.replace(' ', '_')}-{phase.name}-{scene.plan.uid}-{number:04d}"
    intent = Intent(number=number, token=token, tasks=tasks, created=time.time(), host=socket.gethostname())
    if not write_intent(folder, intent):
        return
    request = Request(
        intent=intent,
        tasks=tasks_of(scene.directory.path, phase.kind, phase.name, intent),
        resources=scene.config.slurm,
        logs=scene.directory.logs / token,
    )
    try:
        receipt = scene.cluster.submit(request)
    except SubmissionRefused as refusal:
        write_abandoned(folder, number, Refusal(str(refusal), time.time(), refusal.later))
        raise UserError(
            f"the cluster refused the job: {refusal}",
            file=scene.directory.config,
            key="slurm",
            hint=f"Nothing is lost: change it, then orchestrate run {os.path.relpath(scene.directory.path)}",
        ) from None
    write_receipt(folder, number, receipt)


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


def _mark_lost(scene: Scene, phase: Phase, submission: Submission, task: int, reason: str) -> None:
    # The task may have written its last lines between the reading of the records and of the queue.
    known = read_phase(scene.directory, phase)
    left = [trial for trial in submission.intent.tasks[task] if trial not in known.outcomes]
    if not left:
        return
    started = known.started.get((submission.number, task), frozenset())
    # A trial that never began is not to blame; when none began, the task itself can't run.
    blamed = [trial for trial in left if trial in started] or ([] if started else left)
    folder = scene.directory.phase(phase.kind, phase.name).submissions
    write_loss(folder, submission.number, task, Loss(reason=reason, blamed=tuple(blamed)))


def _compact(scene: Scene, rows: int) -> None:
    refresh_results(scene.directory, scene.plan, scene.config)
    write_json(compacted_path(scene.directory), {"rows": rows})


def refresh_results(directory: SweepDirectory, plan: Plan, config: SweepConfig) -> None:
    """Bring the Parquet results and the report up to date with the records."""
    from orchestrator.report.html import write_report
    from orchestrator.results.compact import compact

    given_up: dict[str, str] = {}
    for known in read_facts(directory, plan).phases:
        given_up.update(known.given_up(config.slurm.attempts))
    compact(directory.path, given_up=given_up)
    write_report(directory.path)
