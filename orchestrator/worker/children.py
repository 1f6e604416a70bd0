"""A batch's trials as processes: one for each, watched until it has ended, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from orchestrator.schema import task_cores, trials_at_once
from orchestrator.sweep.directory import TrialSpec
from orchestrator.sweep.records import PRUNED
from orchestrator.worker.child import DUMP_SIGNAL, prepare, run_trial
from orchestrator.worker.ending import ENDED_FROM_OUTSIDE, Ending, judge, killed, outcome_line, silent
from orchestrator.worker.server import ForkServer, ServerLost
from orchestrator.worker.shortage import killings

if TYPE_CHECKING:
    from orchestrator.worker.batch import Batch, RecordWriter

INTERRUPTED = "interrupted"

# A child that was asked to end gets so long before it is made to.
GRACE_SECONDS = 5.0
# How a silent child is ended: its stacks, the request, force; and seconds until the next of these. Even that
# does not end a process that waits for a disk or a driver, so nobody waits for it after the last.
_ENDING = ((DUMP_SIGNAL, 1.0), (signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS))
# All children are looked at so often, also those that nothing was heard of.
LOOK_SECONDS = 10.0
_MOST_DUMPED = 2**20
# Two servers that end by themselves are bad luck; more are not.
_MOST_SERVERS = 3


@dataclass
class Child:
    """A running trial, seen from its task."""

    spec: TrialSpec
    server: ForkServer
    pid: int
    connection: Connection
    dumps: int
    began: float
    # when it last gave a sign of life
    heard: float
    # the last report, and the line that ended it
    report: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    # how often it was asked to end for its silence, and when it is asked again
    asked: int = 0
    ask_again: float = 0.0
    exitcode: int | None = None
    forced: bool = False
    # its server is gone, and nobody will tell how it ended
    orphaned: bool = False

    def send(self, number: int) -> None:
        """Send a signal: force to all that it started too, anything else to itself alone."""
        self.forced = self.forced or number == signal.SIGKILL
        # Its number is not another's yet: the server has not asked for its exit status.
        with contextlib.suppress(OSError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)


def run_children(batch: Batch, writer: RecordWriter) -> dict[str, int]:
    """Run the trials of a batch, each in a process of its own, as many at once as its resources say.

    Returns how many ended in each state.
    """
    slurm = batch.config.slurm
    slots = min(trials_at_once(slurm), max(1, len(batch.todo)))
    quiet = None if slurm.quiet_minutes is None else 60 * slurm.quiet_minutes
    _share_cores(max(1, task_cores(slurm) // slots))
    waiting, running = list(reversed(batch.todo)), dict[Connection, Child]()
    states: Counter[str] = Counter()
    oom_before = killings()
    with _terminable(), contextlib.closing(Servers(batch, quiet)) as servers:
        looked = time.monotonic()
        try:
            while waiting or running:
                while waiting and len(running) < slots:
                    child = _start(servers, waiting.pop(), writer)
                    running[child.connection] = child
                heard, looked = _with_news(running, quiet, looked), time.monotonic()
                for child in heard:
                    if not _receive(child, writer):
                        del running[child.connection]
                        states[_finish(child, batch, oom_before, writer)] += 1
                for child in _given_up(running.values(), quiet):
                    del running[child.connection]
                    states[_finish(child, batch, oom_before, writer)] += 1
        finally:
            _end(running.values(), writer)
    return dict(states)


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


def _share_cores(threads: int) -> None:
    """Let trials that run side by side share the cores of their task."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    # Libraries read these when they are imported; submitit has imported numpy already.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)


