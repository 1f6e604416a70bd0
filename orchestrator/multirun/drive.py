"""Driving: stage after stage, what is missing is launched; the folder of the multirun is the state."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException

from orchestrator.control.draw import freeze as draw
from orchestrator.errors import UserError
from orchestrator.multirun.declare import Declared
from orchestrator.multirun.job import Assignment, Record, Recorded, record_return
from orchestrator.multirun.words import job_overrides
from orchestrator.planning.plan import Phase
from orchestrator.results.compact import compact
from orchestrator.sweep.directory import SweepDirectory, TrialSpec, read_trials
from orchestrator.sweep.facts import read_phase
from orchestrator.sweep.provenance import git_commit
from orchestrator.sweep.records import FAILED, Outcome, read_directory
from orchestrator.worker.job import scale_values

log = logging.getLogger(__name__)

# Takes the overrides of each job, and the number of the first one.
Launch = Callable[[list[list[str]], int], Sequence[JobReturn]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Conduct:
    """How the jobs of a sweep are launched, and what is done about those that fail.

    Attributes:
        batch: jobs that are given to the launcher at once; None: all that are known.
        attempts: how often a job is started whose process dies.
        failures: the share of a stage's jobs that may fail.
        retry_failed: run again what has failed.
    """

    batch: int | None = None
    attempts: int = 3
    failures: float = 0.5
    retry_failed: bool = False


class Drive:
    """One process that drives a sweep.

    Args:
        directory: the multirun's folder, with the sweep frozen in it.
        declared: the sweep.
        conduct: how its jobs are launched.
        recorded: the application's function, which the launcher has.
        launch: checks and launches jobs, and returns when all of them have ended.
    """

    def __init__(
        self,
        directory: SweepDirectory,
        declared: Declared,
        conduct: Conduct,
        recorded: Recorded,
        launch: Launch,
    ) -> None:
        self._directory, self._declared, self._conduct = directory, declared, conduct
        self._recorded, self._launch = recorded, launch
        self._commit = git_commit(directory)
        self._number = _next_number(directory, declared.plan.stages)

    def run(self) -> list[Sequence[JobReturn]]:
        """Run what is missing, to the end of the sweep.

        Returns:
            What the launcher returned, batch by batch; nothing of jobs that had ended before.

        Raises:
            UserError: too many jobs of a stage failed.
        """
        plan, returns = self._declared.plan, []
        for phase in plan.stages:
            folder = self._directory.phase(phase.kind, phase.name)
            for wave in range(len(phase.wave_sizes)):
                if not folder.wave(wave).exists():
                    draw(self._directory, plan, self._declared.config, phase, wave)
                returns += self._run_wave(phase, read_trials(folder.wave(wave)))
                self._check_failures(phase)
        return returns

    def _run_wave(self, phase: Phase, trials: Sequence[TrialSpec]) -> list[Sequence[JobReturn]]:
        missing = self._missing(phase, trials)
        if done := len(trials) - len(missing):
            log.info(f"{phase.name}: {done} of {len(trials)} jobs have ended before")
        size = self._conduct.batch or max(1, len(missing))
        returns = []
        for start in range(0, len(missing), size):
            returns.append(self._run_batch(phase, missing[start : start + size]))
        if not missing:
            # What ended while nobody compacted, and what was given up.
            compact(self._directory.path)
        return returns

    def _run_batch(self, phase: Phase, trials: Sequence[TrialSpec]) -> Sequence[JobReturn]:
        overrides = [job_overrides(self._declared.words, t.params, self._scale(phase, t)) for t in trials]
        assigned = [self._assign(phase, t, number) for number, t in enumerate(trials, self._number)]
        self._recorded.assignments = {each.number: each for each in assigned}
        log.info(f"{phase.name}: {len(trials)} jobs")
        first, self._number = self._number, self._number + len(trials)
        try:
            returned = self._launch(overrides, first)
        except HydraException:
            # An override that can't be: nothing was launched.
            raise
        except Exception:
            compact(self._directory.path)
            log.error(
                "The launcher gave up. What has ended is written down: run the same command with "
                f"hydra.sweep.dir={self._directory.path} for the rest"
            )
            raise
        written = self._outcomes(phase)
        for assignment, each in zip(assigned, returned, strict=True):
            if assignment.trial not in written or _newer(each, written[assignment.trial], assignment):
                record_return(assignment, each)
        compact(self._directory.path)
        return returned

    def _assign(self, phase: Phase, trial: TrialSpec, number: int) -> Assignment:
        records = self._directory.phase(phase.kind, phase.name).records.resolve()
        records.mkdir(parents=True, exist_ok=True)
        metric = self._declared.plan.metric
        return Assignment(
            trial=trial.trial_id,
            number=number,
            records=str(records),
            metric=metric,
            git_commit=self._commit,
        )

    def _scale(self, phase: Phase, trial: TrialSpec) -> dict[str, Any]:
        """Return what a stage sets, by the keys that it goes to."""
        values = scale_values(phase.scale, trial.seed)
        places = self._declared.places
        return {place: values[key] for key, place in places.items() if values[key] is not None}

    def _outcomes(self, phase: Phase) -> Mapping[str, Outcome]:
        return read_phase(self._directory, phase).outcomes

    def _missing(self, phase: Phase, trials: Sequence[TrialSpec]) -> list[TrialSpec]:
        """Return the trials to run; one whose process died too often gets its outcome here."""
        outcomes, begun = self._outcomes(phase), self._begun(phase)
        missing = []
        for trial in trials:
            outcome = outcomes.get(trial.trial_id)
            if outcome is not None and not (outcome.state == FAILED and self._conduct.retry_failed):
                continue
            if outcome is None and begun[trial.trial_id] >= self._conduct.attempts:
                self._give_up(phase, trial, begun[trial.trial_id])
            else:
                missing.append(trial)
        return missing

    def _begun(self, phase: Phase) -> Counter[str]:
        """Count how often each trial began, but for interrupted ones."""
        begun: Counter[str] = Counter()
        for record in read_directory(self._directory.phase(phase.kind, phase.name).records):
            for line in record.lines:
                begun[str(line.get("trial"))] += {"start": 1, "interrupted": -1}.get(line["kind"], 0)
        return begun

    def _give_up(self, phase: Phase, trial: TrialSpec, times: int) -> None:
        said = f"began {times} times and never ended: its process died each time (out of memory, or killed)"
        log.warning(f"{trial.trial_id} {said}")
        record = Record(self._assign(phase, trial, self._number))
        self._number += 1
        record.outcome(FAILED, {}, float("nan"), said)

    def _check_failures(self, phase: Phase) -> None:
        outcomes = self._outcomes(phase)
        failed = [outcome for outcome in outcomes.values() if outcome.state == FAILED]
        if len(failed) <= self._conduct.failures * len(outcomes):
            return
        raise UserError(
            f"{len(failed)} of {len(outcomes)} jobs of '{phase.name}' failed. The first of them:\n"
            f"{min(failed, key=lambda outcome: outcome.trial).error.strip()}\n",
            file=self._directory.path,
            hint="When that is put right, run the same command with hydra.sweeper.retry_failed=true; or "
            "allow more with hydra.sweeper.max_failure_rate",
        )


def _newer(returned: JobReturn, outcome: Outcome, assignment: Assignment) -> bool:
    """Say whether a job that ended well could not say so, and what is written is of an earlier failure."""
    done = returned.status == JobStatus.COMPLETED
    return done and outcome.state == FAILED and outcome.submission != assignment.number


def _next_number(directory: SweepDirectory, stages: Sequence[Phase]) -> int:
    """Return the first number that no job has had that began."""
    names = [
        path.name.partition("-")[0]
        for phase in stages
        for path in Path(directory.phase(phase.kind, phase.name).records).glob("[0-9]*.jsonl")
    ]
    return 1 + max(map(int, filter(str.isdigit, names)), default=-1)
