"""Deciding: a pure function from facts to actions. No file, no cluster, no clock is touched here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from orchestrator.cluster.interface import ALIVE, PENDING, Capacity, TaskStatus
from orchestrator.control.finished import has_result
from orchestrator.control.pausing import why_pause
from orchestrator.control.room import learned
from orchestrator.planning.plan import Phase
from orchestrator.sweep.directory import CHECKS, FINAL, STAGE
from orchestrator.sweep.facts import Facts, PhaseFacts
from orchestrator.sweep.submissions import Submission

RUNNING, DONE, PAUSED, CANCELLED, STUCK = "running", "done", "paused", "cancelled", "stuck"

# Seconds between two times that the results are brought up to date while the sweep goes on.
COMPACT_SECONDS = 15.0
# The state of each task that is in question: (phase, submission, task).
TaskKey = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class CheckJob:
    """Import the job once, before anything is submitted."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Draw a phase's ranges and write its trials down, or those of a further wave."""

    phase: Phase
    wave: int = 0


@dataclass(frozen=True, slots=True)
class Submit:
    """Submit trials, in tasks.

    `number` is the submission's: a process that decided the same at the same time can't have it too, and one
    that stalled after deciding finds it taken. `larger` asks for what is declared for trials out of memory.
    """

    phase: Phase
    tasks: tuple[tuple[str, ...], ...]
    number: int
    larger: bool = False


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Find out what became of an intent that has no receipt."""

    phase: Phase
    submission: Submission


@dataclass(frozen=True, slots=True)
class MarkLost:
    """Write down that a task ended without an outcome for the trials that are `left`; it had `begun` some."""

    phase: Phase
    submission: Submission
    task: int
    reason: str
    cause: str
    left: tuple[str, ...]
    begun: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stop:
    """Cancel what runs of a phase."""

    phase: Phase
    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compact:
    """Bring the Parquet results and the report up to date."""

    # how many rows there are to be found in them: outcomes, and trials that were given up
    rows: int


Action = CheckJob | Freeze | Submit | Reconcile | MarkLost | Stop | Compact


@dataclass(frozen=True, slots=True)
class Decision:
    """Where the sweep stands and what to do next.

    `message` says why it is not simply running; `waiting` counts the tasks in the queue by SLURM's reason.
    """

    state: str
    actions: tuple[Action, ...] = ()
    message: str = ""
    waiting: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the decision may use of the cluster.

    Attributes:
        attempts: how often a trial is started when the cluster ends it.
        capacity: what the cluster takes.
        now: seconds since the epoch.
    """

    attempts: int
    capacity: Capacity = field(default_factory=Capacity)
    now: float = 0.0


def decide(facts: Facts, tasks: Mapping[TaskKey, TaskStatus], limits: Limits) -> Decision:
    """Compare what is with the plan.

    Args:
        facts: what the directory says.
        tasks: what the cluster says of every task in question (see `in_question`).
        limits: what may be used.
    """
    decision = _decide(facts, tasks, limits)
    waiting = Counter(status.reason for status in tasks.values() if status.state == PENDING and status.reason)
    if decision.state == RUNNING and not decision.message:
        decision = replace(decision, message=_stuck(tasks) or _refused(facts))
    return replace(decision, waiting=dict(waiting.most_common()))


def _decide(facts: Facts, tasks: Mapping[TaskKey, TaskStatus], limits: Limits) -> Decision:
    if facts.cancelled:
        return Decision(CANCELLED, _stop_everything(facts, tasks), "cancelled")
    begun = [known for known in facts.phases if known.frozen]
    if not begun:
        return Decision(RUNNING, (Freeze(facts.phases[0].phase),))
    for known in begun:
        if message := why_pause(known, limits.attempts, accepted=facts.accepted):
            return Decision(PAUSED, (*_stop(known, tasks), *_compact(facts, limits)), message)
    needs = [_need(known, tasks, limits.attempts) for known in begun]
    # The phases before it have closed: what is left of them is seen to, and not waited for.
    current = begun[-1]
    if _ripe(current, needs[-1], limits.attempts) and (begins := _what_begins(facts, len(begun), limits)):
        return begins
    steps = _steps(needs, facts, limits)
    if steps and not facts.checked:
        return Decision(RUNNING, (CheckJob(),))
    if len(begun) == len(facts.phases) and settled(current, limits.attempts):
        # The sweep has its result: stragglers are ended, except what a person asked to have run again.
        steps += tuple(stop for known in begun[:-1] for stop in _stop(known, tasks, spare_wished=True))
        if not steps and all(settled(known, limits.attempts) for known in begun):
            return Decision(DONE, _compact(facts, limits))
    return Decision(RUNNING, steps or _compact_by_the_way(facts, limits, len(begun) - 1))


