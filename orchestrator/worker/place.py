"""Where a task's process stands among those that train one trial together.

submitit starts the same task in each process of a job. The one of rank 0 leads: it runs the trials and writes
their records (`peers`); the others follow it (`follower`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A process among those of its job.

    Attributes:
        rank: its number among all of them.
        count: of all of them.
        local_rank: its number among those of its node, and that of its GPU.
        local_count: of those of its node.
        leg: of which run of which job: a job that is put back into the queue begins another one.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    leg: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What the training function is told of it, by torchrun's names; nothing where it is alone."""
        if self.count == 1:
            return {}
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.count),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_count),
        }


def own_place() -> Place:
    """Return the place of this process, as submitit tells it; outside of its jobs a process is alone."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return Place()
    from submitit import JobEnvironment

    job = JobEnvironment()
    # The local executor counts no restarts, but starts no process before all of the leg before have ended.
    return Place(
        rank=job.global_rank,
        count=job.num_tasks,
        local_rank=job.local_rank,
        local_count=job.num_tasks // job.num_nodes,
        leg=f"{job.job_id}-{os.environ.get('SLURM_RESTART_COUNT', '0')}",
    )
