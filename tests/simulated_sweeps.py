"""Whole small sweeps on the simulated cluster, with every process killed, stalled or failed at any operation.

A `World` holds one sweep, one cluster and the processes that drive it. Its verbs (`call`, `go`, `tick`,
`kill`, `freeze`, `park`, `accident`, `cancel`, `retry`) make one thing happen each; `finish` stops all
trouble, drives the sweep to its end and lists what is wrong. `simulated_schedules` draws verbs from a seed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import random
import re
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from faults import Process, as_process, beat, close_files, here, installed, mortal
from simulated_faults import ERRORS, FAULTS, Fault
from simulated_templates import EPOCH, HOSTS, Template

import orchestrator.control.act as act
import orchestrator.control.retry as retry_module
import orchestrator.worker.batch as batch_module
from orchestrator.cluster.interface import MEMORY, PREEMPTED, Request
from orchestrator.cluster.simulation.cluster import SimulatedCluster
from orchestrator.cluster.simulation.machine import Job, Machine, Site
from orchestrator.cluster.simulation.steps import Killed, Pause, as_steps
from orchestrator.cluster.simulation.work import pretend, pretended_value
from orchestrator.control.advance import advance, affordable_facts
from orchestrator.control.decide import CANCELLED, DONE, PAUSED, Decision
from orchestrator.control.opened import Sweep
from orchestrator.errors import Busy, ClusterUnavailable, LeaseLost, SubmissionRefused, UserError
from orchestrator.sweep import lease, records
from orchestrator.sweep.directory import SweepDirectory, TrialSpec
from orchestrator.sweep.facts import PhaseFacts, checked_path, read_phase
from orchestrator.sweep.files import write_json
from orchestrator.sweep.submissions import Receipt, read_submissions
from orchestrator.worker.assigned import Batch, RecordWriter
from orchestrator.worker.batch import run_batch
from orchestrator.worker.task import Task

OPERATION_SECONDS = 0.01
# What a stalled process, a dead owner on another machine and a submission under way are waited for.
ROUND_SECONDS = 60.0
MOST_ROUNDS = 150
# Hearts beat so often while time passes.
TICKS = 4


@dataclass(eq=False, kw_only=True)
class Controller:
    """One call of `advance`."""

    process: Process
    steps: Iterator[float]
    decision: Decision | None = None
    over: bool = False
    # what it ended with, where it was no decision
    error: Exception | None = None


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


class _Client(SimulatedCluster):
    """The cluster as a controller sees it; what is just being submitted is known to the world."""

    request: Request | None = None

    def submit(self, request: Request) -> Receipt:
        self.request = request
        return super().submit(request)


class World:
    """One sweep, its cluster, and what happens to them. Enter it before use.

    Args:
        template: the sweep.
        seed: of everything that no verb says.
        whole: results and report are really written.
    """

    def __init__(self, template: Template, seed: int, *, whole: bool = False) -> None:
        self.template, self.seed, self.whole = template, seed, whole
        self.random = random.Random(seed)
        self.site = self._site()
        self.machine = Machine(site=self.site, work=self._work, seed=seed)
        self.controllers: list[Controller] = []
        self.workers: list[Worker] = []
        self.processes: dict[int, Process] = {}
        self.operations = 0
        self.faults: list[Fault] = []
        self.happened: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.done = False
        self.begun = 0
        self._counted: dict[str, tuple[int, float]] = {}
        self._pids = itertools.count(1000)
        self._beaten = 0.0
        self._frozen_files: dict[str, str] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        skew = self.random.choice([0.0, 0.0, 5.0, -40.0, 90.0, -700.0, 700.0])
        self._skew = {HOSTS[0]: 0.0, HOSTS[1]: skew}
        # On some file systems each machine stamps its files by its own clock.
        self._stamps_by_host = self.random.random() < 0.5

    def __enter__(self) -> World:
        self._stack = contextlib.ExitStack()
        root = Path(self._stack.enter_context(_folder()))
        self.directory = SweepDirectory(root / "sweep")
        self.directory.path.mkdir()
        for path in self.template.path.iterdir():
            if path.is_file():
                shutil.copyfile(path, self.directory.path / path.name)
        self._stack.enter_context(installed())
        self._stack.enter_context(_replaced(batch_module, "load_frozen", lambda path: self.template.config))
        self._stack.enter_context(_replaced(retry_module, "take_snapshot", lambda *given: None))
        refresh = partial(self._refresh, act.refresh_results)
        self._stack.enter_context(_replaced(act, "refresh_results", refresh))
        return self

    def __exit__(self, *problem: object) -> None:
        for controller in self.controllers:
            self._end(controller)
        for job in self.machine.alive():
            self.machine.cancel(job.id)
        for worker in self.workers:
            worker.process.dead = True
        self.machine.run_until(self.machine.now + 1e9)
        self._stack.close()

    # Verbs.

    def call(self, host: int = 0, patient: bool = False) -> Controller:
        """Begin one more `advance`; a patient one waits for the lease, as `orchestrate run` does."""
        process = self._process("controller", HOSTS[host % len(HOSTS)])

        def body(pause: Pause) -> None:
            process.pause = mortal(process, pause)
            with as_process(process):
                wait = (lambda owner: True) if patient else None
                with lease.hold(self.directory.lease, "orchestrate advance", wait=wait) as held:
                    controller.decision = advance(
                        self.directory, self.template.plan, self.template.config, client, held
                    )

        client = _Client(
            self.machine, process.host, clock=lambda: self.time(process),
            at=lambda step: self._command(process, client, step), tells=self.seed % 2 == 0,
        )  # fmt: skip
        controller = Controller(process=process, steps=iter(()))
        controller.steps = as_steps(body)
        self.controllers.append(controller)
        return controller

    def go(self, which: int, operations: int) -> None:
        """Let a controller go on for so many operations."""
        ready = [one for one in self.controllers if not one.over and not one.process.frozen]
        if ready:
            self._resume(ready[which % len(ready)], operations)

    def tick(self, seconds: float) -> None:
        """Let time pass on the cluster."""
        for _ in range(TICKS):
            self.machine.run_until(self.machine.now + seconds / TICKS)
            self._beat()
        self._look()

    def kill(self, which: int) -> None:
        """Kill a controller where it is."""
        living = [one for one in self.controllers if not one.over]
        if living:
            self.happened["controller killed between operations"] += 1
            self._end(living[which % len(living)])

    def freeze(self, which: int) -> None:
        """Stall a controller, heartbeat and all, or let a stalled one go on."""
        living = [one for one in self.controllers if not one.over]
        if living:
            process = living[which % len(living)].process
            process.frozen = not process.frozen
            self.happened["controller stalled"] += process.frozen

    def park(self, which: int, kind: str) -> None:
        """Let a controller go on until right before an operation of a kind, and stall it there."""
        ready = [one for one in self.controllers if not one.over and not one.process.frozen]
        if ready:
            controller = ready[which % len(ready)]
            controller.process.until = kind
            self._resume(controller, 2000)
            controller.process.until = ""
            if not controller.over:
                controller.process.frozen = True
                self.happened[f"controller stalled before {kind}"] += 1

    def accident(self, kind: str, which: int) -> None:
        """Let something befall a running task."""
        running = self.machine.running()
        if not running:
            return
        job, machine = running[which % len(running)], self.machine
        self.happened[kind] += 1
        match kind:
            case "node fails":
                machine.fail_node(job)
            case "node cut off":
                machine.fail_node(job, ghost=True)
            case "preempted":
                machine.requeue(job, wait=self.random.expovariate(1 / 60))
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

    def cancel(self) -> None:
        """Write down a person's wish that all of it stops, as `orchestrate cancel` begins with."""
        self.happened["cancelled by a person"] += 1
        write_json(self.directory.cancelled, {"time": EPOCH + self.machine.now})

    def finish(self) -> list[str]:
        """Stop all trouble, drive the sweep to its end, and say what is wrong with it."""
        self.faults = []
        for controller in self.controllers:
            controller.process.frozen = False
        while living := [one for one in self.controllers if not one.over]:
            self._resume(self.random.choice(living), 200)
        for turn in range(MOST_ROUNDS):
            last = self._advance_whole(turn % 2)
            decision = last.decision
            if decision is not None and decision.state == DONE and not decision.actions:
                break
            if decision is not None and decision.state == CANCELLED and not decision.actions:
                self._check_cancelled()
                self.retry()
            if decision is not None and decision.state == PAUSED and "before they began" in decision.message:
                self.retry()
            self.tick(ROUND_SECONDS)
        else:
            self.wrong.append(
                f"it does not come to its end: {decision}, {last.error!r}, {self.machine.alive()}"
            )
            return self.wrong
        while self.machine.run_to_next():
            pass
        if alive := self.machine.alive():
            self.wrong.append(f"jobs are left on the cluster: {alive}")
        self._check(self._check_results)
        self._check(self._check_rest)
        return self.wrong

    def ran(self) -> Ran:
        """Finish, and tell what this was."""
        before = self.operations
        wrong = self.finish()
        return Ran(
            wrong=wrong, happened=self.happened, operations=before,
            trials=sum(phase.runs for phase in self.template.plan.phases), runs=self.begun,
        )  # fmt: skip

    # What the gate asks.

    def operation(self, process: Process, kind: str, path: str, do: Callable[..., Any]) -> Any:
        """Let an operation of a pretended process happen, or not."""
        if process.dead:
            raise Killed
        if process.beating or (path and not path.startswith(str(self.directory.path))):
            return do()
        self.machine.now += OPERATION_SECONDS
        self.operations += 1
        if kind in ("replace", "link") and process.role == "controller":
            self._check_end(path)
        process.budget -= 1
        if process.budget < 0 or kind == process.until:
            assert process.pause is not None
            process.pause(1.0)
            if process.role == "worker":
                process.budget = int(self.random.expovariate(1 / 10))
        fault = self._due(process, kind)
        if fault is None:
            return do()
        self.happened[f"{process.role}: {fault} at {kind}"] += 1
        process.faulted = True
        return self._go_wrong(process, fault, kind, do)

    def time(self, process: Process) -> float:
        """Return the time of day by a process's own machine."""
        return EPOCH + self.machine.now + self._skew.get(process.host, 0.0)

    def file_time(self, process: Process) -> float:
        """Return the time that a file gets which a process writes."""
        return self.time(process) if self._stamps_by_host else EPOCH + self.machine.now

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return self.machine.now

    def sleep(self, process: Process, seconds: float) -> None:
        """Let a process sleep."""
        until = self.machine.now + seconds
        assert process.pause is not None
        process.pause(seconds)
        if self.machine.now < until:
            self.machine.now = until
            self._beat()

    def process(self, host: str, pid: int) -> Process | None:
        """Return a living process of a machine."""
        found = self.processes.get(pid)
        return found if found and found.host == host and not found.dead else None

    # The inside.

    def _site(self) -> Site:
        draw = self.random
        return Site(
            gpus=draw.choice([1, 2, 4]),
            array=draw.choice([None, None, 1, 2]),
            tasks=draw.choice([None, None, 1, 2]),
            queue_seconds=draw.choice([0.0, 5.0, 60.0]),
            remembered_seconds=draw.choice([0.0, 60.0, 300.0]),
            accounting_seconds=draw.choice([None, 0.0, 30.0]),
        )

    def _process(self, role: str, host: str) -> Process:
        pid = next(self._pids)
        process = Process(world=self, role=role, host=host, pid=pid, started=EPOCH + self.machine.now)
        self.processes[pid] = process
        return process

    def _resume(self, controller: Controller, operations: int) -> None:
        process = controller.process
        process.budget = operations
        try:
            next(controller.steps)
        except StopIteration:
            self._bury(controller)
        except Killed:
            self._bury(controller)
        except Exception as error:
            controller.error = error
            self._judge(process, error)
            self._bury(controller)
        self._beat()
        self._look()

    def _judge(self, process: Process, error: Exception) -> None:
        """Note an exception that nothing called for."""
        called_for = isinstance(error, Busy | LeaseLost | ClusterUnavailable) or (
            isinstance(error, OSError) and process.faulted
        )
        refused = isinstance(error, UserError) and "refused" in str(error)
        if not called_for and not refused:
            self.wrong.append("".join(traceback.format_exception(error)))

    def _bury(self, controller: Controller) -> None:
        controller.over, controller.process.dead = True, True
        if controller.decision is not None and controller.decision.state == DONE:
            self.done = True
        if controller.decision is not None:
            self._check(self._check_counted)
        close_files(controller.process)

    def _end(self, controller: Controller) -> None:
        controller.process.dead = True
        controller.steps.close()  # type: ignore[attr-defined]
        self._bury(controller)

    def _advance_whole(self, host: int) -> Controller:
        controller = self.call(host)
        while not controller.over:
            self._resume(controller, 1_000_000)
        return controller

    def retry(self) -> None:
        """Do what a person does about failures, and to go on after a cancel."""
        self.happened["retried by a person"] += 1
        process = self._process("person", HOSTS[0])
        process.pause, process.budget = lambda seconds: None, 1_000_000
        sweep = Sweep(directory=self.directory, plan=self.template.plan, config=self.template.config)
        try:
            with as_process(process):
                retry_module.retry(sweep)
        except (Busy, Killed):
            pass
        except Exception as error:
            self._judge(process, error)
        process.dead = True
        # The import of the job is another test's.
        write_json(checked_path(self.directory), {"time": EPOCH, "host": HOSTS[0]})

    def _due(self, process: Process, kind: str) -> str | None:
        """Return the fault that is due and can happen at this operation."""
        for place, fault in enumerate(self.faults):
            if fault.at > self.operations:
                break
            here = kind in FAULTS[fault.name] if not fault.kind else kind == fault.kind
            if here and fault.role in ("", process.role):
                del self.faults[place]
                return fault.name
        return None

    def _go_wrong(self, process: Process, fault: str, kind: str, do: Callable[..., Any]) -> Any:
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

    def _command(self, process: Process, client: _Client, step: str) -> None:
        try:
            self.operation(process, step, "", lambda: None)
        except ClusterUnavailable as error:
            if "late" in str(error) and client.request is not None:
                request = client.request
                self.machine.accept(
                    request.intent.token,
                    len(request.tasks),
                    throttle=request.resources.tasks_at_once,
                    delay=self.random.uniform(1, 100),
                )
            raise

    def _work(self, task: Task, job: Job) -> Iterator[float]:
        process = self._process("worker", f"node{job.index}")
        worker = Worker(process=process, job=job, task=task)
        self.workers.append(worker)

        def body(pause: Pause) -> None:
            process.pause = mortal(process, pause)

            def run(batch: Batch, writer: RecordWriter) -> dict[str, int]:
                worker.todo = tuple(spec.trial_id for spec in batch.todo)
                assert process.pause is not None
                return pretend(
                    batch,
                    writer,
                    process.pause,
                    lambda spec: self._begins(worker, spec),
                    lambda: self.time(process),
                )

            worker.fenced = self._abandoned(task)
            worker.known = self._results_of(task)
            try:
                with as_process(process):
                    run_batch(self.directory, task.phase, task.submission, task.index, run)
            except OSError:
                if not process.faulted:
                    self.wrong.append(f"a worker met an error of its own:\n{traceback.format_exc()}")
                raise
            except Exception:
                self.wrong.append(f"a worker failed:\n{traceback.format_exc()}")
                raise
            finally:
                process.dead = True
                close_files(process)

        return as_steps(body)

    def _begins(self, worker: Worker, spec: TrialSpec) -> float:
        """Check that a trial which begins runs nowhere else; returns how long it takes."""
        self.begun += 1
        before, here.process = here.process, None
        try:
            own = worker.task
            for other in self.workers:
                there = other.task
                if (
                    not other.process.dead
                    and other.job is not worker.job
                    and there.phase == own.phase
                    and spec.trial_id in other.todo
                    # A node that was cut off goes on with what was lost to everybody else.
                    and not self._given_up(there)
                    and not self._given_up(own)
                ):
                    self.wrong.append(f"{spec.trial_id} begins in {own} while {there} runs it")
            if spec.trial_id in worker.known:
                self.wrong.append(f"{spec.trial_id} begins in {own} although it had a result")
            if worker.fenced:
                self.wrong.append(f"{spec.trial_id} begins in {own}, which was abandoned before it started")
        finally:
            here.process = before
        return random.Random(f"{self.seed} {spec.trial_id}").choice([2.0, 10.0, 30.0, 300.0])

    def _refresh(self, really: Callable[..., None], *arguments: Any) -> None:
        """Bring the results up to date in one piece: what dies inside it is tested with the results."""
        process = here.process
        assert process is not None
        self.operation(process, "compact", "", lambda: None)
        if self.whole:
            here.process = None
            try:
                really(*arguments)
            finally:
                here.process = process

    def _results_of(self, task: Task) -> frozenset[str]:
        phase = next(phase for phase in self.template.plan.phases if phase.name == task.phase)
        return frozenset(read_phase(self.directory, phase).outcomes)

    def _folder(self, task: Task) -> Path:
        return self.directory.phase(task.kind, task.phase).submissions

    def _abandoned(self, task: Task) -> bool:
        return (self._folder(task) / f"{task.submission:04d}.abandoned.json").exists()

    def _given_up(self, task: Task) -> bool:
        lost = self._folder(task) / f"{task.submission:04d}.lost-{task.index:04d}.json"
        return lost.exists() or self._abandoned(task)

    def _beat(self) -> None:
        if self.machine.now < self._beaten + lease.HEARTBEAT_SECONDS:
            return
        self._beaten = self.machine.now
        for controller in self.controllers:
            if not controller.over and not controller.process.frozen:
                beat(controller.process)

    def _look(self) -> None:
        """Check that what is frozen stays as it is."""
        for phase in self.template.plan.phases:
            folder = self.directory.phase(phase.kind, phase.name)
            for path in (*_files(folder.path, "trials", "space"), *_files(folder.submissions, "")):
                if path.endswith((".parquet", "space.json", ".intent.json")):
                    self._keep(path)

    def _keep(self, path: str) -> None:
        found = os.stat(path)
        stamp = found.st_ino, found.st_mtime_ns
        if self._stamps.get(path) == stamp:
            return
        self._stamps[path] = stamp
        digest = hashlib.sha1(Path(path).read_bytes()).hexdigest()
        if self._frozen_files.setdefault(path, digest) != digest:
            self.wrong.append(f"{os.path.relpath(path, self.directory.path)} changed after it was frozen")
            self._frozen_files[path] = digest

    def _check(self, check: Callable[[], None]) -> None:
        """Check something; what can't even be read is wrong too."""
        try:
            check()
        except Exception as error:
            self.wrong.append("".join(traceback.format_exception(error)))

    def _check_cancelled(self) -> None:
        """Check that a cancelled sweep which has nothing more to do leaves nothing on the cluster."""
        # What was sent without anybody knowing ends by itself as soon as it begins.
        phases = [self.directory.phase(phase.kind, phase.name) for phase in self.template.plan.phases]
        submissions = [one for folder in phases for one in read_submissions(folder.submissions)]
        known = {one.intent.token for one in submissions if one.receipt is not None}
        if left := [job for job in self.machine.alive() if job.token in known]:
            self.wrong.append(f"cancelled, and jobs are left on the cluster: {left}")

    def _check_results(self) -> None:
        facts = affordable_facts(self.directory, self.template.plan, self.template.config)
        for known in facts.phases:
            given_up = known.given_up(self.template.config.slurm.attempts)
            if (
                len(known.trials) != known.planned
                or len({spec.trial_id for spec in known.trials}) != known.planned
            ):
                self.wrong.append(f"'{known.phase.name}' has {len(known.trials)} trials, not {known.planned}")
            for spec in known.trials:
                outcome = known.outcomes.get(spec.trial_id)
                if outcome is None:
                    reason = given_up.get(spec.trial_id, "")
                    if not self._called_for(reason):
                        self.wrong.append(f"{spec.trial_id} has no result ({reason})")
                elif list(outcome.metrics.values()) != [pretended_value(spec)]:
                    self.wrong.append(f"{spec.trial_id} has another setting's result")
            self._check_runs(known)
        if self.whole:
            import pandas as pd

            rows = sorted(pd.read_parquet(self.directory.results / "trials")["trial_id"])
            trained = [known for known in facts.phases if known.phase.trains]
            if rows != sorted(spec.trial_id for known in trained for spec in known.trials):
                self.wrong.append(f"the results hold {rows}")

    def _called_for(self, reason: str) -> bool:
        """Say whether a trial may have been given up for a reason."""
        twice = self.happened["out of memory"] > 1
        return reason == "its stage had closed" or (twice and reason.startswith("out of memory"))

    def _check_runs(self, known: PhaseFacts) -> None:
        """Check that each task which ran is in a receipt or abandoned, and what ran twice was lost before."""
        submissions = {one.number: one for one in known.submissions}
        runs: dict[str, set[tuple[int, int]]] = {}
        ends: dict[str, list[tuple[float, int]]] = {}
        for file in records.read_directory(self.directory.phase(known.phase.kind, known.phase.name).records):
            if not file.header:
                continue
            submission = submissions[file.header["submission"]]
            if submission.receipt is None and not submission.abandoned:
                self.wrong.append(f"{file.path.name} was written by a task outside a receipt")
            for line in file.lines:
                if line["kind"] == "start":
                    task = submission.number, int(file.header["task"])
                    runs.setdefault(line["trial"], set()).add(task)
                elif line["kind"] == "outcome":
                    ends.setdefault(line["trial"], []).append((line["time"], submission.number))
        for trial, outcome in known.outcomes.items():
            if (outcome.time, outcome.submission) != min(ends[trial]):
                self.wrong.append(
                    f"of the results of {trial} at {ends[trial]}, that at {outcome.time} counts"
                )
        for trial, tasks in runs.items():
            whole = [
                (number, index)
                for number, index in tasks
                if not submissions[number].abandoned
                and index not in submissions[number].losses
                and not known.forgiven(trial, number)
            ]
            if len(whole) > 1:
                self.wrong.append(f"{trial} ran in {whole}, none of which was lost")

    def _check_end(self, path: str) -> None:
        """Check that what is about to be called lost, or nothing at all, is so on the cluster."""
        found = re.search(r"/(\d+)\.(abandoned|lost-(\d+))\.json$", path)
        if found is None or sum(not one.over for one in self.controllers) > 1:
            return  # two that overtake each other may both be right when they look
        folder, before, here.process = Path(path).parent, here.process, None
        try:
            (submission,) = (one for one in read_submissions(folder) if one.number == int(found[1]))
        finally:
            here.process = before
        # What arrives late has nothing to run.
        jobs = [
            job
            for job in self.machine.alive()
            if job.token == submission.intent.token and job.payload is not None
        ]
        if found[3] is not None:
            assert submission.receipt is not None
            lost = submission.receipt.jobs[int(found[3])]
            jobs = [job for job in jobs if job.id == lost]
        if jobs:
            self.wrong.append(f"{path} is about to be written, and there is {jobs}")

    def _check_counted(self) -> None:
        """Check that a result which others may have built on stays as it was."""
        if any(self.happened[kind] for kind in ("node cut off", "requeued, ghost", "retried by a person")):
            return
        for phase in self.template.plan.phases:
            for trial, outcome in read_phase(self.directory, phase).outcomes.items():
                counts = outcome.submission, outcome.time
                if self._counted.setdefault(trial, counts) != counts:
                    self.wrong.append(f"the result of {trial} was {self._counted[trial]} and is {counts}")

    def _check_rest(self) -> None:
        before = self._tree()
        for host in range(2):
            decision = self._advance_whole(host).decision
            if decision is None or decision.state != DONE or decision.actions:
                self.wrong.append(f"at rest there is still something to do: {decision}")
        if (after := self._tree()) != before:
            changed = {*before.items()} ^ {*after.items()}
            self.wrong.append(f"at rest files change: {sorted(path for path, _ in changed)}")

    def _tree(self) -> dict[str, str]:
        """Return every file's digest; who held the lease last is no fact of the sweep."""
        return {
            str(path.relative_to(self.directory.path)): hashlib.sha1(path.read_bytes()).hexdigest()
            for path in self.directory.path.glob("**/*")
            if path.is_file() and path.parent != self.directory.lease
        }


def _files(folder: Path, *starts: str) -> list[str]:
    """Return the whole files of a folder whose names start so; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [
                e.path for e in entries if e.name[:1] != "." and e.name.startswith(starts) and e.is_file()
            ]
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield folder


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What one schedule gave."""

    wrong: list[str]
    happened: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    # trials of the sweep, and how many began, repetitions counted
    trials: int = 0
    runs: int = 0
