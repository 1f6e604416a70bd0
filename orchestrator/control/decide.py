"""Deciding: a pure function from facts to actions. No file, no cluster, no clock is touched here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.cluster.interface import ALIVE, PENDING, TaskStatus
from orchestrator.planning.plan import Phase
from orchestrator.sweep.directory import FINAL
from orchestrator.sweep.facts import Facts, PhaseFacts
from orchestrator.sweep.records import FAILED
from orchestrator.sweep.submissions import Submission

RUNNING, DONE, PAUSED, CANCELLED, STUCK = "running", "done", "paused", "cancelled", "stuck"

# The same error this often, and in so large a share of the trials, is the set-up's, not the setting's.
# One bad choice of two must not reach it by an unlucky order.
SAME_ERRORS, SAME_SHARE = 6, 0.75

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
    """Submit trials, in tasks."""

    phase: Phase
    tasks: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Find out what became of an intent that has no receipt."""

    phase: Phase
    submission: Submission


@dataclass(frozen=True, slots=True)
class MarkLost:
    """Write down that a task ended without an outcome for some of its trials."""

    phase: Phase
    submission: Submission
    task: int
    reason: str


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
    """Where the sweep stands and what to do next. `message` says why it is not simply running."""

    state: str
    actions: tuple[Action, ...] = ()
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the decision may use of the cluster.

    `free_tasks` is how many tasks may be submitted now (None: any number; the cluster queues them).
    """

    attempts: int
    free_tasks: int | None = None


def decide(facts: Facts, tasks: Mapping[TaskKey, TaskStatus], limits: Limits) -> Decision:
    """Compare what is with the plan.

    Args:
        facts: what the directory says.
        tasks: what the cluster says of every task in question (see `in_question`).
        limits: what may be used.
    """
    if facts.cancelled:
        return Decision(CANCELLED, _stop_everything(facts, tasks), "cancelled")
    begun = [known for known in facts.phases if known.frozen]
    if not begun:
        return Decision(RUNNING, (Freeze(facts.phases[0].phase),))
    for known in begun:
        if message := _same_error(known):
            return Decision(PAUSED, (*_stop(known, tasks), *_compact(facts, limits)), message)
    needs = [_need(known, tasks, limits.attempts) for known in begun]
    # The phases before it have closed: what is left of them is seen to, and not waited for.
    current = begun[-1]
    if _ripe(current, needs[-1], limits.attempts) and (begins := _what_begins(facts, len(begun), limits)):
        return begins
    steps = _steps(needs, limits.free_tasks)
    if steps and not facts.checked:
        return Decision(RUNNING, (CheckJob(),))
    if len(begun) == len(facts.phases) and settled(current, limits.attempts):
        # The sweep has its result: stragglers are ended, except what a person asked to have run again.
        steps += tuple(stop for known in begun[:-1] for stop in _stop(known, tasks, spare_wished=True))
        if not steps and all(settled(known, limits.attempts) for known in begun):
            return Decision(DONE, _compact(facts, limits))
    return Decision(RUNNING, steps or _compact(facts, limits, through=len(begun) - 1))


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
    following = facts.phases[begun].phase
    if not (message := _cannot_freeze(current, following, facts.plan.metric)):
        return Decision(RUNNING, (Freeze(following),))
    return Decision(STUCK, _compact(facts, limits), message) if settled(current, limits.attempts) else None


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
    return trial not in known.outcomes and not known.forgiven(trial, submission.number)


def _unclear(known: PhaseFacts) -> list[Submission]:
    """Return the submissions of which nobody knows yet whether the cluster took them."""
    return [s for s in known.submissions if s.receipt is None and not s.abandoned]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Need:
    """What one phase that has begun needs, beyond waiting."""

    phase: Phase
    # unclear submissions to be settled and lost tasks to be noted
    notes: tuple[Action, ...]
    # trials to be submitted
    missing: tuple[str, ...]
    # tasks of it that the cluster holds
    busy: int


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
            notes.append(MarkLost(phase, submission, index, status.reason))
    given_up = known.given_up(attempts)
    missing = tuple(
        trial.trial_id
        for trial in known.trials
        if trial.trial_id not in known.outcomes
        and trial.trial_id not in waiting
        and trial.trial_id not in given_up
    )
    return _Need(phase=phase, notes=tuple(notes), missing=missing, busy=busy)


def _ripe(known: PhaseFacts, need: _Need, attempts: int) -> bool:
    """Say whether so many trials are in that what comes next may begin, with none left to be submitted."""
    # 0.55 of 100 is 55, not the 56 that the rounding of floats would make it.
    enough = math.ceil(known.phase.close * len(known.trials) - 1e-9)
    return not need.notes and not need.missing and _in(known, attempts) >= enough


def _steps(needs: Sequence[_Need], free_tasks: int | None) -> tuple[Action, ...]:
    """Return the notes of all phases, and the submissions that there is room for beside what runs."""
    steps: list[Action] = []
    free = None if free_tasks is None else max(0, free_tasks - sum(need.busy for need in needs))
    for need in needs:
        steps += need.notes
        size = need.phase.batch
        batches = [tuple(need.missing[i : i + size]) for i in range(0, len(need.missing), size)][:free]
        if batches:
            steps.append(Submit(need.phase, tuple(batches)))
            free = None if free is None else free - len(batches)
    return tuple(steps)


def _cannot_freeze(before: PhaseFacts, phase: Phase, metric: str) -> str:
    """Return why a phase can't begin, or nothing."""
    if phase.kind != FINAL:
        return ""
    outcomes = before.outcomes.values()
    if any(o.state != FAILED and math.isfinite(o.metrics.get(metric, math.nan)) for o in outcomes):
        return ""
    return (
        f"no trial of '{before.phase.name}' gave a finite {metric}, so there is no setting for the final runs"
    )


def _same_error(known: PhaseFacts) -> str:
    """Return the message that pauses a sweep, or nothing."""
    failures = [outcome for outcome in known.outcomes.values() if outcome.state == FAILED]
    if not failures:
        return ""
    signature, count = Counter(_signature(outcome.error) for outcome in failures).most_common(1)[0]
    if count < min(SAME_ERRORS, len(known.trials)) or count < SAME_SHARE * len(known.outcomes):
        return ""
    example = next(outcome for outcome in failures if _signature(outcome.error) == signature)
    return (
        f"{count} of {len(known.outcomes)} trials of '{known.phase.name}' failed in the same way; "
        f"here is one of them ({example.trial}):\n{example.error}"
    )


def _signature(error: str) -> str:
    """Return what is the same in one error met by two trials: its last line, without numbers."""
    last = error.strip().splitlines()[-1] if error.strip() else ""
    return "".join("#" if character.isdigit() else character for character in last)


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


def _compact(facts: Facts, limits: Limits, through: int | None = None) -> tuple[Action, ...]:
    """Bring the results up to date when rows of the first `through` phases (None: all) are missing."""
    rows = sum(len(known.outcomes) + len(known.given_up(limits.attempts)) for known in facts.phases[:through])
    return (Compact(rows),) if rows > facts.compacted else ()
