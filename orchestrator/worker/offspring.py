"""One trial as a process of its own: started through the fork server, heard, and how it ended.

Used by the task that runs trials (`children`), and by its followers where several processes train one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.sweep.directory import TrialSpec
from orchestrator.worker.child import prepare, run_trial
from orchestrator.worker.ending import ENDED_FROM_OUTSIDE, Ending, judge, killed, silent
from orchestrator.worker.server import ForkServer, ServerLost
from orchestrator.worker.shortage import killings

if TYPE_CHECKING:
    from orchestrator.worker.assigned import Batch

INTERRUPTED = "interrupted"

# A child that was asked to end gets so long before it is made to.
GRACE_SECONDS = 5.0
_MOST_DUMPED = 2**20
# Two servers that end by themselves are bad luck; more are not.
_MOST_SERVERS = 3


class Lines(Protocol):
    """Takes what trials send for the records."""

    def write(self, line: dict[str, Any]) -> None:
        """Take one line."""


@dataclass(eq=False)
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
    # it was asked to end because its trial has failed in another process
    overtaken: bool = False

    def send(self, number: int) -> None:
        """Send a signal: force to all that it started too, anything else to itself alone."""
        self.forced = self.forced or number == signal.SIGKILL
        # Its number is not another's yet: the server has not asked for its exit status.
        with contextlib.suppress(OSError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM (scancel, preemption) unwind this process, so that its children are ended with it."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def share_cores(threads: int) -> None:
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


def start(servers: Servers, spec: TrialSpec, environment: Mapping[str, str]) -> Child:
    """Start a trial, with some variables of its own; returns its process."""
    began = time.monotonic()
    server, pid, connection, dumps = servers.fork()
    # A child that is dead already is heard of like any other.
    with contextlib.suppress(OSError):
        connection.send((spec, dict(environment)))
    return Child(
        spec=spec, server=server, pid=pid, connection=connection, dumps=dumps, began=began, heard=began
    )


def exit_status(child: Child) -> int | None:
    """Return a child's exit status; None while it lives, or when nobody can tell any more."""
    if child.exitcode is None and not child.orphaned:
        try:
            child.exitcode = child.server.exitcode(child.pid)
        except ServerLost:
            child.orphaned = True
    return child.exitcode


def receive(child: Child, writer: Lines) -> bool:
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
    if kind in ("report", "checkpoint", "dropped", "finding"):
        writer.write(line)
        if kind == "report":
            child.report = line
    elif kind != "alive":
        child.last = line
    return True


def ended(child: Child, batch: Batch, oom_before: int | None) -> Ending | None:
    """Take in what is left of a child that ended, or that is to; says how, None when from outside.

    What was ended from outside is to be run again.

    Args:
        child: which.
        batch: what it is of.
        oom_before: `killings` before its batch began.
    """
    exitcode = _wait_for_exit(child)
    child.connection.close()
    stack = _dumped(child)
    ending = _ending(child, exitcode, stack, batch, oom_before)
    if ending is None:
        how = "its fork server was lost" if exitcode is None else f"by signal {-exitcode}"
        print(f"{child.spec.trial_id}: ended from outside ({child.last.get('error', how)})", file=sys.stderr)
    return ending


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
    while (exitcode := exit_status(child)) is None and not child.orphaned and time.monotonic() < deadline:
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


def end(running: Collection[Child], writer: Lines) -> None:
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


def _drain(open_still: dict[Connection, Child], writer: Lines) -> None:
    """Take what children that were asked to end still have to say, until they have ended or time is up.

    A checkpoint that is offered counts; what they return does not: it may be the result of stopping early.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while open_still and (left := deadline - time.monotonic()) > 0:
        for connection in wait(list(open_still), left):
            child = open_still[connection]  # type: ignore[index]
            if not receive(child, writer):
                del open_still[child.connection]
