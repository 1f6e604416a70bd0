"""Results for notebooks: pandas frames, with the plan and the ranges beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.errors import UserError, nearest
from orchestrator.results.compact import first_space, read_plan, stage_files, trial_phases
from orchestrator.results.ensemble_file import read_ensemble
from orchestrator.results.late import LateFrame
from orchestrator.results.schema import curves_schema, trials_schema
from orchestrator.results.tables import HeldFile, hold_file
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
            the epoch), also of trials that have not ended. They are as they were on disk when the results
            were loaded, but made into a frame when they are first asked for: only then a damaged part of
            their files is noticed, by a UserError.
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
    curves: LateFrame = LateFrame()  # noqa: RUF009 -- a descriptor, and no default
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
        return self.trials[self._are_of(stage)]

    def _are_of(self, stage: str) -> NDArray[np.bool_]:
        if stage not in self.stages:
            raise UserError(f"no stage '{stage}'", file=self.path, hint=nearest(stage, self.stages))
        return np.asarray(self.trials["stage"] == stage)

    def best(self, n: int = 1, stage: str | None = None) -> pd.DataFrame:
        """Return the n best trials, best first, of a stage or else of the last one with a finite objective.

        Objectives of different stages are not compared: they were measured on different problems.

        Raises:
            UserError: there is no such stage.
        """
        # What diverged may have an infinite objective, which in one direction is larger than all.
        objective = self.trials["objective"].to_numpy(dtype=float)
        measured = np.isfinite(objective)
        if stage is None:
            seen = set(self.trials["stage"][measured].unique())
            stage = next((name for name in reversed(self.stages) if name in seen), None)
        if stage is None:
            return self.trials.head(0)
        # Of thousands of rows only those that are asked for are copied.
        places = np.flatnonzero(measured & self._are_of(stage))
        # What was stopped on its way has an early value, which is no result to compare.
        stopped = (self.trials["state"] == PRUNED).to_numpy()[places]
        merit = objective[places] if self.mode == "min" else -objective[places]
        return self.trials.iloc[places[np.lexsort((merit, stopped))][:n]]


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
    # Side by side: most of the time is spent in Arrow, without Python's lock.
    with ThreadPoolExecutor(1) as pool:
        curves = pool.submit(_hold, {name: curves for name, (_, curves) in files.items()})
        held = _hold({name: trials for name, (trials, _) in files.items()})
        trials = _frame(held, stages, trials_schema(first_space(sweep, plan), [metric]))
    return Results(
        path=sweep.path,
        name=plan["name"],
        metric=metric,
        mode=plan["metric"]["mode"],
        stages=stages,
        trials=trials,
        curves=partial(_frame, curves.result(), stages, curves_schema(), ("trial_id", "metric")),
        spaces={name: read_ranges(path) for name, path in spaces.items() if path.exists()},
        plan=plan,
        ensemble=read_ensemble(sweep),
    )


def _hold(files: Mapping[str, Path]) -> dict[str, HeldFile]:
    """Return one table's files by stage, of the stages that have one."""
    held = {}
    for name, path in files.items():
        # One that is there may be gone at once, to be made anew.
        with contextlib.suppress(FileNotFoundError):
            held[name] = hold_file(path)
    return held


def _frame(
    files: Mapping[str, HeldFile], stages: Iterable[str], schema: pa.Schema, repeated: Collection[str] = ()
) -> pd.DataFrame:
    """Return one table's files as one frame, with `stage` as the first column.

    Between the replacing of two stages' files one may have a metric that the other has not: both are read,
    with nulls.

    Raises:
        DamagedTable: a part of a file is not sound.
    """
    tables = [(name, file.table(repeated)) for name, file in files.items()]
    names = list(stages)
    # As small as pandas keeps them, which spares a copy.
    places = np.asarray([names.index(name) for name, _ in tables], dtype=np.min_scalar_type(-len(names)))
    codes = np.repeat(places, [table.num_rows for _, table in tables])
    merged = pa.concat_tables(
        [table for _, table in tables] or [schema.empty_table()], promote_options="default"
    )
    frame: pd.DataFrame = merged.to_pandas()
    stage = pd.Categorical.from_codes(codes, pd.Index(names), ordered=True)
    frame.insert(0, "stage", pd.Series(stage))
    return frame
