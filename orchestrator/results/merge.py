"""From the attempts' records to one row for each trial and one for each reported step.

A trial can have run several times: preempted and resumed, failed and retried, or, by mistake, twice at
once. `records.counted` says which attempt's outcome counts. Its learning curve is the counted attempt's,
preceded by what earlier attempts reported before the step at which the next attempt took up; attempts
after the counted one are left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.results.schema import coerce, curves_schema, text
from orchestrator.sweep import records
from orchestrator.sweep.directory import PhaseDirectory, TrialSpec, read_waves
from orchestrator.sweep.files import replace_atomic

# What the diagnosis saw of a trial: code, evidence and the step at which it showed.
Seen = tuple[str, str, int]
# One attempt among a stage's: (submission, attempt, file's name, how often the trial started in this file).
Attempt = tuple[int, int, str, int]


# What is said of a failure in a word, where its cause was told apart.
_DIAGNOSES = {
    records.MEMORY: "out of memory",
    records.HUNG: "hung",
    records.NO_PROGRESS: "no progress",
}


@dataclass(frozen=True, slots=True)
class Place:
    """What a task ran on and with: its GPU's name and the commit of the user's code."""

    gpu: str = ""
    git_commit: str = ""


@dataclass(slots=True)
class Fragment:
    """What one record file says; `reports` holds columns: trial, step, metric, value, time, start."""

    path: Path
    outcomes: list[tuple[records.Outcome, int]] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)
    reports: tuple[list[Any], ...] = field(default_factory=lambda: ([], [], [], [], [], []))
    # by the trial and how often it had started in this file
    findings: dict[tuple[str, int], list[Seen]] = field(default_factory=dict)
    place: Place = Place()
    unreadable: int = 0

    def attempt(self, start: int) -> Attempt:
        """Return the place of this file's attempt among all of the stage's."""
        numbers = [int(digits) for digits in re.findall(r"\d+", self.path.stem)]
        submission, attempt = (numbers[0], numbers[2]) if len(numbers) >= 3 else (0, 0)
        return submission, attempt, self.path.name, start


@dataclass(slots=True)
class Stage:
    """One stage's trials, merged: the counted outcomes, the curves and what was only reported."""

    trials: list[TrialSpec]
    outcomes: dict[str, records.Outcome]
    places: dict[str, Place]
    starts: Counter[str]
    curves: pd.DataFrame
    reported: dict[str, dict[str, float]]
    unreadable: int
    findings: dict[str, list[Seen]] = field(default_factory=dict)


def record_files(folder: Path) -> list[Path]:
    """Return the record files of a phase; none yet gives an empty list."""
    return sorted(folder.glob("[0-9]*.jsonl"))


def read_fragments(paths: Sequence[Path]) -> list[Fragment]:
    """Read some record files. A file that has vanished meanwhile is an empty one."""
    fragments = []
    for path in paths:
        try:
            fragments.append(read_fragment(path))
        except FileNotFoundError:
            fragments.append(Fragment(path=path))
    return fragments


def read_fragment(path: Path) -> Fragment:
    """Read one record file; lines that are torn or make no sense are counted and passed over."""
    record = records.read_file(path)
    header = record.header
    place = Place(gpu=text(str(header.get("gpu", ""))), git_commit=text(str(header.get("git_commit", ""))))
    fragment = Fragment(path=path, place=place, unreadable=record.unreadable)
    lines, record.lines = record.lines, []
    for line in lines:
        kind, trial = line["kind"], line.get("trial")
        if kind == "start" and isinstance(trial, str):
            fragment.starts[trial] += 1
        elif kind == "report":
            fragment.unreadable += not _add_report(fragment, line)
        elif kind == "finding" and isinstance(trial, str):
            seen = (str(line.get("code", "")), str(line.get("evidence", "")), records.whole(line.get("step")))
            fragment.findings.setdefault((trial, fragment.starts[trial]), []).append(seen)
        elif kind == "outcome":
            record.lines = [line]
            found = [(outcome, fragment.starts[outcome.trial]) for outcome in records.outcomes(record)]
            fragment.outcomes += found
            fragment.unreadable += not found
    return fragment


def _add_report(fragment: Fragment, line: Mapping[str, Any]) -> bool:
    trial, step, metrics = line.get("trial"), records.number(line.get("step")), line.get("metrics")
    if not isinstance(trial, str) or not isinstance(metrics, dict) or not abs(step) < 2**53:
        return False
    trials, steps, names, values, times, starts = fragment.reports
    time, start = records.number(line.get("time")), fragment.starts[trial]
    for name, value in metrics.items():
        trials.append(trial)
        steps.append(int(step))
        names.append(name if name.isascii() else text(name))
        values.append(value if type(value) is float else records.number(value))
        times.append(time)
        starts.append(start)
    return True