def _what_begins(facts: Facts, begun: int, limits: Limits) -> Decision | None:
    """Decide on what comes after a phase with enough results: its next wave, or the next phase.

    Returns:
        The decision; None when it was the last phase, or when stragglers may still bring what the next needs.
    """
    current = facts.phases[begun - 1]
    more = current.waves < len(current.phase.wave_sizes)
    if not more and begun == len(facts.phases):
        return None
    if facts.stop:
        return Decision(STUCK, _compact(facts, limits), facts.stop)
    if more:
        return Decision(RUNNING, (Freeze(current.phase, current.waves),))
    following, metric = facts.phases[begun].phase, facts.plan.metric
    if following.kind == FINAL and not has_result(current, metric) and not settled(current, limits.attempts):
        return None
    if message := _cannot_freeze(facts.phases[:begun], following, metric):
        return Decision(STUCK, _compact(facts, limits), message)
    return Decision(RUNNING, (Freeze(following),))


def in_question(known: PhaseFacts) -> list[tuple[Submission, int]]:
    """Return the tasks whose state the cluster must tell: submitted, not lost, with trials that miss."""
    return [
        (submission, index)
        for submission in known.submissions
        if submission.receipt is not None and not submission.abandoned
        for index, trials in enumerate(submission.intent.tasks)
        if index not in submission.losses and any(_misses(known, trial, submission) for trial in trials)
    ]


def settled(known: PhaseFacts, attempts: int) -> bool:
    """Say whether every trial of every wave of a phase has a result, or was given up."""
    drawn = known.waves == len(known.phase.wave_sizes)
    return drawn and _in(known, attempts) == len(known.trials)


def _in(known: PhaseFacts, attempts: int) -> int:
    """Count the trials that have a result or were given up."""
    given_up = known.given_up(attempts)
    return sum(trial.trial_id in known.outcomes or trial.trial_id in given_up for trial in known.trials)


def _misses(known: PhaseFacts, trial: str, submission: Submission) -> bool:
    """Say whether a trial of a submission has no outcome that this submission, or a later one, may leave."""
    if trial in known.outcomes or known.forgiven(trial, submission.number):
        return False
    return known.short_of_memory.get(trial, 0) < submission.number


def _unclear(known: PhaseFacts) -> list[Submission]:
    """Return the submissions of which nobody knows yet whether the cluster took them."""
    return [s for s in known.submissions if s.receipt is None and not s.abandoned]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Need:
    """What one phase that has begun needs, beyond waiting."""

    phase: Phase
    # unclear submissions to be settled and lost tasks to be noted
    notes: tuple[Action, ...]
    # trials to be submitted, and those of them that ask for more memory
    missing: tuple[str, ...]
    larger: frozenset[str]
    # tasks of it that the cluster holds
    busy: int
    # the number of its next submission
    number: int


def _need(known: PhaseFacts, tasks: Mapping[TaskKey, TaskStatus], attempts: int) -> _Need:
    """Work out what a phase needs."""
    phase = known.phase
    notes: list[Action] = []
    # Trials that may be running, or whose task's end is not written down yet, are not submitted again.
    waiting: set[str] = set()
    for submission in _unclear(known):
        notes.append(Reconcile(phase, submission))
        waiting.update(trial for task in submission.intent.tasks for trial in task)
    busy = 0
    for submission, index in in_question(known):
        status = _status(tasks, (phase.name, submission.number, index))
        waiting.update(submission.intent.tasks[index])
        if status.state in ALIVE:
            busy += 1
        else:
            notes.append(_lost(known, submission, index, status))
    given_up = known.given_up(attempts)
    missing = tuple(
        trial.trial_id
        for trial in known.trials
        if trial.trial_id not in known.outcomes
        and trial.trial_id not in waiting
        and trial.trial_id not in given_up
    )
    return _Need(
        phase=phase,
        notes=tuple(notes),
        missing=missing,
        larger=frozenset(known.short_of_memory).intersection(missing),
        busy=busy,
        number=1 + max((submission.number for submission in known.submissions), default=0),
    )


def _lost(known: PhaseFacts, submission: Submission, index: int, status: TaskStatus) -> MarkLost:
    left = tuple(trial for trial in submission.intent.tasks[index] if _misses(known, trial, submission))
    begun = known.started.get((submission.number, index), frozenset())
    return MarkLost(known.phase, submission, index, status.reason, status.cause, left, begun)


def _ripe(known: PhaseFacts, need: _Need, attempts: int) -> bool:
    """Say whether so many trials are in that what comes next may begin, with none left to be submitted."""
    # 0.55 of 100 is 55, not the 56 that the rounding of floats would make it.
    enough = math.ceil(known.phase.close * len(known.trials) - 1e-9)
    return not need.notes and not need.missing and _in(known, attempts) >= enough


