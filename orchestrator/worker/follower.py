"""A process of rank 1 and up: it trains along with its leader, and says how that ended.

It starts a child for each trial that the leader starts, in the same way, and writes nothing to the records.
It ends when the leader says so, or is gone.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

from orchestrator.sweep.directory import TrialSpec
from orchestrator.sweep.records import COMPLETED
from orchestrator.worker.assigned import Batch
from orchestrator.worker.child import DUMP_SIGNAL
from orchestrator.worker.ending import Ending
from orchestrator.worker.meeting import Leader, hear, tell
from orchestrator.worker.offspring import (
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
from orchestrator.worker.peers import RUN, STOP, Ended
from orchestrator.worker.shortage import killings

# The child is looked at so often even when nothing is heard of it.
LOOK_SECONDS = 10.0
# So long for a child to write down its stacks.
_STACKS_SECONDS = 1.0


class _Nowhere:
    """Takes lines of a rank that keeps no records."""

    def write(self, line: dict[str, Any]) -> None:
        """Drop a line."""


def follow(batch: Batch, specs: Mapping[str, TrialSpec], leader: Leader) -> None:
    """Run the trials that the leader runs, until it lets this process go or is gone.

    Args:
        batch: of the leader; its trials are not looked at.
        specs: the phase's trials, by id.
        leader: whom to follow.
    """
    share_cores(batch.cores)
    oom_before, link = killings(), leader.connection
    number, child = 0, None
    with terminable(), contextlib.closing(Servers(batch, batch.quiet)) as servers:
        try:
            while True:
                heard = wait([link, *([child.connection] if child else [])], LOOK_SECONDS)
                if child and _is_done(child, heard):
                    _report(link, number, _outcome(child, batch, oom_before))
                    child = None
                if link not in heard:
                    continue
                order = hear(link)
                if order is not None and order["do"] == RUN:
                    number, address = order["number"], leader.address
                    meeting = {"MASTER_ADDR": address, "MASTER_PORT": str(order["port"])}
                    child = start(servers, specs[order["trial"]], meeting)
                elif order is not None and order["do"] == STOP:
                    if child and order["number"] == number:
                        _stop(child, stacks=order["stacks"])
                        _outcome(child, batch, oom_before)
                        child = None
                        _report(link, number, Ended(rank=0, ending=None, time=time.time(), stopped=True))
                else:
                    break
        finally:
            end([child] if child else [], _Nowhere())


def _is_done(child: Child, heard: list[Any]) -> bool:
    """Take the lines of a child; says whether there will be no more."""
    if child.connection in heard:
        return not receive(child, _Nowhere())
    # What it has started may hold its pipe open when it is gone itself.
    return not heard and exit_status(child) is not None


def _outcome(child: Child, batch: Batch, oom_before: int | None) -> Ended:
    ending = ended(child, batch, oom_before)
    # Metrics are rank 0's to return.
    if child.last.get("kind") in ("return", "stopped"):
        ending = Ending(COMPLETED)
    elif ending is not None:
        print(f"{child.spec.trial_id}: {ending.error}", file=sys.stderr, flush=True)
    return Ended(rank=0, ending=ending, time=child.last.get("time", time.time()))


def _stop(child: Child, *, stacks: bool) -> None:
    if stacks:
        child.send(DUMP_SIGNAL)
        time.sleep(_STACKS_SECONDS)
    child.send(signal.SIGTERM)


def _report(link: Connection, number: int, end: Ended) -> None:
    # A leader that is gone is heard of next.
    with contextlib.suppress(OSError):
        tell(link, end.message(number))