def merge_stage(
    folder: PhaseDirectory,
    parts: Sequence[list[Fragment]],
    metric: Mapping[str, str],
    given_up: Mapping[str, str],
) -> Stage:
    """Merge a stage's fragments, in whatever order they come.

    Args:
        folder: of the stage; records of others than its frozen trials are left out.
        parts: the fragments, as the tasks that read them returned them.
        metric: the plan's metric: its name and mode.
        given_up: as `compact` takes it.
    """
    fragments = sorted((one for part in parts for one in part), key=lambda one: one.attempt(0))
    trials = [trial for wave in read_waves(folder) for trial in wave]
    found = [(outcome, one.attempt(start)) for one in fragments for outcome, start in one.outcomes]
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
        unreadable=sum(one.unreadable for one in fragments),
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
    names: set[str] = set()
    for stage in stages:
        names.update(stage.curves["metric"].unique())
        names.update(text(name) for outcome in stage.outcomes.values() for name in outcome.metrics)
    return [metric, *sorted(names - {metric})]


def write_stage(
    stage: Stage,
    plan: Mapping[str, Any],
    phase: Mapping[str, Any],
    schema: pa.Schema,
    files: tuple[Path, Path],
) -> tuple[int, int, int]:
    """Write a stage's two files; returns their numbers of rows and that of unreadable lines."""
    rows = [
        _row(trial, stage, plan, phase)
        for trial in sorted(stage.trials, key=lambda one: one.trial_id)
        if trial.trial_id in stage.outcomes
    ]
    columns = [pa.array([_cell(row, one) for row in rows], one.type) for one in schema]
    trials = pa.Table.from_arrays(columns, schema=schema)
    curves = pa.table(
        {
            name: pa.array(stage.curves[name], kind, from_pandas=True)
            for name, kind in zip(curves_schema().names, curves_schema().types, strict=True)
        },
        schema=curves_schema(),
    )
    for table, path in zip((trials, curves), files, strict=True):
        replace_atomic(path, partial(pq.write_table, table))
    return trials.num_rows, curves.num_rows, stage.unreadable


_MISSING = {pa.string(): "", pa.int64(): None, pa.float64(): None}


def _cell(row: Mapping[str, Any], column: pa.Field) -> Any:
    """Return a row's value as its column holds it; a parameter that its setting does not have is null."""
    if column.name in row:
        return coerce(row[column.name], column.type)
    return None if column.name.startswith("param.") else _MISSING[column.type]


def _row(trial: TrialSpec, stage: Stage, plan: Mapping[str, Any], phase: Mapping[str, Any]) -> dict[str, Any]:
    outcome = stage.outcomes[trial.trial_id]
    objective = outcome.metrics.get(plan["metric"]["name"])
    metrics = {**stage.reported.get(trial.trial_id, {}), **outcome.metrics}
    place = stage.places.get(trial.trial_id, Place())
    findings = stage.findings.get(trial.trial_id, [])
    cause = _DIAGNOSES.get(outcome.cause, "") if outcome.state == records.FAILED else ""
    return {
        "sweep": plan["name"],
        "trial_id": trial.trial_id,
        "setting_id": trial.setting_id,
        "origin": trial.origin,
        "parent": trial.parent,
        "state": outcome.state,
        "objective": None if outcome.state == records.FAILED else objective,
        **{f"param.{name}": value for name, value in trial.params.items()},
        **{f"metric.{text(name)}": value for name, value in metrics.items()},
        **{f"scale.{name}": value for name, value in phase["scale"].items()},
        "scale.samples": phase["samples"],
        "seed": trial.seed,
        "attempts": stage.starts[trial.trial_id],
        "seconds": outcome.seconds,
        "gpu_seconds": outcome.seconds * outcome.gpus,
        "slurm_job_id": outcome.slurm_job_id,
        "host": outcome.host,
        "gpu": place.gpu,
        "git_commit": place.git_commit,
        "diagnosis": ", ".join(filter(None, [cause, *(code for code, _, _ in findings)])),
        "diagnosis_evidence": "\n".join(f"{code} at {step}: {said}" for code, said, step in findings),
        "error": outcome.error,
    }
