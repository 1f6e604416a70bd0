"""What other tools are told of a trial that has ended: its setting, its state, its numbers and its curves.

Names of numbers: what a trial reported on its way keeps its name; `objective` is the value that the sweep
goes by, and `outcome/NAME` what else there is at the same step. A reported metric that is called like one of
these two is called `reported/NAME` instead.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.results.compact import trial_phases
from orchestrator.results.load import Results
from orchestrator.results.schema import text
from orchestrator.sweep.directory import PhaseDirectory, SweepDirectory, read_waves
from orchestrator.sweep.records import outcomes, read_directory

if TYPE_CHECKING:
    import pandas as pd

OBJECTIVE, OUTCOME, REPORTED = "objective", "outcome/", "reported/"
# The columns of the results that are told of a trial, beside its scale.
_FACTS = (
    "trial_id", "state", "stage", "setting_id", "origin", "parent", "seed", "attempts", "seconds",
    "gpu_seconds", "slurm_job_id", "host", "gpu", "git_commit", "diagnosis", "diagnosis_evidence", "error",
)  # fmt: skip

# A reported value: step, value, and when (seconds since the epoch).
Point = tuple[int, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """One trial that has ended.

    Attributes:
        trial_id, stage: which it is.
        state: completed, pruned, diverged or failed.
        params: the setting as it was frozen.
        facts: what else is known, by the results' names of columns; what is empty or no number is left out.
        outcome: the numbers that it ended with, those that are finite.
        curves: of each reported metric its points in the order of steps; values may be NaN or infinite.
        began, ended: seconds since the epoch.
    """

    trial_id: str
    stage: str
    state: str
    params: Mapping[str, Any]
    facts: Mapping[str, str | int | float]
    outcome: Mapping[str, float]
    curves: Mapping[str, Sequence[Point]]
    began: float
    ended: float

    def digest(self, *more: object) -> str:
        """Return what tells this content from any other: 16 characters.

        Args:
            more: what else it shall depend on, plain values.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content = json.dumps([fields | {"params": dict(self.params)}, more], sort_keys=True, default=str)
        return sha256(content.encode("utf-8", "replace")).hexdigest()[:16]


def ended_trials(results: Results, stage: str) -> Iterator[Ended]:
    """Give the trials of a stage that have ended, in the order in which they did.

    Args:
        results: of the sweep.
        stage: the name of one of its stages, or "final".
    """
    phase = next(one for one in trial_phases(results.plan) if one["name"] == stage)
    folder = SweepDirectory(results.path).phase(phase["kind"], stage)
    params = {spec.trial_id: spec.params for wave in read_waves(folder) for spec in wave}
    rows = results.at(stage)
    rows = rows[rows["trial_id"].isin(params.keys())]
    curves = _Curves(results.curves[results.curves["stage"] == stage])
    ended = _ended(folder, rows["trial_id"].tolist(), curves)
    for row in sorted(rows.to_dict("records"), key=lambda row: (ended[row["trial_id"]], row["trial_id"])):
        name = row["trial_id"]
        seconds = row["seconds"] if math.isfinite(row["seconds"]) else 0.0
        yield Ended(
            trial_id=text(name),
            stage=text(stage),
            state=row["state"],
            params={text(key): value for key, value in params[name].items()},
            facts=_facts(row),
            outcome=_outcome(row, results.metric),
            curves=curves.of(name, ended[name]),
            began=ended[name] - seconds,
            ended=ended[name],
        )


def frozen_settings(results: Results) -> Iterator[tuple[str, Any]]:
    """Give all parameters of all frozen trials, each with its value."""
    for phase in trial_phases(results.plan):
        folder = SweepDirectory(results.path).phase(phase["kind"], phase["name"])
        for spec in (spec for wave in read_waves(folder) for spec in wave):
            for name, value in spec.params.items():
                yield text(name), value


class _Curves:
    """The reported steps of a stage's trials, found by trial."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._rows = frame.groupby("trial_id", sort=False, observed=True).indices
        self._columns = [frame[name].to_numpy() for name in ("metric", "step", "value", "time")]

    def latest(self) -> dict[str, float]:
        """Return the time of each trial's last report, where one is known."""
        times = self._columns[3]
        known = {str(name): times[rows] for name, rows in self._rows.items()}
        return {name: float(np.nanmax(at)) for name, at in known.items() if not np.isnan(at).all()}

    def of(self, trial: str, ended: float) -> dict[str, list[Point]]:
        """Return one trial's points; where it is not known when, it is when the trial ended."""
        found: dict[str, list[Point]] = {}
        if trial in self._rows:
            columns = (column[self._rows[trial]].tolist() for column in self._columns)
            for metric, step, value, at in zip(*columns, strict=True):
                point = int(step), float(value), float(at) if math.isfinite(at) else ended
                found.setdefault(name_reported(metric), []).append(point)
        return found


def _ended(folder: PhaseDirectory, trials: Sequence[str], curves: _Curves) -> dict[str, float]:
    """Return when trials ended, in seconds since the epoch: with their last report, or else as recorded."""
    ended = curves.latest()
    if any(name not in ended for name in trials):
        for record in read_directory(folder.records):
            for outcome in outcomes(record):
                if math.isfinite(outcome.time) and outcome.time > 0:
                    ended.setdefault(outcome.trial, outcome.time)
    # Of a trial that was given up there is no outcome.
    latest = max(ended.values(), default=time.time())
    return {name: ended.get(name, latest) for name in trials}


def name_reported(metric: str) -> str:
    """Return what a reported metric is called."""
    name = text(metric)
    own = name == OBJECTIVE or name.startswith((OUTCOME, REPORTED))
    return REPORTED + name if own else name


def _outcome(row: Mapping[Any, Any], metric: str) -> dict[str, float]:
    found = {OBJECTIVE: row["objective"]}
    for key, value in row.items():
        name = str(key).removeprefix("metric.")
        if str(key) != name and name != metric:
            found[OUTCOME + text(name)] = value
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def _facts(row: Mapping[Any, Any]) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {}
    for key in (*_FACTS, *(key for key in row if str(key).startswith("scale."))):
        value = row.get(key)
        if value is not None and hasattr(value, "item"):
            value = value.item()
        if isinstance(value, str):
            value = text(value)
        elif value is None or not math.isfinite(value):
            continue
        elif float(value).is_integer():
            value = int(value)  # a column with a gap in it has floats
        if value != "":
            found[text(str(key))] = value
    return found
