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
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.results.fragments import Attempt, Fragment, Place, Seen, read_fragments, record_files
from orchestrator.results.known import Known, KnownFile
from orchestrator.results.schema import text
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
    curves: pd.DataFrame
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
    parts: Sequence[list[Fragment]],
    metric: Mapping[str, str],
    given_up: Mapping[str, str],
    before: Known | None = None,
) -> Stage:
    """Merge a stage's fragments, in whatever order they come.

    Args:
        folder: of the stage; records of others than its frozen trials are left out.
        parts: the fragments of its `changed_files`, as the tasks that read them returned them.
        metric: the plan's metric: its name and mode.
        given_up: as `compact` takes it.
        before: what the tables on disk were made from; None: nothing.
    """
    trials = [trial for wave in read_waves(folder) for trial in wave]
    planned = {trial.trial_id for trial in trials}
    given_up = {trial: reason for trial, reason in given_up.items() if trial in planned}
    read = [one for part in parts for one in part]
    if before is None:
        stage = _merged(trials, read, metric, given_up)
        stage.known = _now_known(stage, read, Known(), given_up, trials)
        return stage
    only = _affected(read, before, given_up, record_files(folder.records))
    # Of a wave that was drawn since, records may have been read already.
    only.update(trial.trial_id for trial in trials[before.planned :])
    # What else is said of them, in files that have not changed.
    names = {one.path.name for one in read}
    more = [
        name for name, one in before.files.items() if name not in names and not only.isdisjoint(one.trials)
    ]
    fragments = [*read, *read_fragments([folder.records / name for name in more])]
    some = [trial for trial in trials if trial.trial_id in only]
    reasons = {trial: reason for trial, reason in given_up.items() if trial in only}
    stage = _merged(some, fragments, metric, reasons)
    stage.trials, stage.only = trials, frozenset(only)
    stage.known = _now_known(stage, fragments, before, given_up, trials)
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
    stage: Stage,
    fragments: Sequence[Fragment],
    before: Known,
    given_up: Mapping[str, str],
    trials: Sequence[TrialSpec],
) -> Known:
    """Return what a stage's tables are made from once its rows are among them."""
    read = {
        one.path.name: KnownFile(*one.stamp, one.unreadable, one.trials)
        for one in fragments
        if one.stamp != (-1, -1)
    }
    vanished = {one.path.name for one in fragments} - set(read)
    kept = {name: one for name, one in before.files.items() if name not in vanished}
    files = {**kept, **read}
    names = {*before.metrics, *stage.curves["metric"].unique()}
    for outcome in stage.outcomes.values():
        names.update(text(name) for name in outcome.metrics)
    return Known(
        dict(sorted(files.items())), dict(sorted(given_up.items())), tuple(sorted(names)), len(trials)
    )


def _merged(
    trials: list[TrialSpec],
    read: Sequence[Fragment],
    metric: Mapping[str, str],
    given_up: Mapping[str, str],
) -> Stage:
    """Merge what some record files say of some trials."""
    fragments = sorted(read, key=lambda one: one.attempt(0))
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
        starts.update(one.starts)
    curves = merge_curves(fragments, [trial.trial_id for trial in trials], limits)
    return Stage(
        trials=trials,
        outcomes=outcomes,
        places=places,
        starts=starts,
        curves=curves,
        reported=_reported(curves, metric),
        findings=findings,
    )


def merge_curves(
    fragments: Sequence[Fragment], planned: Sequence[str], limits: Mapping[str, Attempt]
) -> pd.DataFrame:
    """Return trial_id, step, metric, value and time of every step that counts, sorted by the first three.

    Args:
        fragments: in the order of their attempts.
        planned: the trials' ids, in the order that the rows get.
        limits: the counted attempt of each trial that has one; later attempts' rows are left out.
    """
    rows = _rows(fragments, planned, limits)
    # A later attempt that took up at step s replaces what earlier ones reported from s on.
    first = rows.groupby(["code", "order"])["step"].min().sort_index(ascending=False)
    if first.index.get_level_values("code").has_duplicates:
        later = first.groupby(level="code").cummin().groupby(level="code").shift()
        replaced_from = later.reindex(pd.MultiIndex.from_frame(rows[["code", "order"]])).to_numpy()
        rows = rows[~(rows["step"].to_numpy() >= replaced_from)]  # NaN, no later attempt, replaces nothing
    rows = rows.drop_duplicates(["code", "step", "metric"], keep="last")
    rows = rows.sort_values(["code", "step", "metric"], kind="stable")
    return rows[["trial_id", "step", "metric", "value", "time"]].reset_index(drop=True)


def _rows(
    fragments: Sequence[Fragment], planned: Sequence[str], limits: Mapping[str, Attempt]
) -> pd.DataFrame:
    """Return all reports of planned trials up to their counted attempt, with `code` and `order`."""
    columns: tuple[list[Any], ...] = ([], [], [], [], [], [])
    for fragment in fragments:
        for column, more in zip(columns, fragment.reports, strict=True):
            column.extend(more)
    rank = np.repeat(np.arange(len(fragments)), [len(one.reports[0]) for one in fragments])
    index: pd.Index[Any] = pd.Index(list(planned))
    starts = np.asarray(columns[5], dtype=np.int64)
    base = int(starts.max(initial=0)) + 1
    place = {fragment.path.name: number for number, fragment in enumerate(fragments)}
    highest = np.asarray(
        [
            place[limits[trial][2]] * base + limits[trial][3] if trial in limits else len(fragments) * base
            for trial in planned
        ],
        dtype=np.int64,
    )
    code = index.get_indexer(pd.Index(columns[0], dtype=index.dtype))
    rows = pd.DataFrame(
        {
            "trial_id": pd.Series(columns[0], dtype=object),
            "step": np.asarray(columns[1], dtype=np.int64),
            "metric": pd.Categorical(columns[2], categories=sorted(set(columns[2]))),
            "value": np.asarray(columns[3], dtype=np.float64),
            "time": np.asarray(columns[4], dtype=np.float64),
            "code": code,
            "order": rank * base + starts,
        }
    )
    counts = (code >= 0) & (rows["order"] <= (highest[code] if len(planned) else 0))
    return rows[counts]


def _reported(curves: pd.DataFrame, metric: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return every trial's metrics at the step where the sweep's own was best (its last, without one)."""
    own = curves[(curves["metric"] == metric["name"]) & curves["value"].notna()]
    own = own.sort_values("value", ascending=metric["mode"] == "min", kind="stable")
    step = curves.groupby("trial_id", sort=False)["step"].max()
    step.update(own.drop_duplicates("trial_id").set_index("trial_id")["step"])
    rows = curves[curves["step"] == curves["trial_id"].map(step)]
    reported: dict[str, dict[str, float]] = {}
    for trial, name, value in zip(rows["trial_id"], rows["metric"], rows["value"], strict=True):
        reported.setdefault(trial, {})[name] = value
    return reported


def metric_columns(stages: Iterable[Stage], metric: str) -> list[str]:
    """Return the names of all metrics of all stages: the sweep's own first, the others sorted."""
    names = {name for stage in stages for name in stage.known.metrics}
    return [metric, *sorted(names - {metric})]
