"""What can go wrong in a simulated sweep, and at which operations."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from faults import Process

from orchestrator.cluster.interface import MEMORY, PREEMPTED
from orchestrator.cluster.simulation.machine import Job, Machine
from orchestrator.cluster.simulation.steps import Killed
from orchestrator.errors import ClusterUnavailable, SubmissionRefused

# What can go wrong at which kind of operation. `late`: the cluster takes the array after the caller gave up.
CHANGES = {"create", "open", "write", "fsync", "replace", "link", "unlink", "mkdir"}
FILE_KINDS = {"read", "look", "list", "payload", *CHANGES}
# What workers do often enough to be met in their turn.
WORKERS_TOO = {"read", "open", "write", "fsync"}
COMMANDS = {"sbatch", "sbatch's answer", "find", "adopt", "squeue", "sacct", "scancel"}
FAULTS: dict[str, set[str]] = {
    "dies": FILE_KINDS | COMMANDS | {"payloads there", "compact"},
    "dies after": CHANGES,
    "stale handle": FILE_KINDS,
    "disk full": {"create", "open", "write", "fsync", "replace", "link", "mkdir", "payload"},
    "not permitted": {"create", "open", "replace", "link", "unlink", "mkdir", "payload"},
    "reply lost": CHANGES - {"create", "open"},
    "exists after all": {"link"},
    "torn and dies": {"write"},
    "torn and full": {"write"},
    "short": {"write"},
    "unavailable": COMMANDS,
    "refused": {"sbatch"},
    "full": {"sbatch"},
    "late": {"sbatch"},
}
ERRORS = {
    "stale handle": errno.ESTALE, "disk full": errno.ENOSPC, "not permitted": errno.EACCES,
    "reply lost": errno.ESTALE, "torn and full": errno.ENOSPC,
}  # fmt: skip
# Where a stall does most harm: right before a process changes something that others see.
PARKS = ("link", "replace", "unlink", "create", "sbatch", "sbatch's answer", "payload", "payloads there",
         "find", "adopt", "squeue", "scancel")  # fmt: skip
ACCIDENTS = ("node fails", "node cut off", "preempted", "killed by a preemption", "requeued",
             "requeued, ghost", "out of memory", "cancelled by hand", "time limit")  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What goes wrong at the first operation of a kind (empty: any that it can befall) from a number on."""

    at: int
    name: str
    kind: str = ""
    role: str = ""


def take_due(faults: list[Fault], operations: int, role: str, kind: str) -> str | None:
    """Take the fault that is due, and can befall an operation of a kind, from those that are still to come.

    Args:
        faults: in order; what is taken is gone.
        operations: how many there have been.
        role: of the process whose operation it is.
        kind: of the operation.
    """
    for place, fault in enumerate(faults):
        if fault.at > operations:
            break
        here = kind in FAULTS[fault.name] if not fault.kind else kind == fault.kind
        if here and fault.role in ("", role):
            del faults[place]
            return fault.name
    return None


def go_wrong(process: Process, fault: str, kind: str, do: Callable[..., Any]) -> Any:
    """Let a fault befall an operation: `do` does it, or a share of it."""
    if fault in ("dies after", "reply lost", "exists after all"):
        done = do()
        if kind == "create":
            done.close()
    if fault in ("torn and dies", "torn and full"):
        do(0.5)
    if fault in ("dies", "dies after", "torn and dies"):
        process.dead = True
        raise Killed
    if fault == "short":
        return do(0.5)
    if fault == "exists after all":
        raise FileExistsError(errno.EEXIST, "injected")
    if fault in ERRORS:
        raise OSError(ERRORS[fault], f"injected: {fault} at {kind}")
    if fault in ("refused", "full"):
        raise SubmissionRefused("injected", later=fault == "full")
    raise ClusterUnavailable(f"injected: {fault} at {kind}")


def befall(machine: Machine, job: Job, accident: str, random: Random) -> None:
    """Let an accident befall a running task."""
    match accident:
        case "node fails":
            machine.fail_node(job)
        case "node cut off":
            machine.fail_node(job, ghost=True)
        case "preempted":
            machine.requeue(job, wait=random.expovariate(1 / 60))
        case "requeued":
            machine.requeue(job)
        case "requeued, ghost":
            machine.requeue(job, ghost=True)
        case "killed by a preemption":
            machine.end(job, PREEMPTED, "PREEMPTED")
        case "out of memory":
            machine.end(job, MEMORY, "OUT_OF_MEMORY")
        case "cancelled by hand":
            machine.cancel(job.id)
        case "time limit":
            machine.end(job, "time limit", "TIMEOUT")
