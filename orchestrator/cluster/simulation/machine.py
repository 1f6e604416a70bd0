"""The machine behind a simulated cluster: a clock, GPUs, a queue with limits, and what befalls its jobs."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from orchestrator.cluster.interface import (
    ACTIVE,
    BY_HAND,
    COMPLETED,
    ENDED,
    FAILED,
    NODE,
    PENDING,
    TIME_LIMIT,
    TaskStatus,
)
from orchestrator.cluster.simulation.steps import Killed
from orchestrator.errors import SubmissionRefused
from orchestrator.worker.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """How a cluster is set up. Times are seconds; None is no limit.

    Attributes:
        gpus: tasks that run at once.
        array: tasks that one submission may have.
        tasks: that may be in the queue or running at once.
        queue_seconds: mean of the time that a task waits, also where a GPU is free; exponential.
        limit_seconds: time limit of a task.
        legs: a task that reaches the limit is put back into the queue, as submitit does it.
        remembered_seconds: how long the queue lists a job that has ended.
        accounting_seconds: how late accounting knows of an end; None: there is no accounting.
        payload_seconds: how long a task that has begun waits for its payload.
    """

    gpus: int = 8
    array: int | None = None
    tasks: int | None = None
    queue_seconds: float = 0.0
    limit_seconds: float | None = None
    legs: bool = True
    remembered_seconds: float = 300.0
    accounting_seconds: float | None = 0.0
    payload_seconds: float = 60.0


@dataclass(eq=False, slots=True)
class Leg:
    """One running of a job: what is left of its work."""

    run: Iterator[float]
    killed: bool = False


@dataclass(eq=False, kw_only=True, slots=True)
class Job:
    """One task on the cluster, as its controller knows it."""

    id: str
    token: str
    array: str
    index: int
    # tasks of its array that may run at once
    throttle: int
    limit: float | None
    state: str = PENDING
    reason: str = "Priority"
    cause: str = ""
    # held in the queue by a person
    held: bool = False
    # when it may begin
    eligible: float = 0.0
    # how often it began
    legs: int = 0
    ended: float = 0.0
    payload: Task | None = None
    leg: Leg | None = None


# The work of a task, piece by piece: each piece gives the seconds until the next one.
Work = Callable[[Task, Job], Iterator[float]]


@dataclass(kw_only=True)
class Machine:
    """All of a cluster's state; it outlives whoever submits to it.

    Attributes:
        site: how it is set up.
        work: what a task does.
        seed: of the waits in the queue.
    """

    site: Site
    work: Work
    seed: int = 0
    now: float = 0.0
    jobs: dict[str, Job] = field(default_factory=dict)
    # submissions that a living process is just sending: token to its host
    sending: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._numbers = itertools.count(1)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._pending: list[Job] = []
        # tasks that hold a GPU, by array
        self._running: Counter[str] = Counter()

    def accept(
        self, token: str, count: int, *, throttle: int, limit: float | None = None, delay: float = 0.0
    ) -> list[str]:
        """Take an array into the queue; returns the job ids of its tasks.

        Args:
            token: its name.
            count: tasks.
            throttle: tasks of it that may run at once.
            limit: seconds that a task may take, where that is less than the site's limit.
            delay: seconds until it is in the queue; before that nobody can see it.

        Raises:
            SubmissionRefused: it is over a limit.
        """
        if self.site.array is not None and count > self.site.array:
            raise SubmissionRefused("Invalid job array specification", later=True)
        if self.site.tasks is not None and len(self.alive()) + count > self.site.tasks:
            raise SubmissionRefused("Job violates accounting/QOS policy (job submit limit)", later=True)
        array = str(next(self._numbers))
        limits = [seconds for seconds in (limit, self.site.limit_seconds) if seconds is not None]
        ids = [f"{array}_{index}" for index in range(count)] if count > 1 else [array]
        for index, job_id in enumerate(ids):
            job = Job(
                id=job_id, token=token, array=array, index=index, throttle=throttle,
                limit=min(limits, default=None),
            )  # fmt: skip
            if delay:
                self.at(self.now + delay, partial(self._enqueue, job))
            else:
                self._enqueue(job)
        return ids

    def deliver(self, job_id: str, task: Task) -> None:
        """Put a task's payload where its job looks for it."""
        job = self.jobs.get(job_id)
        if job is None:
            return
        job.payload = task
        if job.state == ACTIVE and job.leg is None:
            self._work(job)

    def listed(self, token: str | None = None) -> dict[str, TaskStatus]:
        """Return what the queue lists: what lives, and what ended a short while ago."""
        return {
            job.id: TaskStatus(job.state, job.reason, job.cause, job.held)
            for job in self.jobs.values()
            if (token is None or job.token == token) and not self._forgotten(job)
        }

    def accounted(self, job_id: str) -> TaskStatus | None:
        """Return how a job ended as accounting has it, None where it does not know."""
        job, late = self.jobs.get(job_id), self.site.accounting_seconds
        if job is None or job.state != ENDED or late is None or self.now < job.ended + late:
            return None
        return TaskStatus(ENDED, job.reason, job.cause)

    def running(self) -> list[Job]:
        """Return the jobs that hold a GPU."""
        return [job for job in self.jobs.values() if job.state == ACTIVE]

    def alive(self) -> list[Job]:
        """Return the jobs that wait or run."""
        return [job for job in self.jobs.values() if job.state != ENDED]

    def run_until(self, time: float) -> None:
        """Let everything happen that happens until a time."""
        while True:
            self._begin()
            if not self._events or self._events[0][0] > time:
                break
            moment, _, happen = heapq.heappop(self._events)
            self.now = max(self.now, moment)
            happen()
        self.now = max(self.now, time)

    def run_to_next(self) -> bool:
        """Let the next thing happen; False when nothing is left to happen."""
        self._begin()
        if self._events:
            self.run_until(self._events[0][0])
        return bool(self._events)

    def at(self, time: float, happen: Callable[[], None]) -> None:
        """Have something happen at a time."""
        heapq.heappush(self._events, (time, next(self._order), happen))

    def cancel(self, job_id: str, reason: str = "CANCELLED by 0") -> None:
        """End a job, as scancel does; one that has ended stays as it is."""
        if (job := self.jobs.get(job_id)) and job.state != ENDED:
            self.end(job, BY_HAND, reason)

    def end(self, job: Job, cause: str, reason: str, *, ghost: bool = False) -> None:
        """End a job.

        Args:
            job: which.
            cause: one of `interface.CAUSES`.
            reason: in the cluster's words.
            ghost: its processes live on, as on a node that only lost its network.
        """
        self._leave(job, ghost=ghost)
        job.state, job.cause, job.reason, job.ended = ENDED, cause, reason, self.now

    def requeue(self, job: Job, *, ghost: bool = False, wait: float = 0.0) -> None:
        """Put a running job back into the queue, as after a preemption; it begins again as the same job."""
        self._leave(job, ghost=ghost)
        job.state, job.reason = PENDING, "BeginTime"
        self._wait(job, wait)

    def hold(self, job: Job, held: bool = True) -> None:
        """Keep a pending job from beginning, or let it go."""
        job.held, job.reason = held, "JobHeldUser" if held else "Priority"

    def fail_node(self, job: Job, *, ghost: bool = False) -> None:
        """Lose the node of a running job, which is not put back."""
        self.end(job, NODE, "NODE_FAIL", ghost=ghost)

    def _forgotten(self, job: Job) -> bool:
        return job.state == ENDED and self.now > job.ended + self.site.remembered_seconds

    def _enqueue(self, job: Job) -> None:
        self.jobs[job.id] = job
        self._wait(job, 0.0)

    def _wait(self, job: Job, seconds: float) -> None:
        mean = self.site.queue_seconds
        job.eligible = self.now + seconds + (self._random.expovariate(1 / mean) if mean else 0.0)
        self._pending.append(job)
        if job.eligible > self.now:
            self.at(job.eligible, lambda: None)

    def _begin(self) -> None:
        """Start what may start, in the order of the queue."""
        free = self.site.gpus - self._running.total()
        waiting = []
        for place, job in enumerate(self._pending):
            if free <= 0:
                waiting += self._pending[place:]
                break
            if job.state != PENDING:
                continue
            if job.held or job.eligible > self.now or self._running[job.array] >= job.throttle:
                waiting.append(job)
                continue
            free -= 1
            self._start(job)
        self._pending = waiting

    def _start(self, job: Job) -> None:
        job.state, job.reason = ACTIVE, "None"
        job.legs += 1
        self._running[job.array] += 1
        legs = job.legs
        if job.limit is not None:
            self.at(self.now + job.limit, partial(self._reach_limit, job, legs))
        if job.payload is not None:
            self._work(job)
        else:
            self.at(self.now + self.site.payload_seconds, partial(self._miss, job, legs))

    def _work(self, job: Job) -> None:
        assert job.payload is not None
        job.leg = Leg(self.work(job.payload, job))
        self.at(self.now, partial(self._go_on, job, job.leg))

    def _go_on(self, job: Job, leg: Leg) -> None:
        if leg.killed:
            return
        cause, reason = COMPLETED, "COMPLETED"
        try:
            seconds = next(leg.run)
        except StopIteration:
            pass
        except (Exception, Killed):
            cause, reason = FAILED, "FAILED"
        else:
            self.at(self.now + seconds, partial(self._go_on, job, leg))
            return
        leg.killed = True
        if job.leg is leg:
            self.end(job, cause, reason)

    def _miss(self, job: Job, legs: int) -> None:
        if job.state == ACTIVE and job.legs == legs and job.leg is None:
            self.end(job, FAILED, "FAILED")

    def _reach_limit(self, job: Job, legs: int) -> None:
        if job.state != ACTIVE or job.legs != legs:
            return
        if self.site.legs:
            self.requeue(job)
        else:
            self.end(job, TIME_LIMIT, "TIMEOUT")

    def _leave(self, job: Job, *, ghost: bool) -> None:
        """Take a job off its GPU, if it has one."""
        if job.state == ACTIVE:
            self._running[job.array] -= 1
        leg, job.leg = job.leg, None
        if leg is not None and not leg.killed and not ghost:
            leg.killed = True
            close = getattr(leg.run, "close", None)
            if close is not None:
                close()
