"""A batch's trials as processes: one for each, watched until it has ended, however it ends."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from orchestrator.sweep.records import PRUNED
from orchestrator.worker.child import DUMP_SIGNAL
from orchestrator.worker.ending import outcome_line
from orchestrator.worker.offspring import (
    GRACE_SECONDS,
    INTERRUPTED,
    Child,
    Servers,
    end,
    ended,
    exit_status,
    receive,
    share_cores,
    start,
    terminable,
)
from orchestrator.worker.peers import Ended, Peers, gathered
from orchestrator.worker.shortage import killings

if TYPE_CHECKING:
    from orchestrator.sweep.directory import TrialSpec
    from orchestrator.worker.assigned import Batch, RecordWriter

# How a silent child is ended: its stacks, the request, force; and seconds until the next of these. Even that
# does not end a process that waits for a disk or a driver, so nobody waits for it after the last.
_ENDING = ((DUMP_SIGNAL, 1.0), (signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS))
# All children are looked at so often, also those that nothing was heard of.
LOOK_SECONDS = 10.0


def run_children(batch: Batch, writer: RecordWriter) -> dict[str, int]:
    """Run the trials of a batch, each in a process of its own, as many at once as its resources say.

    Returns how many ended in each state.

    Raises:
        PeersLost: a process that trains along did not come, or is gone.
    """
    slots = min(batch.slots, max(1, len(batch.todo)))
    share_cores(max(1, batch.cores // slots))
    waiting, running = list(reversed(batch.todo)), dict[Connection, Child]()
    states: Counter[str] = Counter()
    oom_before = killings()
    with (
        terminable(),
        gathered(batch.meeting, batch.place) as peers,
        contextlib.closing(Servers(batch, batch.quiet)) as servers,
    ):
        looked = time.monotonic()
        try:
            while waiting or running:
                while waiting and len(running) < slots:
                    child = _begin(servers, waiting.pop(), writer, peers)
                    running[child.connection] = child
                heard, looked = _with_news(running, peers, batch.quiet, looked), time.monotonic()
                done = [child for child in heard if not receive(child, writer)]
                done += _given_up([child for child in running.values() if child not in done], batch.quiet)
                done += _overtaken([child for child in running.values() if child not in done], peers)
                for child in done:
                    del running[child.connection]
                    states[_finish(child, batch, oom_before, writer, peers)] += 1
        finally:
            end(running.values(), writer)
    return dict(states)


def _begin(servers: Servers, spec: TrialSpec, writer: RecordWriter, peers: Peers | None) -> Child:
    meeting = peers.begin(spec.trial_id) if peers else {}
    writer.write({"kind": "start", "trial": spec.trial_id, "time": time.time()})
    return start(servers, spec, meeting)


def _with_news(
    running: dict[Connection, Child], peers: Peers | None, quiet: float | None, looked: float
) -> list[Child]:
    """Wait for lines or ends of children, but not for ever; returns whom to hear.

    Args:
        running: all that run.
        peers: the other processes that train along; they are heard here.
        quiet: seconds without a sign of life after which one is taken to hang.
        looked: when they were looked at before this.
    """
    before = time.monotonic()
    due = [child.ask_again - before for child in running.values() if child.asked]
    if quiet is not None:
        due += [child.heard + quiet - before for child in running.values() if not child.asked]
    others = peers.connections if peers else []
    if peers and peers.deadline is not None:
        due.append(peers.deadline - before)
    seconds = max(0.0, min([LOOK_SECONDS, *due]))
    ready = wait([*running, *others], seconds)
    heard = [child for connection, child in running.items() if connection in ready]
    for connection in others:
        if peers and connection in ready:
            peers.take(connection)
    now = time.monotonic()
    if (stopped := now - looked - seconds) > LOOK_SECONDS:
        # The cluster suspended the whole job: no child could show any life.
        for child in running.values():
            child.heard += stopped
    for child in heard:
        child.heard = now
    if not ready and seconds >= LOOK_SECONDS:
        # What a trial has started may hold its pipe open when it is gone itself.
        return [child for child in running.values() if exit_status(child) is not None]
    return heard


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


def _overtaken(running: Collection[Child], peers: Peers | None) -> list[Child]:
    """Ask a child to end whose trial has failed in another process, some time ago; returns it."""
    if peers is None or peers.deadline is None or time.monotonic() < peers.deadline:
        return []
    for child in running:
        child.overtaken = True
        child.send(signal.SIGTERM)
    return list(running)


def _finish(
    child: Child, batch: Batch, oom_before: int | None, writer: RecordWriter, peers: Peers | None
) -> str:
    """Write down how a trial ended; returns its state."""
    ending = ended(child, batch, oom_before)
    if peers:
        failed = child.last.get("time", time.time())
        ending = peers.settle(Ended(rank=0, ending=ending, time=failed, stopped=child.overtaken))
    if ending is None:
        # Without an outcome it is the cluster's loss, and is taken up again from its last checkpoint.
        return INTERRUPTED
    more = dict(child.last.get("device", {}))
    if ending.state == PRUNED:
        ending = replace(ending, metrics=child.report.get("metrics", {}))
        more["step"] = child.report.get("step", 0)
    writer.write(outcome_line(child.spec.trial_id, ending, time.monotonic() - child.began, **more))
    return ending.state
