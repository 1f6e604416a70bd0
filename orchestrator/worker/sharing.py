"""How many final runs share a task, where that is to be worked out from the memory that trials took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.schema import SweepConfig, processes, task_cores, trials_at_once
from orchestrator.sweep import records
from orchestrator.sweep.directory import FINAL, STAGE, SweepDirectory
from orchestrator.sweep.facts import read_plan
from orchestrator.worker.gpu import gpu_memory_gb

AUTO = "auto"
# Of a GPU's memory this share is left free, and so much goes to each process before its first tensor.
SPARE, CONTEXT_GB = 0.1, 0.6


def runs_at_once(config: SweepConfig, kind: str, directory: SweepDirectory, *, larger: bool = False) -> int:
    """Return how many trials of a phase run side by side in one task.

    Args:
        config: the sweep, with what the task was given.
        kind: of the phase.
        directory: the sweep's, for the records of its stages.
        larger: the task is for trials that ran out of memory, and was given more.
    """
    wanted = config.final.runs_at_once if kind == FINAL else None
    if processes(config, kind).count > 1:
        return 1
    if wanted is None or (larger and "trials_at_once" in config.slurm.on_out_of_memory):
        return trials_at_once(config.slurm)
    if wanted != AUTO:
        return int(wanted)
    taken = memory_of_trials(directory)
    return fitting(taken, gpu_memory_gb() or _whole(taken), task_cores(config.slurm))


def fitting(taken: Iterable[Mapping[str, Any]], whole_gb: float, cores: int) -> int:
    """Return how many runs fit on a GPU side by side.

    Args:
        taken: outcome lines of trials, with `gpu_memory_gb` where it is known.
        whole_gb: memory of the GPU, 0 where that is not known.
        cores: of the task; each run needs one.

    Returns:
        1 where nothing is known.
    """
    known = [records.number(line.get("gpu_memory_gb")) for line in taken]
    most = max((figure for figure in known if math.isfinite(figure) and figure > 0), default=None)
    if most is None or not whole_gb > 0:
        return 1
    return max(1, min(cores, math.floor((1 - SPARE) * whole_gb / (most + CONTEXT_GB))))


def memory_of_trials(directory: SweepDirectory) -> list[dict[str, Any]]:
    """Return the outcome lines of the stages' trials that say what they took of a GPU's memory."""
    stages = [phase for phase in read_plan(directory).phases if phase.kind == STAGE]
    return [
        line
        for phase in stages
        for file in records.read_directory(directory.phase(phase.kind, phase.name).records)
        for line in file.lines
        if line["kind"] == "outcome" and "gpu_memory_gb" in line
    ]


def _whole(taken: Iterable[Mapping[str, Any]]) -> float:
    """Return the memory of the smallest GPU that a trial ran on; 0 where no trial tells."""
    sizes = [records.number(line.get("gpu_total_gb")) for line in taken]
    return min((size for size in sizes if math.isfinite(size) and size > 0), default=0.0)
