"""What figures, tables and the terminal show: derived from results, with nothing of how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.results.load import Results
from orchestrator.sweep.directory import ENSEMBLE, FINAL, TRAINED, SweepDirectory, wave_lengths
from orchestrator.sweep.records import FAILED


def matched(results: Results, earlier: str, later: str) -> pd.DataFrame:
    """Return `before`, `after` and `origin` of each setting promoted from one stage to the next.

    The index is the earlier trial's id; a setting that ran from several seeds has the mean of them.
    """
    before = results.at(earlier).set_index("trial_id")["objective"].rename("before")
    promoted = results.at(later)
    promoted = promoted[promoted["origin"].isin(["survivor", "control"])]
    after = promoted.groupby("parent").agg(after=("objective", "mean"), origin=("origin", "first"))
    both = after.join(before, how="inner")
    finite = np.isfinite(both["before"]) & np.isfinite(both["after"])
    found: pd.DataFrame = both.loc[finite, ["before", "after", "origin"]]
    return found


def thinned(results: Results, stage: str, most: int) -> pd.DataFrame:
    """Return a stage's trials that have a finite objective, worst first; at most `most`, evenly by rank."""
    rows = results.at(stage)
    # Only what stays is copied: of thousands of trials with all their columns that is most of the time.
    worth = rows["objective"].to_numpy(dtype=float) * (1 if results.mode == "max" else -1)
    finite = np.flatnonzero(np.isfinite(worth))
    return rows.iloc[_evenly(finite[np.argsort(worth[finite], kind="stable")], most)]


def shown(results: Results, most: int) -> dict[str, pd.DataFrame]:
    """Return the trials of every stage as `thinned` does, at most `most` altogether.

    Small stages keep all of theirs before large ones are thinned.
    """
    left, rows = most, {stage: thinned(results, stage, most) for stage in results.stages}
    small_first = sorted(results.stages, key=lambda stage: len(rows[stage]))
    for number, stage in enumerate(small_first):
        share = max(1, left // (len(small_first) - number))
        rows[stage] = evenly(rows[stage], share)
        left -= len(rows[stage])
    return rows


def evenly(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most `most` rows, the last among them, and the others evenly spread over all."""
    return rows if len(rows) <= most else rows.iloc[_evenly(np.arange(len(rows)), most)]


def _evenly(places: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    if len(places) <= most:
        return places
    return np.asarray(places[np.unique(np.linspace(len(places) - 1, 0, most).round().astype(int))])


def spearman(match: pd.DataFrame) -> float | None:
    """Return Spearman's rank correlation of `before` and `after`; None where there is none to speak of."""
    if len(match) < 3:
        return None
    correlation = match["before"].rank().corr(match["after"].rank())
    return None if np.isnan(correlation) else float(correlation)


def ranks(results: Results) -> pd.Series[float]:
    """Return each trial's rank within its stage, 1 the best: stages are different problems, on no one scale.

    The index is that of `results.trials`; NaN where there is no finite objective.
    """
    finite = results.trials["objective"].where(np.isfinite(results.trials["objective"]))
    by_stage = finite.groupby(results.trials["stage"], observed=True)
    placed: pd.Series[float] = by_stage.rank(ascending=results.mode == "max", pct=True).round(4)
    return placed


def objective_range(results: Results) -> list[float] | None:
    """Return limits that leave out the worst 2%, which would press all others into a line."""
    values = results.trials["objective"]
    values = values[np.isfinite(values)]
    if values.empty:
        return None
    low, high = values.min(), values.max()
    if results.mode == "max":
        low = values.quantile(0.02)
    else:
        high = values.quantile(0.98)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return [float(low - margin), float(high + margin)]


def standing(results: Results) -> str:
    """Return in a few words where the sweep stands."""
    planned, done = planned_trials(results), results.trials["stage"].value_counts()
    if SweepDirectory(results.path).cancelled.exists():
        return "cancelled"
    for place, stage in enumerate(results.stages):
        # A stage that has closed may have trials left that nobody waits for.
        closed = any(done[later] for later in results.stages[place + 1 :])
        if done[stage] < planned[stage] and not closed:
            return f"at {stage}: {done[stage]} of {planned[stage]} trials done"
    wants_ensemble = any(phase["kind"] == ENSEMBLE for phase in results.plan["phases"])
    return "combining checkpoints" if wants_ensemble and results.ensemble is None else "finished"


def planned_trials(results: Results) -> dict[str, int]:
    """Return how many trials each stage and the final runs have: as drawn, or else as planned."""
    phases = [phase for phase in results.plan["phases"] if phase["kind"] in TRAINED]
    return {phase["name"]: _planned(results, phase) for phase in phases}


def _planned(results: Results, phase: Mapping[str, Any]) -> int:
    drawn = wave_lengths(SweepDirectory(results.path).phase(phase["kind"], phase["name"]))
    repeats = int(phase.get("repeats", 0))
    if len(drawn) == phase.get("waves", 1) + bool(repeats):
        return sum(drawn)
    return int(phase["trials"]) + repeats


def stages_with_curves(results: Results) -> list[str]:
    """Return the stages of which the sweep's own metric was reported."""
    own = set(results.curves.loc[results.curves["metric"] == results.metric, "stage"].unique())
    return [stage for stage in results.stages if stage in own]


def final_settings(results: Results) -> pd.DataFrame:
    """Return one row for each setting of the final runs, best first, with the spread over its seeds.

    The index is the setting_id; columns are seeds, the mean, std, min and max of the objective, and the
    means of the other metrics.
    """
    finals = {phase["name"] for phase in results.plan["phases"] if phase["kind"] == FINAL}
    runs = results.trials[results.trials["stage"].isin(finals)].groupby("setting_id")
    settings: pd.DataFrame = runs["objective"].agg(["count", "mean", "std", "min", "max"])
    settings = settings.rename(columns={"count": "seeds", "mean": f"mean {results.metric}"})
    for column in (str(name) for name in results.trials.columns):
        name = column.removeprefix("metric.")
        if name not in (column, results.metric) and (means := runs[column].mean()).notna().any():
            settings[f"mean {name}"] = means
    return settings.sort_values(f"mean {results.metric}", ascending=results.mode == "min")


def failures(results: Results) -> list[tuple[str, pd.DataFrame]]:
    """Return the failed trials by the last line of their error, most frequent first."""
    failed = results.trials[results.trials["state"] == FAILED]
    last = [(error.strip().splitlines() or ["no message"])[-1][:200] for error in failed["error"]]
    kinds = [
        (str(line), rows) for line, rows in failed.groupby(pd.Series(last, index=failed.index, dtype=object))
    ]
    return sorted(kinds, key=lambda kind: -len(kind[1]))
