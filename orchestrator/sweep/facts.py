"""Facts: everything that the sweep's directory says, read into plain data. Nothing here decides or writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.planning.plan import Phase, Plan, plan_from_json
from orchestrator.sweep import records
from orchestrator.sweep.directory import SweepDirectory, TrialSpec, read_trials
from orchestrator.sweep.files import read_json
from orchestrator.sweep.records import FAILED, Outcome
from orchestrator.sweep.submissions import Submission, read_submissions


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """A person's wish to run failed trials again: what happened up to a submission no longer counts."""

    phase: str
    trials: frozenset[str]
    submission: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseFacts:
    """What is known of one phase. `trials` is empty until they are frozen (`frozen`)."""

    phase: Phase
    frozen: bool = False
    trials: tuple[TrialSpec, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    submissions: tuple[Submission, ...] = ()
    # trials that began, by (submission, task)
    started: Mapping[tuple[int, int], frozenset[str]] = field(default_factory=dict)
    retries: tuple[Retry, ...] = ()
    unreadable: int = 0

    def attempts(self) -> dict[str, list[str]]:
        """Return, for each trial that a lost task counts against, the reasons."""
        blames: dict[str, list[str]] = {}
        for submission in self.submissions:
            for loss in submission.losses.values():
                for trial in loss.blamed:
                    if not self.forgiven(trial, submission.number):
                        blames.setdefault(trial, []).append(loss.reason)
        return blames

    def forgiven(self, trial: str, submission: int) -> bool:
        """Say whether a person asked for a trial to be run again after that submission."""
        return any(trial in retry.trials and submission <= retry.submission for retry in self.retries)

    def given_up(self, attempts_allowed: int) -> dict[str, str]:
        """Return the trials that the cluster ended too often, with the reason."""
        return {
            trial: f"ended by the cluster {len(reasons)} times, last: {reasons[-1]}"
            for trial, reasons in self.attempts().items()
            if len(reasons) >= attempts_allowed and trial not in self.outcomes
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of one sweep."""

    plan: Plan
    phases: tuple[PhaseFacts, ...]
    cancelled: bool = False
    # the job was imported once, so tasks can run
    checked: bool = False
    # rows of the Parquet results as last compacted
    compacted: int = 0

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
    try:
        return plan_from_json(read_json(directory.plan))
    except (KeyError, TypeError) as error:
        raise UserError(f"not a plan of this version ({error})", file=directory.plan) from None


def read_facts(directory: SweepDirectory, plan: Plan) -> Facts:
    """Read all facts."""
    return Facts(
        plan=plan,
        phases=tuple(read_phase(directory, phase) for phase in plan.phases),
        cancelled=directory.cancelled.exists(),
        checked=checked_path(directory).exists(),
        compacted=_compacted(directory),
    )


def checked_path(directory: SweepDirectory) -> Path:
    """Return the file that says that the job was imported."""
    return directory.path / "job-imported.json"


def compacted_path(directory: SweepDirectory) -> Path:
    """Return the file that says how many rows the results hold."""
    return directory.results / "compacted.json"


def retries_path(directory: SweepDirectory) -> Path:
    """Return the folder of retry wishes."""
    return directory.path / "retries"


def read_retries(directory: SweepDirectory) -> tuple[Retry, ...]:
    """Read all retry wishes."""
    return tuple(
        Retry(phase=entry["phase"], trials=frozenset(entry["trials"]), submission=entry["submission"])
        for path in sorted(retries_path(directory).glob("[0-9]*.json"))
        for entry in read_json(path)
    )


def _compacted(directory: SweepDirectory) -> int:
    path = compacted_path(directory)
    return int(read_json(path)["rows"]) if path.exists() else 0


def read_phase(directory: SweepDirectory, phase: Phase) -> PhaseFacts:
    """Read the facts of one phase."""
    folder = directory.phase(phase.kind, phase.name)
    if not folder.trials.exists():
        return PhaseFacts(phase=phase)
    retries = tuple(retry for retry in read_retries(directory) if retry.phase == phase.name)
    trials = tuple(read_trials(folder.trials))
    submissions = tuple(read_submissions(folder.submissions))
    facts = PhaseFacts(phase=phase, retries=retries)
    files = records.read_directory(folder.records)
    planned = {trial.trial_id for trial in trials}
    valid = (
        outcome
        for file in files
        for outcome in records.outcomes(file)
        if outcome.trial in planned
        and not (outcome.state == FAILED and facts.forgiven(outcome.trial, outcome.submission))
    )
    started: dict[tuple[int, int], set[str]] = {}
    for file in files:
        key = records.whole(file.header.get("submission")), records.whole(file.header.get("task"))
        started.setdefault(key, set()).update(
            str(line.get("trial")) for line in file.lines if line["kind"] == "start"
        )
    return PhaseFacts(
        phase=phase,
        frozen=True,
        trials=trials,
        outcomes=records.counted(valid),
        submissions=submissions,
        started={key: frozenset(value) for key, value in started.items()},
        retries=retries,
        unreadable=sum(file.unreadable for file in files),
    )
