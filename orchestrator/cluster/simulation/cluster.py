"""The simulated cluster as one process sees it: the commands it can give, each of which may go wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.cluster.interface import ALIVE, ENDED, Capacity, Request, TaskStatus
from orchestrator.cluster.simulation.machine import Machine
from orchestrator.sweep.submissions import Intent, Receipt

# A submission from another machine may still be under way for so long, as on the real cluster.
SENDING_SECONDS = 120.0


class SimulatedCluster:
    """A cluster's commands, given from one machine.

    Args:
        machine: the cluster.
        host: where the commands are given.
        clock: seconds since the epoch by that host's clock; default: the cluster's own.
        at: called with the name of each step of a command. What it raises is what the caller meets there, so
            a reply can be lost and a caller can die between any two steps.
        tells: the cluster's limits can be read; otherwise they show only in what it refuses.
    """

    def __init__(
        self,
        machine: Machine,
        host: str = "simulated",
        clock: Callable[[], float] | None = None,
        at: Callable[[str], None] = lambda step: None,
        tells: bool = True,
    ) -> None:
        self._machine, self._host, self._at, self._tells = machine, host, at, tells
        self._clock = clock or (lambda: machine.now)

    def capacity(self) -> Capacity:
        """Return the site's limits, where they can be read."""
        site = self._machine.site
        return Capacity(tasks=site.tasks, array=site.array) if self._tells else Capacity()

    def submit(self, request: Request) -> Receipt:
        """Send an array, then each task's payload; see `Cluster.submit`."""
        token, machine = request.intent.token, self._machine
        self._at("sbatch")
        machine.sending[token] = self._host
        try:
            jobs = machine.accept(
                token,
                len(request.tasks),
                throttle=request.resources.tasks_at_once,
                limit=60.0 * request.resources.timeout_min,
            )
            self._at("sbatch's answer")
        finally:
            machine.sending.pop(token, None)
        for job, task in zip(jobs, request.tasks, strict=True):
            self._at("payload")
            machine.deliver(job, task)
        self._at("payloads there")
        return Receipt(jobs=tuple(jobs), host=self._host)

    def find(self, intent: Intent, logs: Path) -> tuple[str, ...]:
        """Return the live jobs of a token, or a word for a submission that may be under way."""
        self._at("find")
        if intent.host == self._host:
            if intent.token in self._machine.sending:
                return ("under way",)
        elif self._clock() - intent.created < SENDING_SECONDS:
            return ("perhaps under way",)
        listed = self._machine.listed(intent.token)
        return tuple(job for job, status in listed.items() if status.state in ALIVE)

    def adopt(self, intent: Intent, logs: Path) -> Receipt | None:
        """Return a receipt when every task of the array has its payload."""
        self._at("adopt")
        jobs = list(self._machine.listed(intent.token))
        whole = all(self._machine.jobs[job].payload is not None for job in jobs)
        if len(jobs) != len(intent.tasks) or not whole:
            return None
        return Receipt(jobs=tuple(jobs), host=self._host)

    def poll(self, jobs: Sequence[str]) -> Mapping[str, TaskStatus]:
        """Return each job's state: from the queue for what it lists, from accounting for the others."""
        self._at("squeue")
        listed = self._machine.listed()
        states = {job: listed[job] for job in jobs if job in listed}
        if len(states) < len(jobs):
            self._at("sacct")
        gone = TaskStatus(ENDED, "no longer known to the cluster")
        return {job: states.get(job) or self._machine.accounted(job) or gone for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs; see `Cluster.cancel`."""
        for job in jobs:
            self._at("scancel")
            self._machine.cancel(job)
