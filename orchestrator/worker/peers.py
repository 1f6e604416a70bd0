"""Several processes for one trial, seen from the leader, whose own child has rank 0 and writes the records.

For each trial the leader names a port at which its processes may meet, and tells its followers to start
theirs. A trial has completed when the training function has returned in all of them. When it fails in one, it
mostly fails in the others too, for want of the first: what is recorded is the failure that came first.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from orchestrator.sweep.records import FAILED, HUNG, MEMORY
from orchestrator.worker.ending import Ending
from orchestrator.worker.meeting import HERE, PeersLost, gather, hear, reserved_port, tell
from orchestrator.worker.place import Place

# After the first has failed, the others get so long to fail by themselves, and to say of what.
CASCADE_SECONDS = 5.0
# After rank 0 has returned, the others get so long to return too.
PARTING_SECONDS = 30.0
# A follower that was asked to end its child answers within this, or is not waited for any more.
STOPPING_SECONDS = 20.0

# An end from outside, such as a preemption, is noticed so long after it has made others fail.
NOTICED_SECONDS = 2.0

RUN, STOP, END = "run", "stop", "end"

# What gloo, NCCL, MPI and sockets say when it is another process that is gone. A failure that says nothing of
# the kind is the cause of those that do.
_OF_ANOTHER = re.compile(
    r"connection (?:was )?(?:closed|reset|refused|aborted)|broken pipe|closed by peer|ncclRemoteError|"
    r"remote process exited|socket (?:timeout|error)|recvValue failed|DistNetworkError|DistStoreError|"
    r"\bPeerLost\b|wait timeout|timed out waiting|Watchdog caught|ncclSystemError|RendezvousClosedError",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How one rank of a trial ended: None is an end from outside; `stopped` one that was asked for."""

    rank: int
    ending: Ending | None
    time: float
    stopped: bool = False

    def message(self, number: int) -> dict[str, Any]:
        """Return it as a follower tells it."""
        ending = None if self.ending is None else asdict(self.ending)
        return {"number": number, "ending": ending, "time": self.time, "stopped": self.stopped}


def first_to_fail(ends: Sequence[Ended]) -> Ended | None:
    """Return the end that explains the others: None where no rank failed or was ended from outside.

    It is the earliest, those that speak of another process's end only when there is none else.
    """
    bad = [end for end in ends if not end.stopped and (end.ending is None or end.ending.state == FAILED)]
    return min(bad, key=lambda end: (_of_another(end), _when(end), end.rank), default=None)


def _when(end: Ended) -> float:
    # An end from outside is noticed; a failure says itself when it was.
    return end.time - NOTICED_SECONDS if end.ending is None else end.time


def _of_another(end: Ended) -> bool:
    # What ran out of memory may say so in such words too.
    if end.ending is None or end.ending.cause == MEMORY:
        return False
    return _OF_ANOTHER.search(end.ending.error) is not None


