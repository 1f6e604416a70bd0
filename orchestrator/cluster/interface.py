"""What every cluster does, whether it is SLURM, this machine or a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.schema import Processes, SlurmConfig
from orchestrator.sweep.submissions import Intent, Receipt
from orchestrator.worker.task import Task

PENDING, ACTIVE, ENDED = "pending", "active", "ended"
ALIVE = (PENDING, ACTIVE)

# What ended a task, as far as the cluster tells; UNTOLD where accounting is off, late or pruned.
UNTOLD, COMPLETED, FAILED, MEMORY, TIME_LIMIT, NODE, PREEMPTED, BY_HAND = CAUSES = (
    "", "completed", "failed", "memory", "time limit", "node", "preempted", "by hand",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What the cluster says of one task.

    Attributes:
        state: pending, active or ended.
        reason: why it is pending, or how it ended, in the cluster's own words.
        cause: of an end, one of `CAUSES`.
        stuck: pending for a reason that does not clear by itself (held, a request that no node can meet).
    """

    state: str
    reason: str = ""
    cause: str = UNTOLD
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a cluster takes of one sweep; None where there is no limit, or none that can be read.

    Attributes:
        tasks: in the queue or running at once.
        array: tasks in one submission.
    """

    tasks: int | None = None
    array: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One submission: its tasks, what each is given, its processes, and where submitit's files go."""

    intent: Intent
    tasks: Sequence[Task]
    resources: SlurmConfig
    logs: Path
    # of one task; None: one
    processes: Processes | None = None


class Cluster(Protocol):
    """One way to run tasks.

    A job id names one task. `submit` is called at most once for an intent; when it is interrupted, `find`
    with the intent's token tells whether anything of it is, or may still come, on the cluster.
    """

    def capacity(self) -> Capacity:
        """Return what the cluster takes; what it does not tell is learned when it refuses."""

    def submit(self, request: Request) -> Receipt:
        """Submit all tasks of a request.

        Raises:
            SubmissionRefused: the cluster certainly took nothing of it; `later` when it is only full.
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
