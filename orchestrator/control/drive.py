"""Driving: `advance` once, or again and again in the foreground until the sweep is at rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from orchestrator.cluster.interface import Cluster
from orchestrator.cluster.select import open_cluster
from orchestrator.config import load_frozen
from orchestrator.control.act import refresh_results
from orchestrator.control.advance import advance, affordable_facts, look
from orchestrator.control.decide import RUNNING, Action, Decision, Limits, decide
from orchestrator.control.standing import Standing, standing
from orchestrator.errors import Busy, ClusterUnavailable, LeaseLost, UserError
from orchestrator.planning.cost import Price
from orchestrator.planning.plan import Plan
from orchestrator.schema import SweepConfig, trials_at_once
from orchestrator.sweep import lease
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import read_plan
from orchestrator.sweep.files import write_json

LOCAL_POLL_SECONDS, SLURM_POLL_SECONDS = 0.5, 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A planned sweep, opened for driving."""

    directory: SweepDirectory
    plan: Plan
    config: SweepConfig

    def cluster(self) -> Cluster:
        """Open the sweep's cluster."""
        return open_cluster(self.config.slurm)

    def stand(self, decision: Decision) -> Standing:
        """Say where the sweep stands."""
        return standing(
            affordable_facts(self.directory, self.plan, self.config),
            decision,
            self.config.slurm.attempts,
            trials_at_once(self.config.slurm),
            Price.of(self.config).share,
        )


def open_sweep(directory: SweepDirectory) -> Sweep:
    """Open a sweep that was planned before.

    Raises:
        UserError: the folder is no sweep's.
    """
    return Sweep(directory=directory, plan=read_plan(directory), config=load_frozen(directory.config))


def advance_once(sweep: Sweep, on_action: Callable[[Action], None]) -> Decision:
    """Take the steps that can be taken now and return.

    Raises:
        Busy: another process is advancing this sweep.
    """
    with lease.hold(sweep.directory.lease, "orchestrate advance") as held:
        return advance(sweep.directory, sweep.plan, sweep.config, sweep.cluster(), held, on_action)


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
    cluster = sweep.cluster()
    pause = LOCAL_POLL_SECONDS if sweep.config.slurm.executor == "local" else SLURM_POLL_SECONDS
    while True:
        try:
            with _following(sweep, cluster, show, on_note, pause) as held:
                while True:
                    decision = advance(sweep.directory, sweep.plan, sweep.config, cluster, held, on_action)
                    show(sweep.stand(decision))
                    if decision.state != RUNNING:
                        return decision
                    time.sleep(pause)
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


@contextmanager
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
    with lease.hold(
        sweep.directory.lease, "orchestrate cancel", wait=lambda owner: time.monotonic() < deadline
    ) as held:
        cluster = sweep.cluster()
        while True:
            decision = advance(sweep.directory, sweep.plan, sweep.config, cluster, held, on_action)
            if not decision.actions or time.monotonic() > deadline:
                return decision
            time.sleep(LOCAL_POLL_SECONDS)


def observe(sweep: Sweep) -> Standing:
    """Say where a sweep stands at this moment, as far as can be seen from here; writes nothing."""
    try:
        decision = look(sweep.directory, sweep.plan, sweep.config, sweep.cluster())
    except (ClusterUnavailable, UserError) as error:
        # The directory still says most of it, also on a laptop without SLURM's commands.
        limits = Limits(attempts=sweep.config.slurm.attempts)
        facts = affordable_facts(sweep.directory, sweep.plan, sweep.config)
        decision = decide(facts, {}, limits)
        decision = replace(decision, message=f"{decision.message or 'the cluster was not asked'}: {error}")
    return sweep.stand(decision)


def owner(sweep: Sweep) -> str | None:
    """Say which process drives a sweep, if any."""
    holder = lease.current_owner(sweep.directory.lease)
    return holder.describe() if holder else None


def refresh(sweep: Sweep) -> None:
    """Bring the Parquet results and the report up to date; safe beside a process that drives the sweep."""
    refresh_results(sweep.directory, sweep.plan, sweep.config)
