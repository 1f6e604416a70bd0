"""From the attempts' records to one row for each trial and one for each reported step.

A trial can have run several times: preempted and resumed, failed and retried, or, by mistake, twice at
once. `records.counted` says which attempt's outcome counts. Its learning curve is the counted attempt's,
preceded by what earlier attempts reported before the step at which the next attempt took up; attempts
after the counted one are left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from orchestrator.results.curves import at_best, merge_curves
from orchestrator.results.fragments import Fragment, Part, Place, Seen, read_fragments, record_files
from orchestrator.results.known import Known, KnownFile
from orchestrator.results.reports import join
from orchestrator.sweep import records
from orchestrator.sweep.directory import PhaseDirectory, TrialSpec, read_waves


@dataclass(slots=True)
class Stage:
    """One stage's trials, merged: the counted outcomes, the curves and what was only reported.

    Attributes:
        trials: all that are planned.
        only: the trials that the rest is about; of the others the tables on disk hold; None: about all.
        known: what the tables are made from.
        changed: False where the tables on disk are made from just that.
    """

    trials: list[TrialSpec]
    outcomes: dict[str, records.Outcome]
    places: dict[str, Place]
    starts: Counter[str]
    curves: pa.Table
    reported: dict[str, dict[str, float]]
    findings: dict[str, list[Seen]] = field(default_factory=dict)
    only: frozenset[str] | None = None
    known: Known = field(default_factory=Known)
    changed: bool = True

    @property
    def unreadable(self) -> int:
        """Lines of its records that could not be read."""
        return sum(one.unreadable for one in self.known.files.values())


def merge_stage(
    folder: PhaseDirectory,
    parts: Sequence[Part],
    metric: Mapping[str, str],
    given_up: Mapping[str, str],
    before: Known | None = None,
) -> Stage:
    """Merge a stage's fragments, in whatever order they come.

    Args:
        folder: of the stage; records of others than its frozen trials are left out.
        parts: what its `changed_files` say, as the tasks that read them returned it.
        metric: the plan's metric: its name and mode.
        given_up: as `compact` takes it.
        before: what the tables on disk were made from; None: nothing.
    """
    trials = [trial for wave in read_waves(folder) for trial in wave]
    planned = {trial.trial_id for trial in trials}
    given_up = {trial: reason for trial, reason in given_up.items() if trial in planned}
    read = [one for part in parts for one in part.fragments]
    if before is None:
        stage = _merged(trials, parts, metric, given_up)
        stage.known = _now_known(read, Known(), given_up, trials)
        return stage
    only = _affected(read, before, given_up, record_files(folder.records))
    # Of a wave that was drawn since, records may have been read already.
    only.update(trial.trial_id for trial in trials[before.planned :])
    # What else is said of them, in files that have not changed.
    names = {one.path.name for one in read}
    more = [
        name for name, one in before.files.items() if name not in names and not only.isdisjoint(one.trials)
    ]
    parts = [*parts, read_fragments([folder.records / name for name in more])]
    some = [trial for trial in trials if trial.trial_id in only]
    reasons = {trial: reason for trial, reason in given_up.items() if trial in only}
    stage = _merged(some, parts, metric, reasons)
    stage.trials, stage.only = trials, frozenset(only)
    stage.known = _now_known([*read, *parts[-1].fragments], before, given_up, trials)
    stage.changed = stage.known != before
    return stage


def _affected(
    read: Sequence[Fragment], before: Known, given_up: Mapping[str, str], files: Sequence[Path]
) -> set[str]:
    """Return the trials whose rows may be others than those on disk."""
    there = {path.name for path in files}
    gone = [name for name in before.files if name not in there]
    again = [one.path.name for one in read if one.path.name in before.files]
    affected = {trial for one in read for trial in one.trials}
    affected.update(trial for name in (*gone, *again) for trial in before.files[name].trials)
    reasons = {*given_up.items()} ^ {*before.given_up.items()}
    return affected | {trial for trial, _ in reasons}


def _now_known(
    fragments: Sequence[Fragment],
    before: Known,
    given_up: Mapping[str, str],
    trials: Sequence[TrialSpec],
) -> Known:
    """Return what a stage's tables are made from once its rows are among them."""
    read = {
        one.path.name: KnownFile(*one.stamp, one.unreadable, one.trials, one.metrics)
        for one in fragments
        if one.stamp != (-1, -1)
    }
    vanished = {one.path.name for one in fragments} - set(read)
    kept = {name: one for name, one in before.files.items() if name not in vanished}
    files = {**kept, **read}
    return Known(dict(sorted(files.items())), dict(sorted(given_up.items())), len(trials))


def _merged(
    trials: list[TrialSpec],
    parts: Sequence[Part],
    metric: Mapping[str, str],
    given_up: Mapping[str, str],
) -> Stage:
    """Merge what some record files say of some trials."""
    fragments = [one for part in parts for one in part.fragments]
    wanted = {trial.trial_id for trial in trials}
    found = [
        (outcome, one.attempt(start))
        for one in fragments
        for outcome, start in one.outcomes
        if outcome.trial in wanted
    ]
    outcomes = records.counted(outcome for outcome, _ in found)
    attempt_of = {id(outcome): attempt for outcome, attempt in found}
    limits = {trial: attempt_of[id(outcome)] for trial, outcome in outcomes.items()}
    place_of = {one.path.name: one.place for one in fragments}
    places = {trial: place_of[attempt[2]] for trial, attempt in limits.items()}
    files = {one.path.name: one for one in fragments}
    findings = {
        trial: files[attempt[2]].findings.get((trial, attempt[3]), []) for trial, attempt in limits.items()
    }
    for trial, reason in given_up.items():
        if trial not in outcomes:
            outcomes[trial] = records.Outcome(
                trial=trial, state=records.FAILED, metrics={}, seconds=math.nan, error=reason, gpus=math.nan
            )
    starts: Counter[str] = Counter()
    for one in fragments:
        starts.update({trial: len(lines) for trial, lines in one.begun.items()})
    reports = join([part.reports for part in parts], [len(part.fragments) for part in parts])
    curves = merge_curves(reports, fragments, [trial.trial_id for trial in trials], limits)
    return Stage(
        trials=trials,
        outcomes=outcomes,
        places=places,
        starts=starts,
        curves=curves.table(),
        reported=at_best(curves, metric["name"], metric["mode"]),
        findings=findings,
    )


def metric_columns(stages: Iterable[Stage], metric: str) -> list[str]:
    """Return the names of all metrics of all stages: the sweep's own first, the others sorted."""
    names = {name for stage in stages for one in stage.known.files.values() for name in one.metrics}
    return [metric, *sorted(names - {metric})]
