"""A task's batch of trials: what is still to do of it, and the one record file that it writes."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator import __version__
from orchestrator.config import load_frozen
from orchestrator.schema import SlurmConfig, larger, processes
from orchestrator.sweep import records
from orchestrator.sweep.directory import CHECKS, PhaseDirectory, SweepDirectory, TrialSpec
from orchestrator.sweep.facts import PhaseFacts, read_phase, read_plan
from orchestrator.sweep.provenance import git_commit
from orchestrator.sweep.records import FAILED, MEMORY, Outcome
from orchestrator.sweep.submissions import Intent, is_abandoned, read_intent
from orchestrator.worker.assigned import Batch, RecordWriter
from orchestrator.worker.ending import Ending, outcome_line
from orchestrator.worker.gpu import gpu_name
from orchestrator.worker.legs import no_progress, read_legs
from orchestrator.worker.place import own_place
from orchestrator.worker.sharing import runs_at_once

# Runs a batch, writing each trial's lines; returns how many ended in each state.
Runner = Callable[[Batch, RecordWriter], dict[str, int]]


def run_children(batch: Batch, writer: RecordWriter) -> dict[str, int]:
    """Run each trial of a batch in a process of its own; see `children`."""
    from orchestrator.worker import children

    return children.run_children(batch, writer)


def run_batch(
    directory: SweepDirectory, phase_name: str, submission: int, index: int, run: Runner = run_children
) -> dict[str, int]:
    """Run the trials of a task that have no outcome yet; returns how many ended in each state.

    A task of an abandoned submission or a cancelled sweep, which nobody counts on any more, does nothing.

    Args:
        directory: of the sweep.
        phase_name: which of its phases.
        submission: the submission's number in that phase.
        index: the task's place in the submission's array.
        run: what runs the trials.
    """
    place, plan, config = own_place(), read_plan(directory), load_frozen(directory.config)
    phase = next(phase for phase in plan.phases if phase.name == phase_name)
    folder = directory.phase(phase.kind, phase.name)
    if _over(directory, folder, submission):
        return {}
    intent = read_intent(folder.submissions, submission)
    if intent.larger:
        config = replace(config, slurm=larger(config.slurm))
    known = read_phase(directory, phase)
    specs = {spec.trial_id: spec for spec in known.trials}
    # The user's modules may look at these when they are imported.
    os.environ.update(place.environment)
    batch = Batch(
        directory=directory,
        config=config,
        phase=phase,
        # Checks measure nothing of the sweep: they count themselves.
        metric=plan.metric if phase.kind != CHECKS else CHECKS,
        todo=(),
        slots=1 if place.count > 1 else runs_at_once(config, phase.kind, directory, larger=intent.larger),
        place=place,
        meeting=folder.path / "meetings" / f"{submission:04d}-{index:04d}-{place.leg}.json",
    )
    if place.rank:
        return _follow(batch, specs, lambda: _over(directory, folder, submission))
    todo = [specs[trial] for trial in intent.tasks[index] if not _done(known.outcomes.get(trial), intent)]
    stuck = _stuck(todo, known, folder, config.slurm)
    batch = replace(batch, todo=tuple(spec for spec in todo if spec.trial_id not in stuck))
    writer = RecordWriter(folder.records, submission, index)
    try:
        writer.write(_header(intent, index, writer.attempt, batch))
        for trial, (seconds, ending) in stuck.items():
            writer.write(outcome_line(trial, ending, seconds))
        # Followers wait for a leader even where it finds nothing to do.
        states = run(batch, writer) if batch.todo or place.count > 1 else {}
    finally:
        writer.close()
    return {**states, FAILED: states.get(FAILED, 0) + len(stuck)} if stuck else states


def _over(directory: SweepDirectory, folder: PhaseDirectory, submission: int) -> bool:
    """Say whether nobody counts on a submission's tasks any more."""
    return directory.cancelled.exists() or is_abandoned(folder.submissions, submission)


def _follow(batch: Batch, specs: Mapping[str, TrialSpec], over: Callable[[], bool]) -> dict[str, int]:
    from orchestrator.worker.follower import follow
    from orchestrator.worker.meeting import join

    leader = join(batch.meeting, batch.place, over)
    if leader is not None:
        follow(batch, specs, leader)
    return {}


def _done(outcome: Outcome | None, intent: Intent) -> bool:
    """Say whether a trial needs no run: for want of memory it gets another one, where this task has more."""
    if outcome is None:
        return False
    return not (intent.larger and outcome.cause == MEMORY and outcome.submission < intent.number)


def _stuck(
    todo: Sequence[TrialSpec], known: PhaseFacts, folder: PhaseDirectory, slurm: SlurmConfig
) -> dict[str, tuple[float, Ending]]:
    """Return the trials that get no further leg after leg: how long these ran, and what is said of it."""
    stuck = {}
    for spec in todo:
        trial = spec.trial_id
        tasks = sorted(key for key, trials in known.started.items() if trial in trials)
        # Most trials were never begun, and their records need not be read.
        files = [
            records.read_file(path)
            for submission, index in tasks
            for path in sorted(folder.records.glob(f"{submission:04d}-{index:04d}-*.jsonl"))
        ]
        wishes = [retry.submission for retry in known.retries if trial in retry.trials]
        legs = read_legs(files, trial, folder.checkpoints(trial), max(wishes, default=0))
        if (ending := no_progress(legs, slurm.timeout_min, slurm.attempts)) is not None:
            stuck[trial] = sum(leg.seconds for leg in legs), ending
    return stuck


def _header(intent: Intent, index: int, attempt: int, batch: Batch) -> dict[str, Any]:
    array, place = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    own = processes(batch.config, batch.phase.kind)
    return {
        "kind": "task",
        "version": 1,
        "token": intent.token,
        "submission": intent.number,
        "task": index,
        "attempt": attempt,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job_id": f"{array}_{place}" if array else os.environ.get("SLURM_JOB_ID", ""),
        # what one trial holds of them
        "gpus": own.nodes * own.gpus_per_node / batch.slots,
        "cpus": batch.cores * batch.place.count / batch.slots,
        "processes": batch.place.count,
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "gpu": gpu_name(),
        "python": platform.python_version(),
        "orchestrator": __version__,
        "git_commit": git_commit(batch.directory),
        "time": time.time(),
    }
