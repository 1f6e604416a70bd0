"""A stage's two tables: its rows, joined with those on disk that are still good, and written whole."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.results.fragments import Place
from orchestrator.results.known import marked
from orchestrator.results.merge import Stage
from orchestrator.results.schema import FLOAT, INT, STRING, coerce, curves_schema, text
from orchestrator.results.tables import read_table
from orchestrator.sweep import records
from orchestrator.sweep.directory import TrialSpec
from orchestrator.sweep.files import replace_atomic

# What is said of a failure in a word, where its cause was told apart.
_DIAGNOSES = {
    records.MEMORY: "out of memory",
    records.HUNG: "hung",
    records.NO_PROGRESS: "no progress",
}


def write_stage(
    stage: Stage,
    plan: Mapping[str, Any],
    phase: Mapping[str, Any],
    schema: pa.Schema,
    files: tuple[Path, Path],
) -> tuple[int, int, int]:
    """Write a stage's two files unless they are just that; returns their rows, and the unreadable lines.

    Args:
        stage: its trials, or those that something new is known of.
        plan: the sweep's.
        phase: the stage's part of the plan.
        schema: of the trials.
        files: for trials and curves.
    """
    rows = [
        _row(trial, stage, plan, phase)
        for trial in sorted(stage.trials, key=lambda one: one.trial_id)
        if trial.trial_id in stage.outcomes
    ]
    trials = pa.Table.from_arrays([_column(rows, one) for one in schema], schema=schema)
    curves = stage.curves
    if stage.only is not None:
        old = [pq.ParquetFile(path) for path in files]
        if not stage.changed and old[0].schema_arrow.names == schema.names:
            return old[0].metadata.num_rows, old[1].metadata.num_rows, stage.unreadable
        order = [trial.trial_id for trial in stage.trials]
        trials = with_rows(read_table(files[0]), trials, stage.only, sorted(order), schema)
        curves = with_rows(read_table(files[1]), curves, stage.only, order, curves_schema())
    # The curves first: a mark that the trials don't have makes both be written anew.
    for table, path in reversed(list(zip(marked(trials, curves, stage.known), files, strict=True))):
        replace_atomic(path, partial(pq.write_table, table))
    return trials.num_rows, curves.num_rows, stage.unreadable


def with_rows(
    old: pa.Table, new: pa.Table, only: Collection[str], order: Sequence[str], schema: pa.Schema
) -> pa.Table:
    """Return a table with the rows of some trials exchanged.

    Args:
        old: rows of all trials, those of each together.
        new: rows of `only`, in the same order.
        only: the trials whose old rows no longer count.
        order: of all trials.
        schema: that the result has; a column that the old table lacks is null for its rows.
    """
    kept = old.filter(pc.invert(pc.is_in(old["trial_id"], pa.array(sorted(only), pa.string()))))
    columns = [
        kept[one.name].cast(one.type) if one.name in kept.column_names else pa.nulls(kept.num_rows, one.type)
        for one in schema
    ]
    both = pa.concat_tables([pa.Table.from_arrays(columns, schema=schema), new])
    place = pc.index_in(both["trial_id"], pa.array(order, pa.string()))
    # Stable, because the rows of each trial are in their order already.
    rows = np.argsort(place.to_numpy(), kind="stable")
    table: pa.Table = both.take(pa.array(rows)).replace_schema_metadata(schema.metadata)
    return table


# What a cell holds that nothing is known of; a parameter that its setting does not have is null.
_MISSING = {STRING: "", INT: None, FLOAT: None}
# Values that Arrow takes as `coerce` would.
_PLAIN: dict[pa.DataType, set[type]] = {STRING: {str}, INT: {int, type(None)}, FLOAT: {float, type(None)}}


def _column(rows: Sequence[Mapping[str, Any]], column: pa.Field) -> pa.Array:
    """Return one column of all rows."""
    name, kind = column.name, column.type
    missing = None if name.startswith("param.") else _MISSING[kind]
    values = [row.get(name, missing) for row in rows]
    if {type(value) for value in values} <= _PLAIN[kind]:
        with contextlib.suppress(pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
            return pa.array(values, kind, from_pandas=True)
    cells = [coerce(row[name], kind) if name in row else missing for row in rows]
    return pa.array(cells, kind)


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