class Peers:
    """The other processes of a task.

    Args:
        place: of this one.
        connections: to the others, by rank.
    """

    def __init__(self, place: Place, connections: Mapping[int, Connection]) -> None:
        self._place, self._open = place, dict(connections)
        self._lost: set[int] = set()
        self._number, self._ends = 0, dict[int, Ended]()
        self._port = contextlib.ExitStack()
        # when the own child is asked to end, because another rank has failed; None: they all run
        self.deadline: float | None = None

    @property
    def connections(self) -> list[Connection]:
        """What is worth waiting for: `take` what comes."""
        return list(self._open.values())

    def begin(self, trial: str) -> dict[str, str]:
        """Have all followers start a trial; returns the environment of the own child.

        Raises:
            PeersLost: one is gone.
        """
        if self._lost:
            raise PeersLost(f"the process of rank {min(self._lost)} is gone: see its log")
        self._number, self._ends, self.deadline = self._number + 1, {}, None
        port = self._port.enter_context(reserved_port())
        for rank in list(self._open):
            self._tell(rank, {"do": RUN, "number": self._number, "trial": trial, "port": port})
        return {"MASTER_ADDR": HERE, "MASTER_PORT": str(port)}

    def take(self, connection: Connection) -> None:
        """Take what a follower says; once one has failed there is a deadline."""
        rank = next(rank for rank, its in self._open.items() if its is connection)
        message = hear(connection)
        if message is None:
            self._lose(rank)
        elif message["number"] == self._number:
            ending = None if message["ending"] is None else Ending(**message["ending"])
            end = Ended(rank=rank, ending=ending, time=message["time"], stopped=message["stopped"])
            self._ends[rank] = end
            if first_to_fail([end]) is not None:
                self._hurry(CASCADE_SECONDS)

    def settle(self, own: Ended) -> Ending | None:
        """Wait for the others to end the trial too, and return how it ended on the whole.

        Args:
            own: of rank 0.
        """
        well = first_to_fail([own]) is None and not own.stopped and self.deadline is None
        self._wait(PARTING_SECONDS if well else CASCADE_SECONDS, until_failure=True)
        late = self._missing()
        if late:
            hung = own.ending is not None and own.ending.cause == HUNG
            for rank in late:
                self._tell(rank, {"do": STOP, "number": self._number, "stacks": hung})
            self._wait(STOPPING_SECONDS)
            for rank in self._missing():
                self._lose(rank)
        self._port.close()
        return self._whole(own, late)

    def close(self) -> None:
        """Let the followers go: they end what they still run, and then themselves."""
        self._port.close()
        for rank, connection in list(self._open.items()):
            self._tell(rank, {"do": END})
            connection.close()
        self._open.clear()

    def _whole(self, own: Ended, late: Sequence[int]) -> Ending | None:
        if self._lost:
            # It is the cluster that ends such a process, and what the others say of that is no failure.
            return None
        first = first_to_fail([own, *self._ends.values()])
        if first is None:
            if late and not own.stopped:
                ranks = ", ".join(map(str, late))
                print(f"rank {ranks} was ended: it had not returned when rank 0 had", file=sys.stderr)
            return own.ending
        if first.ending is None:
            return None
        where = f"in the process of rank {first.rank} of {self._place.count}"
        error = f"{where}:\n{first.ending.error}" if first.rank else first.ending.error
        return replace(first.ending, error=error)

    def _missing(self) -> list[int]:
        return [rank for rank in self._open if rank not in self._ends]

    def _wait(self, seconds: float, *, until_failure: bool = False) -> None:
        deadline = time.monotonic() + seconds
        if until_failure and self.deadline is not None:
            deadline = min(deadline, self.deadline)
        while self._missing() and (left := deadline - time.monotonic()) > 0:
            for connection in wait([self._open[rank] for rank in self._missing()], left):
                self.take(connection)  # type: ignore[arg-type]
            if until_failure and self.deadline is not None:
                deadline = min(deadline, self.deadline)

    def _hurry(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def _tell(self, rank: int, message: dict[str, Any]) -> None:
        try:
            tell(self._open[rank], message)
        except OSError:
            self._lose(rank)

    def _lose(self, rank: int) -> None:
        print(f"the process of rank {rank} is gone", file=sys.stderr, flush=True)
        self._open.pop(rank).close()
        self._lost.add(rank)
        # There is no result without it, and nothing to learn from the others.
        self._hurry(0.0)


@contextlib.contextmanager
def gathered(file: Path, place: Place) -> Iterator[Peers | None]:
    """Give the other processes of a task, None where there are none; they are let go afterwards.

    Args:
        file: by which they meet.
        place: of this process.

    Raises:
        PeersLost: not all of them came.
    """
    if place.count == 1:
        yield None
        return
    with contextlib.closing(Peers(place, gather(file, place))) as peers:
        yield peers
