"""What a sweep costs: by stage as planned and as spent, and what was found for it, trial after trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.results.load import Results
from orchestrator.sweep.directory import TRAINED
from orchestrator.sweep.records import COMPLETED

SECONDS, SAMPLES, TRIALS = "seconds", "trained_samples", "trials"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spending:
    """What one stage, or the final runs, take. NaN: not known.

    Attributes:
        stage: its name.
        planned: `trials`, `trained_samples` (samples times epochs over all trials) and `seconds` (the trials'
            own time one after another), as the plan says.
        spent: the same of the trials that ended. What was stopped on its way trained the part of its
            samples that its last reported step is of the last step of those that were not.
        gpu_seconds: what the trials held of GPUs; 0 where they had none.
    """

    stage: str
    planned: Mapping[str, float]
    spent: Mapping[str, float]
    gpu_seconds: float


def spending(results: Results, costs: pd.DataFrame | None = None) -> list[Spending]:
    """Return what each stage and the final runs take, in order.

    Args:
        results: of the sweep.
        costs: what `trial_costs` returns, where that is known already.
    """
    done = (trial_costs(results) if costs is None else costs).groupby("stage", observed=False)[
        [TRIALS, SAMPLES, SECONDS]
    ]
    spent = done.sum(min_count=1).to_dict("index")
    held = results.trials.groupby("stage", observed=False)["gpu_seconds"].sum()
    return [
        Spending(
            stage=phase["name"],
            planned=_planned(phase),
            spent={unit: float(spent[phase["name"]][unit]) for unit in (TRIALS, SAMPLES, SECONDS)},
            gpu_seconds=float(held[phase["name"]]),
        )
        for phase in _phases(results)
    ]


def unit_of(costs: list[Spending]) -> str:
    """Return the unit in which plan and spending can be compared best: what the plan knows of most stages."""
    known = {
        unit: sum(math.isfinite(one.planned[unit]) for one in costs) for unit in (SECONDS, SAMPLES, TRIALS)
    }
    return max(known, key=lambda unit: known[unit])


def trial_costs(results: Results) -> pd.DataFrame:
    """Return stage, trial_id, trials (1), trained_samples and seconds of each trial that ended.

    And `end`: when it reported last, in seconds since the epoch, NaN where it reported nothing.
    """
    rows = results.trials[["stage", "trial_id", "state", "seconds"]].copy()
    each = {phase["name"]: _planned(phase)[SAMPLES] / max(1, _runs(phase)) for phase in _phases(results)}
    whole = rows["stage"].astype(object).map(each).astype(float)
    last = results.curves.groupby("trial_id", observed=True)[["step", "time"]].max()
    last = last.reindex(rows["trial_id"]).set_axis(rows.index).astype(float)
    rows[TRIALS], rows[SAMPLES], rows["end"] = 1.0, whole * _parts(rows, last["step"]), last["time"]
    return rows[["stage", "trial_id", TRIALS, SAMPLES, SECONDS, "end"]]


def progress(results: Results, unit: str, costs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return stage, trial_id, cost and best: the best objective of its stage by then, in the order of ends.

    Args:
        results: of the sweep.
        unit: in which cost is added up, over all stages: seconds, trained_samples or trials.
        costs: what `trial_costs` returns, where that is known already.

    Where a trial reported nothing, it comes behind those of its stage that did. Only trials that completed
    have an objective that counts.
    """
    rows = (trial_costs(results) if costs is None else costs).assign(objective=results.trials["objective"])
    counts = (results.trials["state"] == COMPLETED) & np.isfinite(rows["objective"])
    rows["objective"] = rows["objective"].where(counts)
    rows = rows.sort_values(["stage", "end"], kind="stable", na_position="last")
    rows["cost"] = rows[unit].fillna(0.0).cumsum()
    by_stage = rows.groupby("stage", observed=True)["objective"]
    best = by_stage.cummax() if results.mode == "max" else by_stage.cummin()
    # The running best of what has none yet, or failed, is that of those before it.
    rows["best"] = best.groupby(rows["stage"], observed=True).ffill()
    return rows[["stage", "trial_id", "cost", "best"]].reset_index(drop=True)


def _parts(rows: pd.DataFrame, last: pd.Series[float]) -> pd.Series[float]:
    """Return the share of its training that each trial did, from the last step that it reported."""
    completed = rows["state"] == COMPLETED
    whole = last.where(completed).groupby(rows["stage"], observed=True).transform("max")
    parts = (last / whole).clip(upper=1.0).where(~completed, 1.0)
    # Where nothing was reported, nothing is known to have been trained.
    return parts.astype(float).fillna(0.0)


def _planned(phase: Mapping[str, Any]) -> dict[str, float]:
    cost = phase.get("cost") or {}
    known = {unit: cost.get(unit) for unit in (SAMPLES, SECONDS)}
    return {
        TRIALS: float(_runs(phase)),
        **{unit: math.nan if value is None else float(value) for unit, value in known.items()},
    }


def _runs(phase: Mapping[str, Any]) -> int:
    return int(phase["trials"]) + int(phase.get("repeats", 0))


def _phases(results: Results) -> list[Mapping[str, Any]]:
    return [phase for phase in results.plan["phases"] if phase["kind"] in TRAINED]
