"""Driving: `advance` once, or again and again in the foreground until the sweep is at rest.

SLURM itself may drive it as well (`submit`); each way sees to it that the others find what they need.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from orchestrator.cluster.driver import own_driver_job
from orchestrator.cluster.interface import Cluster
from orchestrator.cluster.script import outside_of_job
from orchestrator.control import submit
from orchestrator.control.act import refresh_results
from orchestrator.control.advance import advance, affordable_facts, look
from orchestrator.control.cron import tables_with
from orchestrator.control.decide import DONE, RUNNING, Action, Decision, Limits, decide
from orchestrator.control.opened import Sweep
from orchestrator.control.rest import is_finished, note_end
from orchestrator.control.standing import Standing
from orchestrator.errors import Busy, ClusterUnavailable, Damaged, LeaseLost, SubmissionRefused, UserError
from orchestrator.sweep import lease
from orchestrator.sweep.files import write_json

LOCAL_POLL_SECONDS, SLURM_POLL_SECONDS = 0.5, 2.0
LEAST_POLL_SECONDS = 0.1
# A job that drives the sweep asks a cluster that does not answer so often, and waits so long for another
# process to let go: long enough to see that one on another machine is dead.
DRIVER_POLL_SECONDS, DRIVER_PATIENCE_SECONDS = 15.0, 45.0
# How often `run` looks after the jobs that drive the sweep while nothing changes.
SETTLE_SECONDS = 30.0


def advance_once(sweep: Sweep, on_action: Callable[[Action], None]) -> Decision:
    """Take the steps that can be taken now and return.

    Raises:
        Busy: another process is advancing this sweep.
    """
    if is_finished(sweep.directory):
        return Decision(DONE)
    if own_driver_job(submit.driver_token(sweep.plan)):
        return _advance_as_driver(sweep, on_action)
    with outside_of_job():
        # Without room for a job that drives it the step may be taken all the same.
        with contextlib.suppress(SubmissionRefused):
            submit.secure(sweep)
        return _step(sweep, on_action, lambda owner: False)[0]


def _advance_as_driver(sweep: Sweep, on_action: Callable[[Action], None]) -> Decision:
    """Take a step in one of SLURM's jobs, which nobody calls again: what passes is waited for."""
    deadline = time.monotonic() + DRIVER_PATIENCE_SECONDS
    while True:
        try:
            with contextlib.suppress(SubmissionRefused):
                submit.secure(sweep)
            decision, settled = _step(sweep, on_action, lambda owner: time.monotonic() < deadline)
            if not settled:
                time.sleep(DRIVER_POLL_SECONDS)
                submit.go_on_here(sweep)
            return decision
        except ClusterUnavailable:
            time.sleep(DRIVER_POLL_SECONDS)


def _step(
    sweep: Sweep, on_action: Callable[[Action], None], wait: Callable[[lease.Owner], bool]
) -> tuple[Decision, bool]:
    """Take the steps of this moment; returns where the sweep stands, and whether the next step is seen to."""
    with lease.hold(sweep.directory.lease, "orchestrate advance", wait=wait) as held:
        with outside_of_job():
            decision = advance(sweep.directory, sweep.plan, sweep.config, sweep.cluster(), held, on_action)
        if decision.state == DONE:
            note_end(sweep.directory)
        return decision, submit.settle(sweep, decision)


def submit_once(sweep: Sweep, on_action: Callable[[Action], None]) -> Decision | None:
    """Hand a sweep to SLURM and take the first step; None when another process takes it just now.

    Raises:
        UserError: SLURM can't drive it, or refuses what it asks for; then it was not handed over.
    """
    if is_finished(sweep.directory):
        return Decision(DONE)
    with outside_of_job():
        submit.hand_over(sweep)
        try:
            return _step(sweep, on_action, lambda owner: False)[0]
        except Busy:
            return None
        except UserError:
            # What it is left with needs a person, who hands it over again.
            with contextlib.suppress(ClusterUnavailable):
                submit.end(sweep)
            raise


def run(
    sweep: Sweep,
    show: Callable[[Standing], None],
    on_action: Callable[[Action], None],
    on_note: Callable[[str], None],
) -> Decision:
    """Drive a sweep in the foreground until it is at rest.

    Another process may drive it at the same time: then this one watches, and takes over when that one stops.

    Args:
        sweep: what to drive.
        show: called with the standing at every look.
        on_action: called before every action.
        on_note: called with what a person should know (the cluster can't be asked, somebody else drives).
    """
    with outside_of_job():
        return _run(sweep, show, on_action, on_note)


