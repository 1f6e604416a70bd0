"""Whole small sweeps on the simulated cluster, with every process killed, stalled or failed at any operation.

A `World` holds one sweep, one cluster and the processes that drive it. Its verbs (`call`, `go`, `tick`,
`kill`, `freeze`, `park`, `accident`, `cancel`, `retry`) make one thing happen each; `finish` stops all
trouble, drives the sweep to its end and lists what is wrong. `simulated_schedules` draws verbs from a seed.
"""

from __future__ import annotations

import contextlib
import itertools
import random
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
from simulated_checks import Checks
from simulated_faults import Fault, befall, go_wrong, take_due
from simulated_templates import EPOCH, HOSTS, Template
from simulated_workers import Worker, work

import orchestrator.control.act as act
import orchestrator.control.retry as retry_module
import orchestrator.worker.batch as batch_module
from orchestrator.cluster.interface import Request
from orchestrator.cluster.simulation.cluster import SimulatedCluster
from orchestrator.cluster.simulation.machine import Job, Machine, Site
from orchestrator.cluster.simulation.steps import Killed, Pause, as_steps
from orchestrator.control.advance import advance
from orchestrator.control.decide import CANCELLED, DONE, PAUSED, Decision
from orchestrator.control.opened import Sweep
from orchestrator.errors import Busy, ClusterUnavailable, LeaseLost, UserError
from orchestrator.sweep import lease
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import checked_path
from orchestrator.sweep.files import write_json
from orchestrator.sweep.submissions import Receipt
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
        self.machine = Machine(site=self.site, work=self._task, seed=seed)
        self.controllers: list[Controller] = []
        self.workers: list[Worker] = []
        self.processes: dict[int, Process] = {}
        self.operations = 0
        self.faults: list[Fault] = []
        self.happened: Counter[str] = Counter()
        self.checks = Checks(self)
        self.wrong = self.checks.wrong
        self.done = False
        self.begun = 0
        self._pids = itertools.count(1000)
        self._beaten = 0.0
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
        self.checks.frozen()

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
        self.happened[kind] += 1
        befall(self.machine, running[which % len(running)], kind, self.random)

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
                self.checks.cancelled()
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
        self.checks.try_out(self.checks.results)
        self.checks.try_out(lambda: self.checks.rest(lambda host: self._advance_whole(host).decision))
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
        # Two that overtake each other may both be right when they look.
        alone = sum(not one.over for one in self.controllers) <= 1
        if kind in ("replace", "link") and process.role == "controller" and alone:
            self.checks.end_of_task(path)
        process.budget -= 1
        if process.budget < 0 or kind == process.until:
            assert process.pause is not None
            process.pause(1.0)
            if process.role == "worker":
                process.budget = int(self.random.expovariate(1 / 10))
        fault = take_due(self.faults, self.operations, process.role, kind)
        if fault is None:
            return do()
        self.happened[f"{process.role}: {fault} at {kind}"] += 1
        process.faulted = True
        return go_wrong(process, fault, kind, do)

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
        self.checks.frozen()

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
            self.checks.try_out(self.checks.counted)
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

    def _task(self, task: Task, job: Job) -> Iterator[float]:
        worker = Worker(process=self._process("worker", f"node{job.index}"), job=job, task=task)
        self.workers.append(worker)
        return work(self, worker)

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

    def _beat(self) -> None:
        if self.machine.now < self._beaten + lease.HEARTBEAT_SECONDS:
            return
        self._beaten = self.machine.now
        for controller in self.controllers:
            if not controller.over and not controller.process.frozen:
                beat(controller.process)


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
