"""What every cluster does, whether it is SLURM, this machine or a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.schema import SlurmConfig
from orchestrator.sweep.submissions import Intent, Receipt
from orchestrator.worker.task import Task

PENDING, ACTIVE, ENDED = "pending", "active", "ended"
ALIVE = (PENDING, ACTIVE)


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What the cluster says of one task. `reason` says why it is pending, or how it ended."""

    state: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One submission: its tasks, what each is given, and where submitit's files go."""

    intent: Intent
    tasks: Sequence[Task]
    resources: SlurmConfig
    logs: Path


class Cluster(Protocol):
    """One way to run tasks.

    A job id names one task. `submit` is called at most once for an intent; when it is interrupted, `find`
    with the intent's token tells whether anything of it is, or may still come, on the cluster.
    """

    # how many tasks may be submitted at once; None when the cluster queues any number
    slots: int | None

    def submit(self, request: Request) -> Receipt:
        """Submit all tasks of a request.

        Raises:
            SubmissionRefused: the cluster certainly took nothing of it.
            Exception: anything else leaves it open whether the cluster took it.
        """

    def find(self, intent: Intent, logs: Path) -> tuple[str, ...]:
        """Return the live jobs (or submissions under way) that carry an intent's token."""

    def adopt(self, intent: Intent, logs: Path) -> Receipt | None:
        """Return a receipt for an intent whose tasks are whole on the cluster, None when they are not."""

    def poll(self, jobs: Sequence[str]) -> Mapping[str, TaskStatus]:
        """Return the state of each job.

        Raises:
            ClusterUnavailable: the cluster can't be asked just now.
        """

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs; those that have ended already are passed over."""
