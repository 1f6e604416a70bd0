"""Records to Parquet: a Dask graph of small pure steps, run on threads or by Dask's workers elsewhere.

    record files -> read_fragments (each a few files) -> merge_stage (one for each stage)
                 -> metric names of all stages -> write_stage (two whole files for each stage)

Every file is replaced atomically, so a reader sees a whole old or a whole new one at any moment, and
compacting while tasks are still writing only means that what is not yet a line is left for the next time.
Only record files that are new or have grown are read, with what is known of the same trials (see `known`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.errors import UserError
from orchestrator.planning.plan import refuse_newer
from orchestrator.sweep.directory import STAGE, TRAINED, SweepDirectory
from orchestrator.sweep.files import read_as
from orchestrator.sweep.spaces import RANGES, read_ranges

FILES_AT_ONCE = 16  # record files that one Dask task reads: enough to make its overhead small

# Runs some of Dask's tasks that read so many bytes; returns what they return.
Scheduler = Callable[[Sequence[Any], int], list[Any]]


@dataclass(frozen=True, slots=True)
class Compacted:
    """How many rows the two tables have, and how many lines of the records could not be read."""

    trials: int
    curves: int
    unreadable: int


def compact(
    sweep: Path, *, given_up: Mapping[str, str] | None = None, scheduler: Scheduler | None = None
) -> Compacted:
    """Compact all records of a sweep into `results/trials` and `results/curves`.

    Args:
        sweep: the sweep's directory.
        given_up: trial_id to reason, of trials without an outcome that are not tried again; they get a
            row of state failed with the reason as the error.
        scheduler: what runs the tasks, told how many bytes they will read; None: threads. Where that is
            another process, the directory must be an absolute path.

    Raises:
        UserError: the directory holds no plan, or a file of it is not readable.
    """
    from dask import delayed

    from orchestrator.results import fragments, known, merge, schema, tables, write

    directory = SweepDirectory(Path(sweep))
    plan = read_plan(directory)
    parameters = first_space(directory, plan)
    read, stages, size = delayed(fragments.read_fragments), [], 0
    for phase in trial_phases(plan):
        folder = directory.phase(phase["kind"], phase["name"])
        before = known.read_known(*stage_files(directory, phase["name"]))
        changed = fragments.changed_files(fragments.record_files(folder.records), before)
        size += sum(max(0, known.stamp(path)[0]) for path in changed)
        parts = [read(files) for files in _chunks(changed)]
        # Dask looks for its own objects in all that a task is given, but not in what a function was told.
        merged = delayed(partial(merge.merge_stage, before=before))
        stages.append(merged(folder, parts, plan["metric"], dict(given_up or {})))
    columns = delayed(merge.metric_columns)(stages, plan["metric"]["name"])
    trials_schema = delayed(schema.trials_schema)(parameters, columns)
    written = [
        delayed(write.write_stage)(stage, plan, phase, trials_schema, stage_files(directory, phase["name"]))
        for phase, stage in zip(trial_phases(plan), stages, strict=True)
    ]
    try:
        rows = by_threads(written) if scheduler is None else scheduler(written, size)
    except tables.DamagedTable as damaged:
        # The records have all that it held.
        damaged.path.unlink(missing_ok=True)
        return compact(sweep, given_up=given_up, scheduler=scheduler)
    return Compacted(*(sum(column) for column in zip(*rows, strict=True))) if rows else Compacted(0, 0, 0)


def by_threads(tasks: Sequence[Any]) -> list[Any]:
    """Run some of Dask's tasks on threads of this process; returns what they return."""
    from dask import compute, threaded

    # By its name Dask would look for a cluster first.
    return list(compute(*tasks, scheduler=threaded.get))


def read_plan(directory: SweepDirectory) -> dict[str, Any]:
    """Read a sweep's plan.

    Raises:
        UserError: the directory is no sweep's, or its plan is damaged, or of a newer version.
    """
    if not directory.plan.exists():
        raise UserError(
            "no sweep's directory (it has no plan.json)",
            file=directory.path,
            hint="Give the directory that `orchestrate plan` printed, such as sweeps/digits",
        )
    return read_as(directory.plan, lambda content: _vetted(refuse_newer(content, directory.plan)), "a plan")


def _vetted(plan: dict[str, Any]) -> dict[str, Any]:
    texts = [plan["name"], plan["metric"]["name"], plan["metric"]["mode"]]
    texts += [phase[key] for phase in plan["phases"] for key in ("kind", "name")]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"{wrong[0]!r} is no text")
    return plan


def trial_phases(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the plan's phases that have trials, in order: the stages and the final runs."""
    return [phase for phase in plan["phases"] if phase["kind"] in TRAINED]


def first_space(directory: SweepDirectory, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the first stage's space, which fix the schema; none planned gives none.

    Of those that it holds at one value it is the range that counts, which later stages search.
    """
    for phase in trial_phases(plan):
        path = directory.phase(phase["kind"], phase["name"]).space
        if phase["kind"] == STAGE and path.exists():
            return {**read_ranges(path), **read_as(path, _held, RANGES)}
    return {}


def _held(content: Mapping[str, Any]) -> dict[str, Any]:
    return dict(content.get("free") or {})


def stage_files(directory: SweepDirectory, stage: str) -> tuple[Path, Path]:
    """Return the files of one stage's rows of `trials` and of `curves`."""
    part = f"stage={quote(stage, safe='')}"
    trials, curves = (directory.results / table / part / "data.parquet" for table in ("trials", "curves"))
    return trials, curves


def _chunks(files: Sequence[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(files), FILES_AT_ONCE):
        yield list(files[start : start + FILES_AT_ONCE])
