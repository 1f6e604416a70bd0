"""A task's batch of trials: what is still to do of it, and the one record file that it writes."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator import __version__
from orchestrator.config import load_frozen
from orchestrator.planning.plan import Phase
from orchestrator.schema import SlurmConfig, SweepConfig, larger, processes, task_cores
from orchestrator.sweep import records
from orchestrator.sweep.directory import CHECKS, PhaseDirectory, SweepDirectory, TrialSpec
from orchestrator.sweep.facts import PhaseFacts, read_phase, read_plan
from orchestrator.sweep.provenance import git_commit
from orchestrator.sweep.records import FAILED, MEMORY, Outcome
from orchestrator.sweep.submissions import Intent, is_abandoned, read_intent
from orchestrator.worker.ending import Ending, outcome_line
from orchestrator.worker.gpu import gpu_name
from orchestrator.worker.legs import no_progress, read_legs
from orchestrator.worker.place import Place, own_place
from orchestrator.worker.sharing import runs_at_once
from orchestrator.worker.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The trials that a task has to run, and all that running them takes.

    `config.slurm` is what the task was given: the larger request, where it was submitted with that.

    Attributes:
        slots: trials that run side by side.
        place: of this process among those that train one trial together.
        meeting: the file by which these find each other.
    """

    directory: SweepDirectory
    config: SweepConfig
    phase: Phase
    metric: str
    todo: tuple[TrialSpec, ...]
    slots: int = 1
    place: Place = field(default_factory=Place)
    meeting: Path = Path("meeting.json")

    @property
    def cores(self) -> int:
        """The cores of this process."""
        cores = task_cores(self.config.slurm)
        # All cores of a machine are shared by all processes on it.
        return cores if self.config.slurm.cpus_per_task else max(1, cores // self.place.local_count)

    @property
    def quiet(self) -> float | None:
        """Seconds without a sign of life after which a trial is taken to hang; None: however long."""
        minutes = self.config.slurm.quiet_minutes
        return None if minutes is None else 60 * minutes


class RecordWriter:
    """Appends to the one record file of this task and attempt."""

    def __init__(self, folder: Path, task: Task) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(10_000):
            path = folder / f"{task.submission:04d}-{task.index:04d}-{attempt}.jsonl"
            with contextlib.suppress(FileExistsError):
                self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
                self.attempt = attempt
                break
        else:
            raise RuntimeError(f"{folder} holds 10,000 attempts at one task")
        self._synced, self._whole = time.monotonic(), True

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; outcomes are flushed to disk, at most once a second."""
        # After a line that a signal or a full disk cut short, the next one begins on a line of its own.
        data = (b"" if self._whole else b"\n") + records.encode(line).encode()
        self._whole = False
        while data:
            data = data[os.write(self._handle, data) :]
        self._whole = True
        if line["kind"] == "outcome" and time.monotonic() - self._synced > 1:
            self._sync()

    def close(self) -> None:
        """Flush and close."""
        self._sync()
        os.close(self._handle)

    def _sync(self) -> None:
        os.fsync(self._handle)
        self._synced = time.monotonic()


# Runs a batch, writing each trial's lines; returns how many ended in each state.
Runner = Callable[[Batch, RecordWriter], dict[str, int]]


def run_children(batch: Batch, writer: RecordWriter) -> dict[str, int]:
    """Run each trial of a batch in a process of its own; see `children`."""
    from orchestrator.worker import children

    return children.run_children(batch, writer)


def run_batch(task: Task, run: Runner = run_children) -> dict[str, int]:
    """Run the trials of a task that have no outcome yet; returns how many ended in each state.

    A task of an abandoned submission or a cancelled sweep, which nobody counts on any more, does nothing.
    """
    directory, place = SweepDirectory(Path(task.sweep)), own_place()
    plan, config = read_plan(directory), load_frozen(directory.config)
    phase = next(phase for phase in plan.phases if phase.name == task.phase)
    folder = directory.phase(phase.kind, phase.name)
    if _over(directory, folder, task):
        return {}
    intent = read_intent(folder.submissions, task.submission)
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
        meeting=folder.path / "meetings" / f"{task.submission:04d}-{task.index:04d}-{place.leg}.json",
    )
    if place.rank:
        return _follow(batch, specs, lambda: _over(directory, folder, task))
    todo = [
        specs[trial] for trial in intent.tasks[task.index] if not _done(known.outcomes.get(trial), intent)
    ]
    stuck = _stuck(todo, known, folder, config.slurm)
    batch = replace(batch, todo=tuple(spec for spec in todo if spec.trial_id not in stuck))
    writer = RecordWriter(folder.records, task)
    try:
        writer.write(_header(task, intent.token, writer.attempt, batch))
        for trial, (seconds, ending) in stuck.items():
            writer.write(outcome_line(trial, ending, seconds))
        # Followers wait for a leader even where it finds nothing to do.
        states = run(batch, writer) if batch.todo or place.count > 1 else {}
    finally:
        writer.close()
    return {**states, FAILED: states.get(FAILED, 0) + len(stuck)} if stuck else states


def _over(directory: SweepDirectory, folder: PhaseDirectory, task: Task) -> bool:
    """Say whether nobody counts on a task any more."""
    return directory.cancelled.exists() or is_abandoned(folder.submissions, task.submission)


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


def _header(task: Task, token: str, attempt: int, batch: Batch) -> dict[str, Any]:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    own = processes(batch.config, batch.phase.kind)
    return {
        "kind": "task",
        "version": 1,
        "token": token,
        "submission": task.submission,
        "task": task.index,
        "attempt": attempt,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job_id": f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", ""),
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
