"""What can go wrong in a simulated sweep, and at which operations."""

from __future__ import annotations

import errno
from dataclasses import dataclass

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
