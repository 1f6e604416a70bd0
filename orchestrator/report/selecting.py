"""What of a sweep's results is asked for: rows by conditions, their order, columns.

Done with pyarrow, in which whole numbers stay whole where one of them is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.errors import UserError, nearest
from orchestrator.report.columns import chosen, order
from orchestrator.report.where import Condition, parse
from orchestrator.results.compact import read_plan, stage_files, trial_phases
from orchestrator.results.tables import read_table
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.records import PRUNED

MOST_NAMED = 20  # values of a column that a message lists


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is asked for, as it was written on the command line.

    Attributes:
        where: conditions on columns of trials (or, with curves, of reported steps); all must hold.
        stages: names; none means all.
        states: of trials; none means all.
        top: the best so many trials.
        sort: columns, `-` before one that descends; none means the last stage first, best first within it.
        columns: names and patterns; none means all.
        curves: the reported steps of those trials, not the trials.
    """

    where: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    top: int | None = None
    sort: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    curves: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """A sweep's two tables, each with `stage` as its first column.

    Attributes:
        trials: one row a trial that ended.
        curves: one row a reported step; empty unless it was asked for.
        stages: names in the order of the ladder.
        mode: "max" or "min".
    """

    trials: pa.Table
    curves: pa.Table
    stages: tuple[str, ...]
    mode: str


def read_results(path: Path, *, curves: bool = False) -> Results:
    """Read the Parquet files of a sweep's results.

    Raises:
        UserError: the directory is no sweep's, has no results yet, or a file of them is damaged.
    """
    sweep = SweepDirectory(path)
    plan = read_plan(sweep)
    stages = [str(phase["name"]) for phase in trial_phases(plan)]
    files = {stage: stage_files(sweep, stage) for stage in stages}
    present = [stage for stage in stages if files[stage][0].exists()]
    with_curves = [stage for stage in present if curves and files[stage][1].exists()]
    found = Results(
        trials=_read({stage: files[stage][0] for stage in present}) if present else pa.table({}),
        curves=_read({stage: files[stage][1] for stage in with_curves}) if with_curves else pa.table({}),
        stages=tuple(stages),
        mode=str(plan["metric"]["mode"]),
    )
    if found.trials.num_rows == found.curves.num_rows == 0:
        hint = "See `orchestrate status` for how it goes"
        raise UserError("this sweep has no results yet", file=path, hint=hint)
    return found


def _read(files: dict[str, Path]) -> pa.Table:
    parts = []
    for stage, path in files.items():
        # Between the replacing of two stages' files one may have a metric that the other has not.
        part = read_table(path)
        names = pa.repeat(pa.scalar(stage), part.num_rows)
        parts.append(part.add_column(0, "stage", names).replace_schema_metadata(None))
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"the stages' columns are not of the same types ({error})", file=path) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """What was asked for.

    Attributes:
        rows: of trials or of reported steps.
        of: how many there are in all.
        notes: what may explain that there are none.
    """

    rows: pa.Table
    of: int
    notes: tuple[str, ...] = ()


def select(results: Results, wish: Wish) -> Selected:
    """Return the rows and columns that are asked for.

    Raises:
        UserError: no such stage or column, or a condition that can't be read.
    """
    for stage in wish.stages:
        if stage not in results.stages:
            raise UserError(
                f"there is no stage '{stage}'", file="--stage", hint=nearest(stage, results.stages)
            )
    source = results.curves if wish.curves else results.trials
    of_trials, of_steps = _conditions(results, wish)
    trials = _best_first(_fulfilling(results.trials, wish.stages, wish.states, of_trials), results)
    if wish.curves:
        # Without a wish for some trials, also the steps of those that are under way and no row yet.
        some = of_trials or wish.states or wish.top is not None
        curves = _fulfilling(results.curves, wish.stages, (), of_steps)
        wanted = trials["trial_id"].slice(0, wish.top).combine_chunks()
        rows = curves.filter(pc.is_in(curves["trial_id"], wanted)) if some else curves
        rows = _sorted(rows, wish.sort, results.stages)
    else:
        rows = _sorted(trials, wish.sort, results.stages).slice(0, wish.top)
    names = chosen(wish.columns, rows.column_names, "--columns") if wish.columns else rows.column_names
    notes = () if rows.num_rows else tuple(_misspelt([*of_trials, *of_steps], results))
    return Selected(rows=rows.select(names), of=source.num_rows, notes=notes)


