"""Handing a sweep to SLURM: a chain of small jobs, each of which takes one step and sees to the next one.

`driven-by-slurm.json` in the sweep's directory says that it was handed over. From then on whoever takes a
step (such a job, `orchestrate run`, cron) leaves behind one job that waits for what the step started
(`settle`). A job of the chain submits its successor before it does anything else (`secure`), so the chain
outlives its death at any line, and a cluster that has no room for another job later. `settle` then lets that
successor wait for the right arrays. Two of them are harmless: a step is taken by one process at a time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator.cluster.driver import (
    DriverJob,
    Wake,
    change_driver,
    driver_jobs,
    end_drivers,
    own_driver_job,
    requeue_driver,
    send_driver,
)
from orchestrator.control.decide import RUNNING, Decision, in_question
from orchestrator.control.opened import Sweep
from orchestrator.errors import ClusterUnavailable, SubmissionRefused, UserError
from orchestrator.planning.plan import Plan
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import Facts, read_facts
from orchestrator.sweep.files import write_json

# A successor that nobody gave anything to wait for starts after this long, and twice as long each time that
# its predecessor could not take its step either.
SAFETY_SECONDS, MOST_SAFETY_SECONDS = 300, 6 * 3600
# How long until the next look when there is nothing to wait for (the cluster is full) or a wait was in vain.
SOON_SECONDS = 60
# A driver that is woken by any task's end is told of so many tasks.
MOST_TASKS = 50
_SAFETY, _SOON, _AFTER, _ANY = "safety", "soon", "after", "any of"


def handed_over(directory: SweepDirectory) -> bool:
    """Say whether SLURM shall drive the sweep."""
    return _wish(directory).exists()


def hand_over(sweep: Sweep) -> None:
    """Write down that SLURM shall drive the sweep, and submit the first job of the chain.

    Raises:
        UserError: there is no SLURM, or it refuses the job.
        ClusterUnavailable: SLURM gives no answer.
    """
    if sweep.config.slurm.executor != "slurm":
        raise UserError(
            "runs on this machine, where no cluster can drive it",
            file=sweep.directory.config,
            key="slurm.executor",
            hint=f"Run it here: orchestrate run {os.path.relpath(sweep.directory.path)}; "
            "or plan it for a cluster: slurm=gpu",
        )
    sweep.cluster()
    write_json(_wish(sweep.directory), {"time": time.time()})
    try:
        secure(sweep)
    except SubmissionRefused as refusal:
        _wish(sweep.directory).unlink(missing_ok=True)
        raise UserError(
            f"the cluster refused the job that drives the sweep: {refusal}",
            file=sweep.directory.config,
            key="slurm.driver",
            hint="Say there what it shall ask for instead, such as {partition: cpu}",
        ) from None


def secure(sweep: Sweep) -> None:
    """See to it that a job waits which goes on should this process die. Needs no lease.

    Raises:
        SubmissionRefused: SLURM takes no such job.
        ClusterUnavailable: SLURM gives no answer.
    """
    if not handed_over(sweep.directory):
        return
    token = driver_token(sweep.plan)
    found, own = driver_jobs(token), own_driver_job(token)
    if any(job.waits and job.job != own for job in found):
        return
    before = next((job.wake for job in found if job.job == own), "")
    tries = int(before.removeprefix(_SAFETY)) + 1 if before.startswith(_SAFETY) else 0
    seconds = min(SAFETY_SECONDS * 2**tries, MOST_SAFETY_SECONDS)
    _send(sweep, Wake(f"{_SAFETY} {tries}", (own,) if own else (), seconds))


def settle(sweep: Sweep, decision: Decision) -> bool:
    """Let exactly one job wait for what the sweep waits for, or none where it has come to rest.

    The caller holds the lease.

    Returns:
        False when SLURM gave no answer or took no job more, so that perhaps none waits.
    """
    if not handed_over(sweep.directory):
        return True
    try:
        if decision.state == RUNNING:
            _let_one_wait(sweep, decision)
        else:
            end(sweep)
    except (ClusterUnavailable, SubmissionRefused):
        return False
    return True


def go_on_here(sweep: Sweep) -> None:
    """Let the job that this process runs in start again later, where it could leave no other one behind.

    Raises:
        ClusterUnavailable: SLURM gives no answer.
    """
    requeue_driver(own_driver_job(driver_token(sweep.plan)))


def end(sweep: Sweep) -> None:
    """End the chain; a job of it that runs this very code takes its step to the end.

    Raises:
        ClusterUnavailable: SLURM gives no answer; what it still holds finds nothing to do and ends by itself.
    """
    _wish(sweep.directory).unlink(missing_ok=True)
    if sweep.config.slurm.executor != "slurm":
        return
    token = driver_token(sweep.plan)
    own = own_driver_job(token)
    if others := [job.job for job in driver_jobs(token) if job.job != own]:
        end_drivers(token, others)


def driver(sweep: Sweep) -> str | None:
    """Say in words which job drives the sweep, or what hinders it; None where SLURM does not drive it."""
    if not handed_over(sweep.directory):
        return None
    try:
        found = driver_jobs(driver_token(sweep.plan))
    except ClusterUnavailable:
        return "SLURM, which can't be asked just now"
    if not found:
        return None
    return f"SLURM: {_describe(next((job for job in found if not job.waits), found[0]))}"


def driver_token(plan: Plan) -> str:
    """Return the name of the jobs that drive a sweep."""
    return f"{plan.name.replace(' ', '_')}-driver-{plan.uid}"


def driver_log(directory: SweepDirectory) -> Path:
    """Return the file in which these jobs say what they did."""
    return directory.logs / "driver.log"


def _wish(directory: SweepDirectory) -> Path:
    return directory.path / "driven-by-slurm.json"


def _send(sweep: Sweep, wake: Wake) -> str:
    path = sweep.directory.path
    return send_driver(driver_token(sweep.plan), wake, sweep.config.slurm, path, driver_log(sweep.directory))


def _let_one_wait(sweep: Sweep, decision: Decision) -> None:
    token = driver_token(sweep.plan)
    own = own_driver_job(token)
    facts = read_facts(sweep.directory, sweep.plan)
    # Woken, and found nothing to do: it must not wake at once again.
    idle = bool(own) and not decision.actions
    wake = _wake(facts, sweep.config.slurm.attempts, SOON_SECONDS if idle else 0)
    waiting = [job for job in driver_jobs(token) if job.waits and job.job != own]
    kept = next((job for job in waiting if job.wake == wake.wake), waiting[0] if waiting else None)
    if kept is None:
        _send(sweep, wake)
    elif kept.wake != wake.wake:
        change_driver(kept.job, wake)
    if surplus := [job.job for job in waiting if job != kept]:
        end_drivers(token, surplus)


def _wake(facts: Facts, attempts: int, least_seconds: int) -> Wake:
    """Work out when the next step may be due."""
    pairs = [(known, *pair) for known in facts.phases for pair in in_question(known)]
    jobs = [submission.receipt.jobs[index] for _, submission, index in pairs if submission.receipt]
    unclear = any(s.receipt is None and not s.abandoned for known in facts.phases for s in known.submissions)
    if not jobs or unclear:
        return Wake(_SOON, seconds=SOON_SECONDS)
    if _may_go_on_early(facts, attempts):
        # At the end of any task, but not at each when they come in a row.
        some = tuple(jobs[:MOST_TASKS])
        return Wake(f"{_ANY} {len(jobs)} tasks from {some[0]}", some, SOON_SECONDS)
    arrays = tuple(dict.fromkeys(job.split("_")[0] for job in jobs))
    return Wake(f"{_AFTER} {' '.join(arrays)}", arrays, least_seconds)


def _may_go_on_early(facts: Facts, attempts: int) -> bool:
    """Say whether there is something to do before all that runs has ended."""
    begun = [known for known in facts.phases if known.frozen]
    if begun and begun[-1].phase.close < 1:
        return True
    for known in begun:
        sent = {trial for submission, index in in_question(known) for trial in submission.intent.tasks[index]}
        given_up = known.given_up(attempts)
        for spec in known.trials:
            trial = spec.trial_id
            if trial not in sent and trial not in known.outcomes and trial not in given_up:
                return True
    return False


def _describe(job: DriverJob) -> str:
    if not job.waits:
        return f"job {job.job} takes the next step"
    if job.reason not in ("", "Dependency", "BeginTime", "Priority", "Resources", "None"):
        return f"job {job.job} waits ({job.reason})"
    kind, _, jobs = job.wake.partition(" ")
    if kind == _AFTER:
        arrays = jobs.split()
        return f"job {job.job} waits for array{'s' if len(arrays) > 1 else ''} {', '.join(arrays)}"
    if job.wake.startswith(_ANY):
        return f"job {job.job} waits for any of {job.wake.removeprefix(_ANY).split()[0]} tasks"
    when = f" at {job.start.replace('T', ' ')}" if job.start not in ("", "N/A") else ""
    return f"job {job.job} looks again{when}"
