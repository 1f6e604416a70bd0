"""A stage as a run of its own in MLflow, above its trials: its scale, its ranges and how it goes.

It lives as long as the stage: its numbers are written again when they have changed, at the count of trials
that have ended by then, so that MLflow draws how the best objective grew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.control.rest import is_finished
from orchestrator.integrations.ended import OBJECTIVE, Ended
from orchestrator.integrations.mlflow_book import Book, create_run, log
from orchestrator.integrations.mlflow_names import name_of, param_of, tag_of
from orchestrator.integrations.mlflow_runs import (
    FINISHED,
    KILLED,
    KIND,
    OF_STAGE,
    RUNNING,
    SOURCE,
    STAGE,
    Run,
    milliseconds,
)
from orchestrator.results.compact import trial_phases
from orchestrator.results.load import Results
from orchestrator.results.schema import text
from orchestrator.sweep.directory import SweepDirectory, read_waves
from orchestrator.sweep.records import STATES


def begin_stage(book: Book, results: Results, stage: str, first: Ended) -> str:
    """Return MLflow's id of a stage's run, written where there is none.

    Args:
        book: the sweep's experiment.
        results: of the sweep.
        stage: its name.
        first: of its trials to end.
    """
    run = Run(
        name=text(stage),
        tags={KIND: OF_STAGE, STAGE: tag_of(stage), **SOURCE},
        params=_params(results, stage),
        metrics=(),
        status=RUNNING,
        began=milliseconds(first.began),
        ended=milliseconds(first.ended),
    )
    there = book.runs.get(_key(stage), [])
    if not there:
        return create_run(book, run)
    missing = {name: value for name, value in run.params.items() if name not in there[0].params}
    log(book, there[0].run_id, (), missing)
    return there[0].run_id


def tell_stage(book: Book, run_id: str, results: Results, stage: str, last: Ended) -> None:
    """Bring the numbers and the state of a stage's run up to date.

    Args:
        book: the sweep's experiment.
        run_id: as `begin_stage` gave it.
        results: of the sweep.
        stage: its name.
        last: of its trials to end.
    """
    there = next((one for one in book.runs.get(_key(stage), ()) if one.run_id == run_id), None)
    known: Mapping[str, float] = there.metrics if there else {}
    count, at = len(results.at(stage)), milliseconds(last.ended)
    figures = _figures(results, stage).items()
    changed = [(name, value, at, count) for name, value in figures if known.get(name) != value]
    log(book, run_id, changed, {})
    status = _status(results, stage)
    if status != (there.status if there else RUNNING):
        book.client.set_terminated(run_id, status, end_time=at)


def _key(stage: str) -> tuple[str, str, str]:
    return OF_STAGE, tag_of(stage), ""


def _params(results: Results, stage: str) -> dict[str, str]:
    scale = _phase(results, stage).get("scale") or {}
    told = {f"scale.{name}": value for name, value in scale.items() if value is not None}
    told |= {f"range.{name}": _range(spec) for name, spec in results.spaces.get(stage, {}).items()}
    return {name_of(name): param_of(value) for name, value in told.items()}


def _figures(results: Results, stage: str) -> dict[str, float]:
    rows, best = results.at(stage), results.best(1, stage)
    states = rows["state"].value_counts()
    figures = {f"trials/{state}": float(states.get(state, 0)) for state in STATES}
    figures |= {"trials/ended": float(len(rows)), "gpu_hours": float(rows["gpu_seconds"].sum()) / 3600}
    if len(best):
        figures[OBJECTIVE] = float(best["objective"].iloc[0])
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _status(results: Results, stage: str) -> str:
    directory, phase = SweepDirectory(results.path), _phase(results, stage)
    waves = read_waves(directory.phase(phase["kind"], stage))
    planned = max(int(phase["trials"]), sum(len(wave) for wave in waves))
    if len(results.at(stage)) >= planned or is_finished(directory):
        return FINISHED
    return KILLED if directory.cancelled.exists() else RUNNING


def _phase(results: Results, stage: str) -> dict[str, Any]:
    return next(one for one in trial_phases(results.plan) if one["name"] == stage)


def _range(spec: Mapping[str, Any]) -> Any:
    if "values" in spec:
        return list(spec["values"])
    return f"{spec['low']:g} to {spec['high']:g}{', log' if spec.get('log') else ''}"
