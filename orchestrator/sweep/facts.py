"""Facts: everything that the sweep's directory says, read into plain data. Nothing here decides or writes."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.planning.plan import Phase, Plan, plan_from_json, refuse_newer
from orchestrator.sweep import records
from orchestrator.sweep.budgets import read_budget
from orchestrator.sweep.digest import Stamp
from orchestrator.sweep.directory import PhaseDirectory, SweepDirectory, TrialSpec, read_trials
from orchestrator.sweep.files import read_as
from orchestrator.sweep.index import read_digests, write_index
from orchestrator.sweep.memory import Remembered, listing, stamp, uncollected
from orchestrator.sweep.plain import fact_of
from orchestrator.sweep.records import FAILED, MEMORY, Outcome
from orchestrator.sweep.submissions import Loss, Submission, read_submissions
from orchestrator.sweep.timing import startup_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """A person's wish to run failed trials of a phase again.

    Up to a submission, their outcomes no longer count, nor does what became of tasks: one that was ended, or
    failed like the others, when a paused sweep stood still may be noted as lost only afterwards.
    """

    phase: str
    trials: frozenset[str]
    submission: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseFacts:
    """What is known of one phase. `trials` are those of all waves that are frozen."""

    phase: Phase
    # waves of trials that are frozen
    waves: int = 0
    # the next phase has begun: what still runs of this one counts when it comes in, and is not waited for
    closed: bool = False
    trials: tuple[TrialSpec, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    submissions: tuple[Submission, ...] = ()
    # trials that began, by (submission, task)
    started: Mapping[tuple[int, int], frozenset[str]] = field(default_factory=dict)
    retries: tuple[Retry, ...] = ()
    unreadable: int = 0
    # of a trial, besides its steps; None where the reports don't tell
    startup_seconds: float | None = None
    # trials that ran out of memory and are to run with a larger request, and in which submission they did
    # (`control.memory`)
    short_of_memory: Mapping[str, int] = field(default_factory=dict)

    @property
    def frozen(self) -> bool:
        """Whether the phase has begun: its first trials are written down."""
        return self.waves > 0

    @property
    def planned(self) -> int:
        """How many trials it has, those of waves to come among them."""
        return len(self.trials) + sum(self.phase.wave_sizes[self.waves :])

    def attempts(self) -> dict[str, list[Loss]]:
        """Return, for each trial that lost tasks count against, the losses."""
        blames: dict[str, list[Loss]] = {}
        for loss in self.losses():
            for trial in loss.blamed:
                blames.setdefault(trial, []).append(loss)
        return blames

    def losses(self) -> Iterator[Loss]:
        """Yield the losses that count: those of submissions after the last wish to run trials again."""
        last = max((retry.submission for retry in self.retries), default=0)
        for submission in self.submissions:
            if submission.number > last:
                yield from submission.losses.values()

    def forgiven(self, trial: str, submission: int) -> bool:
        """Say whether a person asked for a trial to be run again after that submission."""
        return any(trial in retry.trials and submission <= retry.submission for retry in self.retries)

    def wished(self, trial: str) -> bool:
        """Say whether a person ever asked for a trial to be run again."""
        return any(trial in retry.trials for retry in self.retries)

    def exhausted(self, attempts_allowed: int) -> dict[str, str]:
        """Return the trials that the cluster ended too often, with the reason."""
        ended: dict[str, str] = {}
        for trial, losses in self.attempts().items():
            if trial in self.outcomes:
                continue
            others = [loss for loss in losses if loss.cause != MEMORY]
            # The same request runs out of the same memory again.
            if len(others) < len(losses) and trial not in self.short_of_memory:
                ended[trial] = f"out of memory ({losses[-1].reason}); see slurm.on_out_of_memory"
            elif len(others) >= attempts_allowed:
                ended[trial] = f"ended by the cluster {len(others)} times, last: {others[-1].reason}"
        return ended

    def given_up(self, attempts_allowed: int) -> dict[str, str]:
        """Return the trials that will not be started again though they have no outcome, with the reason."""
        return {**self._left_behind(), **self.exhausted(attempts_allowed)}

    def with_cluster(self) -> set[str]:
        """Return the trials of all tasks that may be in the queue or running, as far as is written down."""
        return {
            trial
            for submission in self.submissions
            if not submission.abandoned
            for index, task in enumerate(submission.intent.tasks)
            if index not in submission.losses
            for trial in task
        }

    def _left_behind(self) -> dict[str, str]:
        """Return the trials that ended without an outcome when nobody waited for them any more."""
        if not self.closed:
            return {}
        open_still = self.with_cluster()
        return {
            trial.trial_id: "its stage had closed"
            for trial in self.trials
            if trial.trial_id not in self.outcomes
            and trial.trial_id not in open_still
            and not self.wished(trial.trial_id)
        }


_trials: Remembered[tuple[TrialSpec, ...]] = Remembered()
_retries: Remembered[tuple[Retry, ...]] = Remembered()
_submissions: Remembered[tuple[Submission, ...]] = Remembered()
# facts without the submissions, and with them
_ran: Remembered[PhaseFacts] = Remembered()
_phases: Remembered[PhaseFacts] = Remembered()


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of one sweep."""

    plan: Plan
    phases: tuple[PhaseFacts, ...]
    cancelled: bool = False
    # the job was imported once, so tasks can run
    checked: bool = False
    # a person wants it to go on in spite of a failed check
    accepted: bool = False
    # rows of the Parquet results as last compacted, and when: seconds since the epoch
    compacted: int = 0
    compacted_at: float = -math.inf
    # what it may cost, as a person wrote it last; empty: no limit
    budget: str = ""
    # what comes next can't begin with it, and why; and what it made of the plan (`reprice.within_budget`)
    stop: str = ""
    note: str = ""

    def phase(self, name: str) -> PhaseFacts:
        """Return the facts of a phase by its name."""
        return next(facts for facts in self.phases if facts.phase.name == name)