def _run(
    sweep: Sweep,
    show: Callable[[Standing], None],
    on_action: Callable[[Action], None],
    on_note: Callable[[str], None],
) -> Decision:
    cluster = sweep.cluster()
    settled_at, acted_at = -SETTLE_SECONDS, time.monotonic()
    pause = LOCAL_POLL_SECONDS if sweep.config.slurm.executor == "local" else SLURM_POLL_SECONDS
    while True:
        try:
            with _following(sweep, cluster, show, on_note, pause) as held:
                while True:
                    decision = advance(sweep.directory, sweep.plan, sweep.config, cluster, held, on_action)
                    if decision.state == DONE:
                        note_end(sweep.directory)
                    resting = decision.state != RUNNING
                    if decision.actions or resting or time.monotonic() > settled_at + SETTLE_SECONDS:
                        submit.settle(sweep, decision)
                        settled_at = time.monotonic()
                    show(sweep.stand(decision))
                    if resting:
                        return decision
                    if decision.actions:
                        acted_at = time.monotonic()
                    time.sleep(_pause(time.monotonic() - acted_at, pause))
        except ClusterUnavailable as error:
            on_note(f"the cluster can't be asked just now, trying again: {error}")
            time.sleep(5 * pause)
        except LeaseLost as error:
            on_note(str(error))
        except Busy:
            # It came to rest while somebody else drove it.
            decision = look(sweep.directory, sweep.plan, sweep.config, cluster)
            show(sweep.stand(decision))
            return decision


def _pause(quiet: float, most: float) -> float:
    """Return how long to wait before the next look: short tasks are over soon, long ones are left in peace.

    Args:
        quiet: seconds since something was done.
        most: seconds that it grows to.
    """
    return min(most, max(LEAST_POLL_SECONDS, 0.2 * quiet))


@contextlib.contextmanager
def _following(
    sweep: Sweep,
    cluster: Cluster,
    show: Callable[[Standing], None],
    on_note: Callable[[str], None],
    pause: float,
) -> Iterator[lease.Lease]:
    """Hold the lease, and show where the sweep stands while another process has it."""
    told = False

    def wait(owner: lease.Owner) -> bool:
        nonlocal told
        if not told:
            on_note(f"{owner.describe()} is driving this sweep; watching until it stops")
            told = True
        decision = look(sweep.directory, sweep.plan, sweep.config, cluster)
        show(sweep.stand(decision))
        return decision.state == RUNNING

    with lease.hold(sweep.directory.lease, "orchestrate run", wait=wait, poll_seconds=pause) as held:
        yield held


def cancel(sweep: Sweep, on_action: Callable[[Action], None], patience_seconds: float = 60.0) -> Decision:
    """Stop everything the sweep has started.

    The wish is written down first, so a process that drives the sweep stops by itself and lets go.

    Raises:
        Busy: that process does not let go.
    """
    write_json(sweep.directory.cancelled, {"time": time.time()})
    deadline = time.monotonic() + patience_seconds
    with (
        outside_of_job(),
        lease.hold(
            sweep.directory.lease, "orchestrate cancel", wait=lambda owner: time.monotonic() < deadline
        ) as held,
    ):
        cluster = sweep.cluster()
        while True:
            submit.end(sweep)
            decision = advance(sweep.directory, sweep.plan, sweep.config, cluster, held, on_action)
            if not decision.actions or time.monotonic() > deadline:
                return decision
            time.sleep(LOCAL_POLL_SECONDS)


def observe(sweep: Sweep) -> Standing:
    """Say where a sweep stands at this moment, as far as can be seen from here; writes nothing."""
    try:
        decision = look(sweep.directory, sweep.plan, sweep.config, sweep.cluster())
    except Damaged:
        raise
    except (ClusterUnavailable, UserError) as error:
        # The directory still says most of it, also on a laptop without SLURM's commands.
        limits = Limits(attempts=sweep.config.slurm.attempts)
        facts = affordable_facts(sweep.directory, sweep.plan, sweep.config)
        decision = decide(facts, {}, limits)
        decision = replace(decision, message=f"{decision.message or 'the cluster was not asked'}: {error}")
    return sweep.stand(decision)


def owner(sweep: Sweep) -> str | None:
    """Say which process, job or table of cron's drives a sweep, if any."""
    holder = lease.current_owner(sweep.directory.lease)
    by = [holder.describe()] if holder else []
    if by_slurm := submit.driver(sweep):
        by.append(by_slurm)
    # A cron of another machine can't be seen from here.
    by += [f"cron ({table})" for table in tables_with(sweep.directory.path)] if not by else []
    return "; ".join(by) or None


def refresh(sweep: Sweep) -> None:
    """Bring the Parquet results and the report up to date; safe beside a process that drives the sweep."""
    refresh_results(sweep.directory, sweep.plan, sweep.config)
