"""Telling what a trial ran short of, memory or disk: from its exception, or from how the kernel counts."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

# What PyTorch, CUDA, XLA and a data loader's parent say, none of which is imported here.
_TYPES = {"OutOfMemoryError", "ResourceExhaustedError"}
_WORDS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
    "HIP out of memory",
    "RESOURCE_EXHAUSTED",
    "is killed by signal: Killed",
)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE)


def out_of_memory(error: BaseException) -> bool:
    """Say whether an exception, or one that it was raised from, is for want of memory (host or GPU)."""
    return any(
        isinstance(cause, MemoryError)
        or type(cause).__name__ in _TYPES
        or any(word in _text(cause) for word in _WORDS)
        for cause in _causes(error)
    )


def out_of_disk(error: BaseException) -> bool:
    """Say whether an exception, or one that it was raised from, is of a full disk or a lost mount."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _DISK)
        or any(os.strerror(number) in _text(cause) for number in _DISK)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception of the user's whose own text fails
        return ""


def killings(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return how many processes of this task's cgroup the kernel has ended for want of memory.

    Args:
        proc: the kernel's list of a process's cgroups.
        mount: where cgroups are mounted.

    Returns:
        The count of cgroup v2's `memory.events` or v1's `memory.oom_control`; None where neither can be read.
    """
    try:
        entries = [line.split(":", 2) for line in proc.read_text().splitlines()]
    except OSError:
        return None
    for _, controllers, path in (entry for entry in entries if len(entry) == 3):
        inside = path.lstrip("/")
        if "memory" in controllers.split(","):
            candidates = [mount / "memory" / inside / "memory.oom_control"]
        elif not controllers:
            candidates = [mount / inside / "memory.events", mount / "unified" / inside / "memory.events"]
        else:
            continue
        for file in candidates:
            if (count := _count(file)) is not None:
                return count
    return None


def _count(file: Path) -> int | None:
    try:
        fields = dict(line.split(None, 1) for line in file.read_text().splitlines())
        return int(fields["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
