"""Learning curves: from all that the attempts at trials reported to what counts of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.results.fragments import Attempt, Fragment
from orchestrator.results.reports import Reports
from orchestrator.results.schema import curves_schema


@dataclass(frozen=True, slots=True)
class Curves:
    """What counts of the reports, sorted by trial, step and metric.

    Attributes:
        trials: the names that `trial` counts through: all that are planned, in their order.
        metrics: the names that `metric` counts through, sorted.
        trial: of each row, the number of its trial.
        step: the reported step.
        metric: the number of its metric.
        value: NaN where it is none.
        time: seconds since the epoch; NaN where it is none.
    """

    trials: Sequence[str]
    metrics: Sequence[str]
    trial: NDArray[np.int64]
    step: NDArray[np.int64]
    metric: NDArray[np.int64]
    value: NDArray[np.float64]
    time: NDArray[np.float64]

    def table(self) -> pa.Table:
        """Return the rows as `results/curves` has them."""
        schema = curves_schema()
        columns = {
            "trial_id": pa.array(self.trials, pa.string()).take(pa.array(self.trial)),
            "step": pa.array(self.step),
            "metric": pa.array(self.metrics, pa.string()).take(pa.array(self.metric)),
            "value": pa.array(self.value, from_pandas=True),
            "time": pa.array(self.time, from_pandas=True),
        }
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)

    def named(self) -> list[str]:
        """Return the names of the metrics that there are rows of."""
        return [self.metrics[number] for number in np.unique(self.metric).tolist()]


def merge_curves(
    reports: Reports, fragments: Sequence[Fragment], planned: Sequence[str], limits: Mapping[str, Attempt]
) -> Curves:
    """Return every step that counts.

    Args:
        reports: whose files are numbers of `fragments`.
        fragments: the record files, in any order.
        planned: the trials' ids, in the order that the rows get.
        limits: the counted attempt of each trial that has one; later attempts' rows are left out.
    """
    # An attempt's number: of its file among all, then how often the trial had started in there.
    by_attempt = sorted(range(len(fragments)), key=lambda place: fragments[place].attempt(0))
    rank = np.empty(len(fragments), dtype=np.int64)
    rank[by_attempt] = np.arange(len(fragments))
    base = 1 + max((len(starts) for one in fragments for starts in one.begun.values()), default=0)
    attempt = rank[reports.file] * base + reports.start
    code_of = {trial: code for code, trial in enumerate(planned)}
    trial = np.asarray([code_of.get(name, -1) for name in reports.trials], dtype=np.int64)[reports.trial]
    place_of = {one.path.name: place for place, one in enumerate(fragments)}
    highest = np.full(len(planned) + 1, len(fragments) * base, dtype=np.int64)
    for name, (_, _, file, start) in limits.items():
        highest[code_of[name]] = rank[place_of[file]] * base + start
    rows = np.flatnonzero((trial >= 0) & (attempt <= highest[trial]))
    step, metric = reports.step, reports.metric
    # Of what was reported twice the last counts, and of one attempt's own the line further down.
    rows = rows[np.lexsort((attempt[rows], metric[rows], step[rows], trial[rows]))]
    rows = rows[~_replaced(trial[rows], step[rows], attempt[rows])]
    rows = rows[_last_of_each(trial[rows], step[rows], metric[rows])]
    return Curves(
        trials=planned,
        metrics=reports.metrics,
        trial=trial[rows],
        step=step[rows],
        metric=metric[rows],
        value=reports.value[rows],
        time=reports.time[rows],
    )


def _replaced(
    trial: NDArray[np.int64], step: NDArray[np.int64], attempt: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Say of which rows a later attempt, that took up before them, reported anew; sorted by trial."""
    replaced = np.zeros(len(trial), dtype=bool)
    if not len(trial):
        return replaced
    first = np.flatnonzero(_last_of_each(trial[::-1])[::-1])
    several = np.minimum.reduceat(attempt, first) != np.maximum.reduceat(attempt, first)
    some = np.flatnonzero(np.repeat(several, np.diff(first, append=len(trial))))
    if len(some):
        rows = pd.DataFrame({"trial": trial[some], "attempt": attempt[some], "step": step[some]})
        began = rows.groupby(["trial", "attempt"])["step"].min().sort_index(ascending=False)
        later = began.groupby(level="trial").cummin().groupby(level="trial").shift()
        replaced_from = later.reindex(pd.MultiIndex.from_frame(rows[["trial", "attempt"]])).to_numpy()
        replaced[some] = step[some] >= replaced_from  # NaN, no later attempt, replaces nothing
    return replaced


def _last_of_each(*columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which rows are the last of those that agree in all columns; such rows are together."""
    last = np.zeros(len(columns[0]), dtype=bool)
    last[-1:] = True
    for column in columns:
        last[:-1] |= column[1:] != column[:-1]
    return last


def at_best(curves: Curves, metric: str, mode: str) -> dict[str, dict[str, float]]:
    """Return every trial's metrics at the step where the sweep's own was best (its last, without one).

    Args:
        curves: as `merge_curves` gives them.
        metric: the sweep's own.
        mode: "max" or "min".
    """
    last = np.flatnonzero(_last_of_each(curves.trial))
    step = np.zeros(len(curves.trials), dtype=np.int64)
    step[curves.trial[last]] = curves.step[last]
    if metric in curves.metrics:
        own = np.flatnonzero((curves.metric == curves.metrics.index(metric)) & ~np.isnan(curves.value))
        # Stable, so that of two equally good steps the earlier one counts.
        value = curves.value[own] if mode == "min" else -curves.value[own]
        own = own[np.lexsort((value, curves.trial[own]))][::-1]
        best = own[_last_of_each(curves.trial[own])]
        step[curves.trial[best]] = curves.step[best]
    rows = np.flatnonzero(curves.step == step[curves.trial])
    found: dict[str, dict[str, float]] = {}
    for trial, name, value in zip(
        curves.trial[rows].tolist(), curves.metric[rows].tolist(), curves.value[rows].tolist(), strict=True
    ):
        found.setdefault(curves.trials[trial], {})[curves.metrics[name]] = value
    return found
