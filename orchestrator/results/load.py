"""Results for notebooks: pandas frames, with the plan and the ranges beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from orchestrator.errors import UserError, nearest
from orchestrator.results.compact import first_space, read_plan, stage_files, trial_phases
from orchestrator.results.ensemble_file import read_ensemble
from orchestrator.results.schema import curves_schema, trials_schema
from orchestrator.results.tables import read_table
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.records import PRUNED
from orchestrator.sweep.spaces import read_ranges


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a sweep has found so far.

    Attributes:
        path: the sweep's directory.
        name: the sweep's name.
        metric: the name of what the sweep optimises.
        mode: "max" or "min".
        stages: the names of the stages in order, then "final".
        trials: one row for each trial that ended. `stage` is an ordered categorical in the order of
            `stages`, so that sorting and grouping follow the ladder; `objective` is NaN where a trial
            failed or gave none; `seconds` and `gpu_seconds` are seconds.
        curves: one row for each reported step: stage, trial_id, step, metric, value, time (seconds since
            the epoch), also of trials that have not ended.
        spaces: for each stage that has been planned, its ranges: parameter to kind, low, high, log or
            values, and reason, as in `space.json`.
        plan: `plan.json`.
        ensemble: what the ensemble step chose and measured, as in `ensemble.json`; None until it has.
    """

    path: Path
    name: str
    metric: str
    mode: str
    stages: list[str]
    trials: pd.DataFrame
    curves: pd.DataFrame
    spaces: Mapping[str, Mapping[str, Mapping[str, Any]]]
    plan: Mapping[str, Any]
    ensemble: Mapping[str, Any] | None

    def __repr__(self) -> str:
        goal = "highest" if self.mode == "max" else "lowest"
        counts = ", ".join(f"{stage} {len(self.at(stage))}" for stage in self.stages)
        return f"<Results of {self.name}: the {goal} {self.metric}; trials: {counts or 'none'}>"

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters, each with a column `param.NAME` in `trials`."""
        columns = [str(column) for column in self.trials.columns]
        return [column.removeprefix("param.") for column in columns if column.startswith("param.")]

    def at(self, stage: str) -> pd.DataFrame:
        """Return the trials of one stage.

        Raises:
            UserError: there is no such stage.
        """
        if stage not in self.stages:
            raise UserError(f"no stage '{stage}'", file=self.path, hint=nearest(stage, self.stages))
        return self.trials[self.trials["stage"] == stage]

    def best(self, n: int = 1, stage: str | None = None) -> pd.DataFrame:
        """Return the n best trials, best first, of a stage or else of the last one with a finite objective.

        Objectives of different stages are not compared: they were measured on different problems.

        Raises:
            UserError: there is no such stage.
        """
        # What diverged may have an infinite objective, which in one direction is larger than all.
        measured: pd.DataFrame = self.trials[np.isfinite(self.trials["objective"])]
        if stage is None:
            stage = next((name for name in reversed(self.stages) if (measured["stage"] == name).any()), None)
        if stage is None:
            return measured
        rows = self.at(stage)
        rows = rows[np.isfinite(rows["objective"].to_numpy())]
        rows = rows.sort_values("objective", ascending=self.mode == "min", kind="stable")
        # What was stopped on its way has an early value, which is no result to compare.
        stopped = rows["state"] == PRUNED
        best: pd.DataFrame = pd.concat([rows[~stopped], rows[stopped]]).head(n)
        return best


def load_results(directory: str | Path, *, missing_ok: bool = False) -> Results:
    """Load a sweep's results.

    Args:
        directory: the sweep's directory, such as sweeps/digits.
        missing_ok: a sweep that has no results yet gives empty tables.

    Raises:
        UserError: the directory is no sweep's, or has no results yet, or a file of it is damaged.
    """
    sweep = SweepDirectory(Path(directory).expanduser())
    plan = read_plan(sweep)
    phases = trial_phases(plan)
    stages = [phase["name"] for phase in phases]
    files = {name: stage_files(sweep, name) for name in stages}
    if not missing_ok and not any(trials.exists() for trials, _ in files.values()):
        raise UserError(
            "this sweep has no results yet", file=sweep.path, hint="See `orchestrate status` for how it goes"
        )
    spaces = {phase["name"]: sweep.phase(phase["kind"], phase["name"]).space for phase in phases}
    metric = plan["metric"]["name"]
    schemas = trials_schema(first_space(sweep, plan), [metric]), curves_schema()
    # Side by side: most of the time is spent in Arrow, without Python's lock.
    with ThreadPoolExecutor(2) as pool:
        trials, curves = pool.map(
            lambda table: _read_table({name: files[name][table] for name in stages}, stages, schemas[table]),
            (0, 1),
        )
    return Results(
        path=sweep.path,
        name=plan["name"],
        metric=metric,
        mode=plan["metric"]["mode"],
        stages=stages,
        trials=trials,
        curves=curves,
        spaces={name: read_ranges(path) for name, path in spaces.items() if path.exists()},
        plan=plan,
        ensemble=read_ensemble(sweep),
    )


def _read_table(files: Mapping[str, Path], stages: Iterable[str], schema: pa.Schema) -> pd.DataFrame:
    """Read one table's files, with `stage` as the first column.

    Between the replacing of two stages' files one may have a metric that the other has not: both are read,
    with nulls.
    """
    repeated = ("trial_id", "metric") if "step" in schema.names else ()
    tables = [(name, read_table(path, repeated)) for name, path in files.items() if path.exists()]
    names = list(stages)
    places = np.asarray([names.index(name) for name, _ in tables], dtype=np.int16)
    codes = np.repeat(places, [table.num_rows for _, table in tables])
    merged = pa.concat_tables(
        [table for _, table in tables] or [schema.empty_table()], promote_options="default"
    )
    frame: pd.DataFrame = merged.to_pandas()
    stage = pd.Categorical.from_codes(codes, pd.Index(names), ordered=True)
    frame.insert(0, "stage", pd.Series(stage))
    return frame
