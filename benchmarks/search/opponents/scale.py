"""Fidelities as the whole resources 1, 2, ... that multi-fidelity libraries count in."""

from __future__ import annotations

from task import Task

# What every library here halves by unless it is told otherwise.
ETA = 3


def most(task: Task) -> int:
    """Return the resource of a full-scale training, where 1 is the lowest fidelity."""
    return max(int(1 / task.lowest + 1e-9), 1)


def fidelity(task: Task, resource: float) -> float:
    """Return the fidelity of a resource."""
    return resource / most(task)


def rungs(task: Task, first: int = 0) -> list[int]:
    """Return the resources 1, 3, 9, ... below a full-scale training from the given rung on, and that one."""
    last = most(task)
    return [ETA**rung for rung in range(first, 64) if ETA**rung < last] + [last]
