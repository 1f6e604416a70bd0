"""A task's batch of trials: a fork server with the imports done, a child process for each trial."""

from __future__ import annotations

import contextlib
import math
import multiprocessing as mp
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from orchestrator.config import load_frozen
from orchestrator.planning.plan import Phase
from orchestrator.schema import SlurmConfig, SweepConfig, task_cores, trials_at_once
from orchestrator.sweep import records
from orchestrator.sweep.directory import ENSEMBLE, SweepDirectory, TrialSpec
from orchestrator.sweep.facts import read_phase, read_plan
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, PRUNED
from orchestrator.sweep.submissions import read_intent
from orchestrator.worker.child import Work, run_trial
from orchestrator.worker.job import enter, modules
from orchestrator.worker.preload import announce
from orchestrator.worker.task import Task

# How a cluster, a terminal or an administrator asks processes to end, a job step's all at once: a trial that
# ends so has not failed, whether or not its task outlives it.
ENDED_FROM_OUTSIDE = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGUSR1, -signal.SIGUSR2}
# A child that was asked to end gets so long before it is made to.
GRACE_SECONDS = 5.0


INTERRUPTED = "interrupted"


@dataclass
class Child:
    """A running trial, seen from its task."""

    spec: TrialSpec
    process: ForkServerProcess
    connection: Connection
    began: float
    # the last report, and the line that ended it
    report: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)


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
        self._synced = time.monotonic()

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; outcomes are flushed to disk, at most once a second."""
        data = records.encode(line).encode()
        while data:
            data = data[os.write(self._handle, data) :]
        if line["kind"] == "outcome" and time.monotonic() - self._synced > 1:
            self._sync()

    def close(self) -> None:
        """Flush and close."""
        self._sync()
        os.close(self._handle)

    def _sync(self) -> None:
        os.fsync(self._handle)
        self._synced = time.monotonic()


def run_batch(task: Task) -> dict[str, int]:
    """Run the trials of a task that have no outcome yet; returns how many ended in each state."""
    directory = SweepDirectory(Path(task.sweep))
    plan, config = read_plan(directory), load_frozen(directory.config)
    phase = next(phase for phase in plan.phases if phase.name == task.phase)
    folder = directory.phase(phase.kind, phase.name)
    intent = read_intent(folder.submissions, task.submission)
    known = read_phase(directory, phase)
    specs = {spec.trial_id: spec for spec in known.trials}
    todo = [specs[trial] for trial in intent.tasks[task.index] if trial not in known.outcomes]
    enter(directory, plan)
    writer = RecordWriter(folder.records, task)
    try:
        writer.write(_header(task, intent.token, writer.attempt, config.slurm))
        with _terminable():
            return _run_all(directory, config, phase, plan.metric, todo, writer)
    finally:
        writer.close()


def _header(task: Task, token: str, attempt: int, resources: SlurmConfig) -> dict[str, Any]:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    slots = trials_at_once(resources)
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
        "gpus": resources.gpus_per_task / slots,
        "cpus": task_cores(resources) / slots,
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "time": time.time(),
    }


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM (scancel, preemption) unwind this process, so that its children are ended with it."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fork_server(
    directory: SweepDirectory, config: SweepConfig, phase: Phase, slots: int
) -> ForkServerContext:
    """Start the process that has imported everything and forks one child for each trial."""
    # Trials side by side share the cores; libraries read this when they are imported.
    threads = max(1, task_cores(config.slurm) // slots)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    context = mp.get_context("forkserver")
    own = ["orchestrator.worker.child", "orchestrator.worker.job", "orchestrator.config"]
    extra = ["orchestrator.worker.ensemble"] if phase.kind == ENSEMBLE else []
    announce(str(directory.snapshot.resolve()), [*own, *extra, *modules(config)])
    context.set_forkserver_preload(["orchestrator.worker.preload"])
    # The imports are the task's, not its first trial's, whose seconds would otherwise be most of them.
    warm = context.Process(target=int)
    warm.start()
    warm.join()
    return context


def _run_all(
    directory: SweepDirectory,
    config: SweepConfig,
    phase: Phase,
    metric: str,
    todo: list[TrialSpec],
    writer: RecordWriter,
) -> dict[str, int]:
    slots = min(trials_at_once(config.slurm), max(1, len(todo)))
    context = _fork_server(directory, config, phase, slots)
    waiting, running = list(reversed(todo)), dict[Connection, Child]()
    states: Counter[str] = Counter()
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                child = _start(context, directory, phase, waiting.pop(), writer)
                running[child.connection] = child
            for connection in wait(list(running)):
                child = running[connection]  # type: ignore[index]
                if not _receive(child, writer):
                    del running[child.connection]
                    states[_finish(child, metric, writer)] += 1
    finally:
        _end(list(running.values()))
    return dict(states)


def _start(
    context: ForkServerContext, directory: SweepDirectory, phase: Phase, spec: TrialSpec, writer: RecordWriter
) -> Child:
    ours, theirs = context.Pipe()
    work = Work(sweep=str(directory.path), phase=phase, spec=spec)
    process = context.Process(target=run_trial, args=(work, theirs), name=spec.trial_id)
    writer.write({"kind": "start", "trial": spec.trial_id, "time": time.time()})
    began = time.monotonic()
    process.start()
    # With our copy closed, the child's death closes the pipe, whatever it died of.
    theirs.close()
    return Child(spec=spec, process=process, connection=ours, began=began)


def _receive(child: Child, writer: RecordWriter) -> bool:
    """Take one line from a child; False when there will be no more."""
    try:
        line = child.connection.recv()
    except (EOFError, OSError):
        return False
    except Exception as error:  # a line cut short by the child's death does not unpickle
        print(f"{child.spec.trial_id}: unreadable line ({error})", file=sys.stderr)
        return False
    if line["kind"] in ("report", "checkpoint"):
        writer.write(line)
        if line["kind"] == "report":
            child.report = line
        return True
    child.last = line
    return True


def _finish(child: Child, metric: str, writer: RecordWriter) -> str:
    child.process.join(GRACE_SECONDS)
    if child.process.exitcode is None:
        child.process.kill()
        child.process.join()
    child.connection.close()
    if not child.last and child.process.exitcode in ENDED_FROM_OUTSIDE:
        # Without an outcome it is the cluster's loss, and is taken up again from its last checkpoint.
        print(
            f"{child.spec.trial_id}: ended from outside by signal {-child.process.exitcode}", file=sys.stderr
        )
        return INTERRUPTED
    state, metrics, error = judge(child.last, child.process.exitcode, metric)
    stopped = {}
    if state == PRUNED:
        metrics, stopped = child.report.get("metrics", {}), {"step": child.report.get("step", 0)}
    writer.write(
        {
            "kind": "outcome",
            "trial": child.spec.trial_id,
            "state": state,
            "metrics": metrics,
            "seconds": time.monotonic() - child.began,
            "error": error,
            "time": time.time(),
            **stopped,
        }
    )
    return state


def judge(last: dict[str, Any], exitcode: int | None, metric: str) -> tuple[str, dict[str, float], str]:
    """Say how a trial ended.

    Args:
        last: the last line its process sent, empty when there was none.
        exitcode: of the process, negative for a signal.
        metric: the sweep's metric, which the function must return.

    Returns:
        The state, the metrics it returned, and an error for a person to read.
    """
    kind = last.get("kind")
    if kind == "stopped":
        return PRUNED, {}, ""
    if kind == "raise":
        return FAILED, {}, last["error"]
    if kind != "return":
        return FAILED, {}, _death(exitcode)
    metrics = last["metrics"]
    if metrics is None:
        return FAILED, {}, f"the training function returned nothing; it must return a dict with '{metric}'"
    if not isinstance(metrics, dict):
        return FAILED, {}, f"the training function returned {metrics}; it must return a dict with '{metric}'"
    if metric not in metrics:
        names = ", ".join(f"'{name}'" for name in metrics) or "no metric"
        return FAILED, metrics, f"the sweep's metric '{metric}' was not returned; there is {names}"
    return (COMPLETED if math.isfinite(metrics[metric]) else DIVERGED), metrics, ""


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = f"signal {-exitcode}"
        hint = ": out of memory, perhaps" if name == "SIGKILL" else ""
        return f"the trial's process was killed by {name}{hint}"
    return f"the trial's process exited with status {exitcode} before the training function returned"


def _end(children: list[Child]) -> None:
    """End what still runs; the trials have no outcome and are taken up again."""
    for child in children:
        child.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
        child.process.join(max(0.0, deadline - time.monotonic()))
        if child.process.exitcode is None:
            child.process.kill()