def read_plan(directory: SweepDirectory) -> Plan:
    """Read the frozen plan.

    Raises:
        UserError: the folder is no sweep's.
    """
    if not directory.plan.exists():
        what = "has no plan yet" if directory.config.exists() else "is no sweep's directory"
        raise UserError(what, file=directory.path, hint="Plan it: orchestrate plan sweep.yaml")
    path = directory.plan
    return read_as(path, lambda content: plan_from_json(refuse_newer(content, path)), "a plan")


def read_facts(directory: SweepDirectory, plan: Plan) -> Facts:
    """Read all facts."""
    phases = [read_phase(directory, phase) for phase in plan.phases]
    begun = [*(known.frozen for known in phases[1:]), False]
    compacted, compacted_at = _compacted(directory)
    return Facts(
        plan=plan,
        phases=tuple(replace(known, closed=closed) for known, closed in zip(phases, begun, strict=True)),
        cancelled=directory.cancelled.exists(),
        checked=checked_path(directory).exists(),
        accepted=directory.accepted.exists(),
        compacted=compacted,
        compacted_at=compacted_at,
        budget=read_budget(directory, plan.budget),
    )


def checked_path(directory: SweepDirectory) -> Path:
    """Return the file that says that the job was imported."""
    return directory.path / "job-imported.json"


def compacted_path(directory: SweepDirectory) -> Path:
    """Return the file that says how many rows the results hold, and since when."""
    return directory.results / "compacted.json"


def retries_path(directory: SweepDirectory) -> Path:
    """Return the folder of retry wishes."""
    return directory.path / "retries"


def read_retries(directory: SweepDirectory) -> tuple[Retry, ...]:
    """Read all retry wishes."""
    return tuple(
        retry
        for path in sorted(retries_path(directory).glob("[0-9]*.json"))
        for retry in read_as(path, _wishes, "a wish to run trials again")
    )


def _wishes(content: Any) -> list[Retry]:
    if not isinstance(content, list):
        raise TypeError("it is no list")
    return [fact_of(Retry, entry) for entry in content]


def _compacted(directory: SweepDirectory) -> tuple[int, float]:
    # Only a note of how far the results have got: where it can't be read they are brought up to date again.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(compacted_path(directory).read_text())
        return int(found["rows"]), float(found.get("time", -math.inf))
    return 0, -math.inf


def read_phase(directory: SweepDirectory, phase: Phase) -> PhaseFacts:
    """Read the facts of one phase by itself; whether it has closed is seen with the next one alone.

    What this process has read before and is still the same on disk is not read again.
    """
    folder = directory.phase(phase.kind, phase.name)
    with uncollected():
        # Each listing comes before what it lists is read: what changes in between is seen the next time. The
        # records come last: of a task whose end is written down they hold all that it wrote.
        waves = wave_stamps(folder)
        if not waves:
            return PhaseFacts(phase=phase)
        trials = _trials.get(folder.path, waves, lambda: _read_waves(folder, len(waves)))
        wished = listing(retries_path(directory), ".json")
        retries = _retries.get(directory.path, wished, lambda: read_retries(directory))
        sent = listing(folder.submissions, ".json")
        submissions = _submissions.get(folder.path, sent, lambda: tuple(read_submissions(folder.submissions)))
        ended = listing(folder.records, ".jsonl")
        before = PhaseFacts(
            phase=phase,
            waves=len(waves),
            trials=trials,
            retries=tuple(retry for retry in retries if retry.phase == phase.name),
        )
        ran = _ran.get(
            folder.path, (phase, waves, wished, ended), lambda: _read_records(folder, before, ended)
        )
        return _phases.get(
            folder.path, (phase, waves, wished, sent, ended), lambda: replace(ran, submissions=submissions)
        )


def _read_waves(folder: PhaseDirectory, waves: int) -> tuple[TrialSpec, ...]:
    return tuple(trial for number in range(waves) for trial in read_trials(folder.wave(number)))


def _read_records(folder: PhaseDirectory, facts: PhaseFacts, files: Mapping[str, Stamp]) -> PhaseFacts:
    """Return facts with what the record files say."""
    digests = read_digests(folder.records, files)
    planned = {trial.trial_id for trial in facts.trials}
    valid = (
        outcome
        for digest in digests
        for outcome in digest.outcomes
        if outcome.trial in planned
        and not (outcome.state == FAILED and facts.forgiven(outcome.trial, outcome.submission))
    )
    started: dict[tuple[int, int], set[str]] = {}
    for digest in digests:
        key = records.whole(digest.header.get("submission")), records.whole(digest.header.get("task"))
        started.setdefault(key, set()).update(digest.started)
    return replace(
        facts,
        outcomes=records.counted(valid),
        started={key: frozenset(value) for key, value in started.items()},
        unreadable=sum(digest.unreadable for digest in digests),
        startup_seconds=startup_seconds(startup for digest in digests for startup in digest.startups),
    )


def wave_stamps(folder: PhaseDirectory) -> tuple[Stamp, ...]:
    """Return the stamps of a phase's frozen settings, wave by wave; a phase that has not begun has none."""
    stamps: list[Stamp] = []
    while (found := stamp(folder.wave(len(stamps)))) is not None:
        stamps.append(found)
    return tuple(stamps)


def remember(directory: SweepDirectory, plan: Plan) -> None:
    """Write beside the records what this process has read of them, where that spares the next one much."""
    for phase in plan.phases:
        write_index(directory.phase(phase.kind, phase.name).records)