def _steps(needs: Sequence[_Need], facts: Facts, limits: Limits) -> tuple[Action, ...]:
    """Return the notes of all phases, and the submissions that there is room for beside what runs."""
    steps: list[Action] = []
    taken = learned((submission for known in facts.phases for submission in known.submissions), limits.now)
    free = _least(limits.capacity.tasks, -sum(need.busy for need in needs))
    array = min((limit for limit in (limits.capacity.array, taken) if limit is not None), default=None)
    for need in needs:
        steps += need.notes
        number = need.number
        for larger in (False, True):
            trials = [trial for trial in need.missing if (trial in need.larger) == larger]
            tasks = _sliced(trials, need.phase.batch)[:free]
            free = _least(free, -len(tasks))
            # Until the cluster has taken one wave, it is not known whether it takes another.
            for wave in _sliced(tasks, array)[: None if taken is None else 1]:
                steps.append(Submit(need.phase, tuple(map(tuple, wave)), number, larger))
                number += 1
    return tuple(steps)


def _least(limit: int | None, change: int) -> int | None:
    return None if limit is None else max(0, limit + change)


T = TypeVar("T")


def _sliced(items: Sequence[T], size: int | None) -> list[Sequence[T]]:
    """Cut a sequence into pieces of at most a size; None is one piece, and a size of 0 leaves nothing."""
    if size is None:
        return [items] if items else []
    return [items[start : start + size] for start in range(0, len(items), size)] if size else []


def _cannot_freeze(begun: Sequence[PhaseFacts], phase: Phase, metric: str) -> str:
    """Return why a phase can't begin after those that have, or nothing."""
    stages = [known for known in begun if known.phase.kind == STAGE]
    if phase.kind != FINAL or any(has_result(known, metric) for known in stages):
        return ""
    names = " or ".join(f"'{known.phase.name}'" for known in stages)
    return f"no trial of {names} gave a finite {metric}, so there is no setting for the final runs"


def _stuck(tasks: Mapping[TaskKey, TaskStatus]) -> str:
    """Say that tasks wait for what will not come by itself, or nothing."""
    reasons = Counter(status.reason for status in tasks.values() if status.stuck)
    return "; ".join(
        f"{count} {'task waits' if count == 1 else 'tasks wait'} for a reason that does not clear by itself: "
        f"{reason}"
        for reason, count in reasons.most_common()
    )


def _refused(facts: Facts) -> str:
    """Say that the cluster refused what was sent last, or nothing."""
    submissions = [submission for known in facts.phases for submission in known.submissions]
    last = max(submissions, key=lambda one: (one.intent.created, one.number), default=None)
    if last is None or last.refusal is None or not last.refusal.refused:
        return ""
    what = "has no room now" if last.refusal.full else "refused the last submission"
    return f"the cluster {what}: {last.refusal.reason}"


def _status(tasks: Mapping[TaskKey, TaskStatus], key: TaskKey) -> TaskStatus:
    """Return a task's state; one whose receipt came after the cluster was asked is taken to be alive."""
    return tasks.get(key, TaskStatus(PENDING))


def _stop(
    known: PhaseFacts, tasks: Mapping[TaskKey, TaskStatus], *, spare_wished: bool = False
) -> tuple[Action, ...]:
    """Cancel a phase's living tasks, except, where asked, those with a trial that a person wants again."""
    jobs = tuple(
        submission.receipt.jobs[index]
        for submission, index in in_question(known)
        if submission.receipt is not None
        and _status(tasks, (known.phase.name, submission.number, index)).state in ALIVE
        and not (spare_wished and any(known.wished(trial) for trial in submission.intent.tasks[index]))
    )
    return (Stop(known.phase, jobs),) if jobs else ()


def _stop_everything(facts: Facts, tasks: Mapping[TaskKey, TaskStatus]) -> tuple[Action, ...]:
    unclear = tuple(
        Reconcile(known.phase, submission) for known in facts.phases for submission in _unclear(known)
    )
    return unclear + tuple(action for known in facts.phases for action in _stop(known, tasks))


def _compact_by_the_way(facts: Facts, limits: Limits, through: int) -> tuple[Action, ...]:
    """Bring the results of earlier phases up to date, but not again and again where phases are short."""
    # A clock that was put back must not keep the results as they are for long.
    recent = abs(limits.now - facts.compacted_at) < COMPACT_SECONDS
    return () if recent else _compact(facts, limits, through)


def _compact(facts: Facts, limits: Limits, through: int | None = None) -> tuple[Action, ...]:
    """Bring the results up to date when rows of the first `through` phases (None: all) are missing."""
    ran = [known for known in facts.phases[:through] if known.phase.kind != CHECKS]
    rows = sum(len(known.outcomes) + len(known.given_up(limits.attempts)) for known in ran)
    return (Compact(rows),) if rows > facts.compacted else ()