class Servers:
    """The fork server of a batch, and those that take its place when it is lost.

    Args:
        batch: whose trials it forks.
        quiet: seconds in which its imports must be done; None waits for ever.
    """

    def __init__(self, batch: Batch, quiet: float | None) -> None:
        self._batch, self._quiet = batch, quiet
        self._started: list[ForkServer] = []
        try:
            self._start(imports=True)
        except ServerLost as error:
            print(f"the job can't be imported once for all trials ({error}): each does it", file=sys.stderr)
            self._start(imports=False)

    def fork(self) -> tuple[ForkServer, int, Connection, int]:
        """Start a child; returns its server and what `ForkServer.fork` returns."""
        while True:
            try:
                return self._started[-1], *self._started[-1].fork()
            except ServerLost as error:
                if len(self._started) >= _MOST_SERVERS:
                    raise
                print(f"the fork server was lost ({error}); another one is started", file=sys.stderr)
                self._start(imports=True)

    def close(self) -> None:
        """End them."""
        for server in self._started:
            server.close()

    def _start(self, *, imports: bool) -> None:
        server = ForkServer(
            partial(prepare, self._batch, imports=imports), partial(run_trial, self._batch), self._quiet
        )
        self._started.append(server)


def _start(servers: Servers, spec: TrialSpec, writer: RecordWriter) -> Child:
    writer.write({"kind": "start", "trial": spec.trial_id, "time": time.time()})
    began = time.monotonic()
    server, pid, connection, dumps = servers.fork()
    # A child that is dead already is heard of like any other.
    with contextlib.suppress(OSError):
        connection.send(spec)
    return Child(
        spec=spec, server=server, pid=pid, connection=connection, dumps=dumps, began=began, heard=began
    )


def _with_news(running: dict[Connection, Child], quiet: float | None, looked: float) -> list[Child]:
    """Wait for lines or ends of children, but not for ever; returns whom to hear.

    Args:
        running: all that run.
        quiet: seconds without a sign of life after which one is taken to hang.
        looked: when they were looked at before this.
    """
    before = time.monotonic()
    due = [child.ask_again - before for child in running.values() if child.asked]
    if quiet is not None:
        due += [child.heard + quiet - before for child in running.values() if not child.asked]
    seconds = max(0.0, min([LOOK_SECONDS, *due]))
    ready = wait(list(running), seconds)
    heard = [running[connection] for connection in ready]  # type: ignore[index]
    now = time.monotonic()
    if (stopped := now - looked - seconds) > LOOK_SECONDS:
        # The cluster suspended the whole job: no child could show any life.
        for child in running.values():
            child.heard += stopped
    for child in heard:
        child.heard = now
    if not heard and seconds >= LOOK_SECONDS:
        # What a trial has started may hold its pipe open when it is gone itself.
        return [child for child in running.values() if _exitcode(child) is not None]
    return heard


def _exitcode(child: Child) -> int | None:
    """Return a child's exit status; None while it lives, or when nobody can tell any more."""
    if child.exitcode is None and not child.orphaned:
        try:
            child.exitcode = child.server.exitcode(child.pid)
        except ServerLost:
            child.orphaned = True
    return child.exitcode


def _receive(child: Child, writer: RecordWriter) -> bool:
    """Take one line from a child; False when there will be no more."""
    try:
        if child.exitcode is not None and not child.connection.poll():
            return False
        line = child.connection.recv()
    except (EOFError, OSError):
        return False
    except Exception as error:  # a line cut short by the child's death does not unpickle
        print(f"{child.spec.trial_id}: unreadable line ({error})", file=sys.stderr)
        return False
    kind = line["kind"]
    if kind in ("report", "checkpoint", "finding"):
        writer.write(line)
        if kind == "report":
            child.report = line
    elif kind != "alive":
        child.last = line
    return True


def _given_up(running: Collection[Child], quiet: float | None) -> list[Child]:
    """Ask silent children to end, each time more firmly; returns those that nothing ends."""
    if quiet is None:
        return []
    now = time.monotonic()
    given_up = []
    for child in running:
        if now < (child.ask_again if child.asked else child.heard + quiet):
            continue
        if child.asked == len(_ENDING):
            given_up.append(child)
            continue
        number, seconds = _ENDING[child.asked]
        child.send(number)
        child.asked, child.ask_again = child.asked + 1, now + seconds
    return given_up