def _conditions(results: Results, wish: Wish) -> tuple[list[Condition], list[Condition]]:
    """Return the conditions on trials, and those on reported steps."""
    trials = {field.name: field.type for field in results.trials.schema}
    steps = {field.name: field.type for field in results.curves.schema}
    of_trials, of_steps = [], []
    for text in wish.where:
        condition = parse(text, {**steps, **trials} if wish.curves else trials)
        if wish.curves and set(condition.columns) <= set(steps):
            of_steps.append(condition)
        elif set(condition.columns) <= set(trials):
            of_trials.append(condition)
        else:
            problem = f"'{text}' is about trials and about reported steps"
            raise UserError(problem, file="--where", hint="Give it as two conditions")
    return of_trials, of_steps


def _fulfilling(
    table: pa.Table, stages: Sequence[str], states: Sequence[str], conditions: Sequence[Condition]
) -> pa.Table:
    masks = [condition.rows(table) for condition in conditions]
    if stages:
        masks.append(pc.is_in(table["stage"], pa.array(stages)))
    if states:
        masks.append(pc.is_in(table["state"], pa.array(states)))
    return table.filter(reduce(pc.and_kleene, masks)) if masks else table


def _misspelt(conditions: Sequence[Condition], results: Results) -> Iterator[str]:
    """Say which texts of conditions are no value that their column has."""
    for column, text in (pair for condition in conditions for pair in condition.texts):
        table = results.trials if column in results.trials.column_names else results.curves
        values = [value for value in pc.unique(table[column]).to_pylist() if value]
        if text not in values:
            known = nearest(text, values) if len(values) <= MOST_NAMED else ""
            yield f"'{text}' is no value of '{column}' so far. {known}".rstrip(" .") + "." * (not known)


def _best_first(trials: pa.Table, results: Results) -> pa.Table:
    """Return trials with the last stage first, and the best first within it: as `Results.best` has it.

    What was stopped on its way has an early value, and comes after what can be compared; what diverged may
    have an infinite one, and comes after both. A stage with no other comes after all those that have some.
    """
    objective, stage = trials["objective"], trials["stage"]
    finite = pc.fill_null(pc.is_finite(objective), False)
    stopped = pc.fill_null(pc.equal(trials["state"], PRUNED), False)
    keys = pa.table(
        {
            "measured": pc.is_in(stage, pc.unique(stage.filter(finite))),
            "stage": pc.index_in(stage, pa.array(results.stages)),
            "behind": pc.if_else(finite, pc.cast(stopped, pa.int8()), pa.scalar(2, pa.int8())),
            "objective": objective,
        }
    )
    direction = "descending" if results.mode == "max" else "ascending"
    wanted = [("measured", "descending"), ("stage", "descending"), ("behind", "ascending")]
    return trials.take(pc.sort_indices(keys, sort_keys=[*wanted, ("objective", direction)]))


def _sorted(table: pa.Table, words: Sequence[str], stages: Sequence[str]) -> pa.Table:
    """Return a table in an order; rows that are equal in it stay as they are, missing values come last."""
    if not words:
        return table
    wanted = order(words, table.column_names, "--sort")
    keys = {
        name: pc.index_in(table["stage"], pa.array(stages)) if name == "stage" else table[name]
        for name, _ in wanted
    }
    directions = [(name, "descending" if down else "ascending") for name, down in dict(wanted).items()]
    return table.take(pc.sort_indices(pa.table(keys), sort_keys=directions))
