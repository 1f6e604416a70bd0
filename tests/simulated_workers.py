"""Tasks that run on the simulated cluster: pretended processes, with real code around pretended trials."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faults import Process, as_process, close_files, here, mortal

from orchestrator.cluster.simulation.machine import Job
from orchestrator.cluster.simulation.steps import Pause, as_steps
from orchestrator.cluster.simulation.work import pretend
from orchestrator.sweep.directory import TrialSpec
from orchestrator.sweep.facts import read_phase
from orchestrator.worker.assigned import Batch, RecordWriter
from orchestrator.worker.batch import run_batch
from orchestrator.worker.task import Task

if TYPE_CHECKING:
    from simulated_sweeps import World


@dataclass(eq=False, kw_only=True)
class Worker:
    """One task that runs."""

    process: Process
    job: Job
    task: Task
    todo: tuple[str, ...] = ()
    # nobody counted on its submission any more when it began
    fenced: bool = False
    # trials that had a result when it began
    known: frozenset[str] = frozenset()


def work(world: World, worker: Worker) -> Iterator[float]:
    """Run a task as a worker, in steps; a step's value is the seconds until the next one."""
    process, task = worker.process, worker.task

    def body(pause: Pause) -> None:
        process.pause = mortal(process, pause)

        def run(batch: Batch, writer: RecordWriter) -> dict[str, int]:
            worker.todo = tuple(spec.trial_id for spec in batch.todo)
            assert process.pause is not None
            return pretend(
                batch,
                writer,
                process.pause,
                lambda spec: _begins(world, worker, spec),
                lambda: world.time(process),
            )

        worker.fenced = _is_abandoned(world, task)
        worker.known = _results_of(world, task)
        try:
            with as_process(process):
                run_batch(world.directory, task.phase, task.submission, task.index, run)
        except OSError:
            if not process.faulted:
                world.wrong.append(f"a worker met an error of its own:\n{traceback.format_exc()}")
            raise
        except Exception:
            world.wrong.append(f"a worker failed:\n{traceback.format_exc()}")
            raise
        finally:
            process.dead = True
            close_files(process)

    return as_steps(body)


def _begins(world: World, worker: Worker, spec: TrialSpec) -> float:
    """Check that a trial which begins runs nowhere else; returns how long it takes."""
    world.begun += 1
    before, here.process = here.process, None
    try:
        own = worker.task
        for other in world.workers:
            there = other.task
            if (
                not other.process.dead
                and other.job is not worker.job
                and there.phase == own.phase
                and spec.trial_id in other.todo
                # A node that was cut off goes on with what was lost to everybody else.
                and not _is_given_up(world, there)
                and not _is_given_up(world, own)
            ):
                world.wrong.append(f"{spec.trial_id} begins in {own} while {there} runs it")
        if spec.trial_id in worker.known:
            world.wrong.append(f"{spec.trial_id} begins in {own} although it had a result")
        if worker.fenced:
            world.wrong.append(f"{spec.trial_id} begins in {own}, which was abandoned before it started")
    finally:
        here.process = before
    return random.Random(f"{world.seed} {spec.trial_id}").choice([2.0, 10.0, 30.0, 300.0])


def _results_of(world: World, task: Task) -> frozenset[str]:
    phase = next(phase for phase in world.template.plan.phases if phase.name == task.phase)
    return frozenset(read_phase(world.directory, phase).outcomes)


def _folder(world: World, task: Task) -> Path:
    return world.directory.phase(task.kind, task.phase).submissions


def _is_abandoned(world: World, task: Task) -> bool:
    return (_folder(world, task) / f"{task.submission:04d}.abandoned.json").exists()


def _is_given_up(world: World, task: Task) -> bool:
    lost = _folder(world, task) / f"{task.submission:04d}.lost-{task.index:04d}.json"
    return lost.exists() or _is_abandoned(world, task)