def _finish(child: Child, batch: Batch, oom_before: int | None, writer: RecordWriter) -> str:
    """Write down how a trial ended; returns its state."""
    exitcode = _wait_for_exit(child)
    child.connection.close()
    stack = _dumped(child)
    ending = _ending(child, exitcode, stack, batch, oom_before)
    if ending is None:
        # Without an outcome it is the cluster's loss, and is taken up again from its last checkpoint.
        how = "its fork server was lost" if exitcode is None else f"by signal {-exitcode}"
        print(f"{child.spec.trial_id}: ended from outside ({child.last.get('error', how)})", file=sys.stderr)
        return INTERRUPTED
    stopped = {}
    if ending.state == PRUNED:
        ending = replace(ending, metrics=child.report.get("metrics", {}))
        stopped["step"] = child.report.get("step", 0)
    writer.write(outcome_line(child.spec.trial_id, ending, time.monotonic() - child.began, **stopped))
    return ending.state


def _ending(
    child: Child, exitcode: int | None, stack: str, batch: Batch, oom_before: int | None
) -> Ending | None:
    """Say how a trial ended; None when it was ended from outside, and is to be run again."""
    quiet = batch.config.slurm.quiet_minutes
    if child.asked and quiet is not None and child.last.get("kind") not in ("return", "stopped"):
        return silent(quiet, child.report.get("step"), stack)
    if not child.last:
        if exitcode in ENDED_FROM_OUTSIDE or (exitcode is None and not child.forced):
            return None
        if exitcode == -signal.SIGKILL and not child.forced:
            # When a whole job is killed, its task may see a child go first: then it does not get past here.
            time.sleep(1.0)
            after = killings()
            return killed(None if after is None or oom_before is None else after - oom_before)
    if child.last.get("disk"):
        # A full disk says nothing about the setting, and it may be free again by the next attempt.
        return None
    return judge(child.last, exitcode, batch.metric, stack)


def _wait_for_exit(child: Child) -> int | None:
    """Wait for a child that closed its pipe, and make it end when it does not; None when it can't be told."""
    # Of a silent child it does not matter, and one that nothing ends would never tell.
    deadline, pause = time.monotonic() + (0 if child.asked else GRACE_SECONDS), 0.0005
    while (exitcode := _exitcode(child)) is None and not child.orphaned and time.monotonic() < deadline:
        if time.monotonic() + 0.1 > deadline and not child.forced:
            child.send(signal.SIGKILL)
            deadline += GRACE_SECONDS
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return exitcode


def _dumped(child: Child) -> str:
    """Return the stacks that a child wrote down when it hung or died, and put them into the task's log."""
    with os.fdopen(child.dumps, "rb") as file:
        # The child's writing moved the place that it shares with us.
        file.seek(0)
        text = file.read(_MOST_DUMPED).decode(errors="replace")
    if text:
        print(f"{child.spec.trial_id}: the stacks of its threads:\n{text}", file=sys.stderr, flush=True)
    return text


def _end(running: Collection[Child], writer: RecordWriter) -> None:
    """End what still runs; the trials have no outcome and are taken up again."""
    if not running:
        return
    # SLURM sends several signals in a row; none of them may cut this short.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        for child in running:
            child.send(signal.SIGTERM)
        with contextlib.suppress(OSError):  # of a full disk, say: what is written here only explains
            for child in running:
                writer.write({"kind": INTERRUPTED, "trial": child.spec.trial_id, "time": time.time()})
        _drain({child.connection: child for child in running}, writer)
    finally:
        for child in running:
            child.send(signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)


def _drain(open_still: dict[Connection, Child], writer: RecordWriter) -> None:
    """Take what children that were asked to end still have to say, until they have ended or time is up.

    A checkpoint that is offered counts; what they return does not: it may be the result of stopping early.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while open_still and (left := deadline - time.monotonic()) > 0:
        for connection in wait(list(open_still), left):
            child = open_still[connection]  # type: ignore[index]
            if not _receive(child, writer):
                del open_still[child.connection]
