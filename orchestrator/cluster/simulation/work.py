"""What a task of the simulated cluster does: the real `run_batch`, with trials that only pretend to train."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.cluster.simulation.machine import Job, Machine, Work
from orchestrator.cluster.simulation.steps import Pause, as_steps
from orchestrator.sweep.directory import SweepDirectory, TrialSpec
from orchestrator.sweep.records import COMPLETED
from orchestrator.worker.assigned import Batch, RecordWriter
from orchestrator.worker.batch import run_batch
from orchestrator.worker.task import Task


def pretended_value(spec: TrialSpec) -> float:
    """Return what a trial gives: a number in [0, 1) that follows from its parameters and seed alone."""
    return random.Random(repr((sorted(spec.params.items()), spec.seed))).random()


def pretend(
    batch: Batch,
    writer: RecordWriter,
    pause: Pause,
    seconds: Callable[[TrialSpec], float],
    clock: Callable[[], float],
) -> dict[str, int]:
    """Run a batch one trial after another, each with one report half way.

    Args:
        batch: what is to be done.
        writer: takes the lines.
        pause: lets the cluster's time pass.
        seconds: that a trial takes.
        clock: seconds since the epoch, written into the lines.
    """
    states: Counter[str] = Counter()
    for spec in batch.todo:
        name, took, value = spec.trial_id, seconds(spec), pretended_value(spec)
        writer.write({"kind": "start", "trial": name, "time": clock()})
        pause(took / 2)
        report = {"kind": "report", "trial": name, "step": 1, "metrics": {batch.metric: value / 2}}
        writer.write({**report, "time": clock()})
        pause(took / 2)
        writer.write(
            {
                "kind": "outcome",
                "trial": name,
                "state": COMPLETED,
                "metrics": {batch.metric: value},
                "seconds": took,
                "error": "",
                "time": clock(),
            }
        )
        states[COMPLETED] += 1
    return dict(states)


def recorded(seconds: Callable[[TrialSpec], float], machine: Callable[[], Machine]) -> Work:
    """Return the work of tasks whose trials take so many seconds and leave real records.

    Args:
        seconds: that a trial takes.
        machine: the cluster whose clock stamps the lines; asked when a task runs.
    """

    def work(task: Task, job: Job) -> Iterator[float]:
        def body(pause: Pause) -> object:
            def run(batch: Batch, writer: RecordWriter) -> dict[str, int]:
                return pretend(batch, writer, pause, seconds, lambda: machine().now)

            directory = SweepDirectory(Path(task.sweep))
            return run_batch(directory, task.phase, task.submission, task.index, run)

        return as_steps(body)

    return work
