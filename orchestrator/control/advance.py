"""Advancing: read the facts, ask the cluster, decide, act; again until there is nothing left to do now."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from orchestrator.cluster.interface import Cluster, TaskStatus
from orchestrator.control.act import Scene, perform
from orchestrator.control.decide import (
    Action,
    Decision,
    Limits,
    TaskKey,
    decide,
    in_question,
)
from orchestrator.control.memory import with_larger_requests
from orchestrator.planning.cost import Price
from orchestrator.planning.plan import Plan
from orchestrator.planning.reprice import within_budget
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import Facts, read_facts, remember
from orchestrator.sweep.lease import Lease

# A decision that still finds work after so many rounds is left to the next call.
MOST_ROUNDS = 50


def advance(
    directory: SweepDirectory,
    plan: Plan,
    config: SweepConfig,
    cluster: Cluster,
    lease: Lease,
    on_action: Callable[[Action], None] = lambda action: None,
) -> Decision:
    """Take every step that can be taken now.

    Args:
        directory, plan, config: the sweep.
        cluster: where it runs.
        lease: held by the caller.
        on_action: called before each action, for progress.

    Returns:
        The last decision: where the sweep stands.
    """
    scene = Scene(directory=directory, plan=plan, config=config, cluster=cluster, lease=lease)
    for _ in range(MOST_ROUNDS):
        decision = look(directory, plan, config, cluster)
        remember(directory, plan)
        again = False
        for action in decision.actions:
            on_action(action)
            again |= perform(action, scene)
        # What was submitted or cancelled takes the cluster a while: the next call looks at it again.
        if not again:
            return decision
    return decision


def look(directory: SweepDirectory, plan: Plan, config: SweepConfig, cluster: Cluster) -> Decision:
    """Decide from the facts of this moment; writes nothing."""
    before = affordable_facts(directory, plan, config)
    tasks = ask(before, cluster)
    # Records are read again after the queue: a task that has ended has written all that it will.
    facts = affordable_facts(directory, plan, config) if tasks else before
    limits = Limits(attempts=config.slurm.attempts, capacity=cluster.capacity(), now=time.time())
    return decide(facts, tasks, limits)


def affordable_facts(directory: SweepDirectory, plan: Plan, config: SweepConfig) -> Facts:
    """Read all facts, with the plan as its budget pays for it now."""
    facts = with_larger_requests(read_facts(directory, plan), config.slurm)
    return within_budget(facts, Price.of(config), os.path.relpath(directory.path))


def ask(facts: Facts, cluster: Cluster) -> dict[TaskKey, TaskStatus]:
    """Ask the cluster for the state of every task in question."""
    jobs: dict[TaskKey, str] = {}
    for known in facts.phases:
        for submission, index in in_question(known):
            assert submission.receipt is not None, "only submissions with a receipt are in question"
            jobs[known.phase.name, submission.number, index] = submission.receipt.jobs[index]
    states = cluster.poll(list(jobs.values())) if jobs else {}
    return {key: states[job] for key, job in jobs.items()}
