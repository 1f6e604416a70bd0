"""Records: the lines of JSON that a task appends, one file for each task and attempt.

A file is `records/SUBMISSION-TASK-ATTEMPT.jsonl` and its lines are, by `kind`:

- `task`: first line; who writes: token, submission, task, attempt, host, pid, slurm_job_id, gpus, cpus, time,
  processes (that train one trial together), and on what: gpu (its name), python, orchestrator (versions),
  git_commit (of the user's code).
- `start`: trial, time.
- `report`: trial, step, metrics (name to number), time.
- `checkpoint`: trial, step, path (below the trial's checkpoint folder): a candidate for the ensemble.
- `dropped`: trial, step, path: one of these that made room for others; its file is deleted after this line.
- `finding`: trial, code, evidence, advice, step: what the diagnosis saw of its training (see
  orchestrator.diagnosis.finding). Only the results read it.
- `interrupted`: trial, time: its task was asked to end, and ended it without an outcome.
- `outcome`: trial, state (completed, pruned, diverged, failed), metrics, seconds, error, time, of a failed
  one its cause where that is known (memory, hung, no progress);
  of a pruned trial the metrics that it reported last, at `step`; where PyTorch used a GPU, the most that it
  held of its memory and what that GPU has (gpu_memory_gb, gpu_total_gb, in 2**30 bytes).

Times are seconds since the epoch. JSON has no NaN, so numbers that are not finite are the strings
"NaN", "Infinity" and "-Infinity"; `number` reads both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMPLETED, PRUNED, DIVERGED, FAILED = STATES = ("completed", "pruned", "diverged", "failed")

# Causes of a failure that are told apart: it ran out of memory (host or CUDA); it showed no sign of life for
# slurm.quiet_minutes; leg after leg ended at the time limit without getting further than the one before.
MEMORY, HUNG, NO_PROGRESS = "memory", "hung", "no progress"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one attempt at a trial ended, with what the task's own line says about where.

    `seconds` is the trial's own duration; `objective` is looked up in `metrics` by the reader, who knows
    the sweep's metric.
    """

    trial: str
    state: str
    metrics: Mapping[str, float]
    seconds: float
    error: str = ""
    # of a failure: memory, hung, no progress, or empty where the error says it all
    cause: str = ""
    # where a pruned trial stopped
    step: int = 0
    time: float = 0.0
    submission: int = 0
    host: str = ""
    slurm_job_id: str = ""
    gpus: float = 0.0
    cpus: float = 1.0


@dataclass(kw_only=True, slots=True)
class RecordFile:
    """One record file, read: its header and lines, and how many lines could not be read."""

    path: Path
    header: dict[str, Any] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    unreadable: int = 0


def encode(line: Mapping[str, Any]) -> str:
    """Return one record as a line of strict JSON."""
    return json.dumps(_finite(line), allow_nan=False, separators=(",", ":")) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def number(value: Any) -> float:
    """Read a recorded number; anything that is none becomes NaN."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def whole(value: Any) -> int:
    """Read a recorded whole number; anything that is none becomes 0."""
    return value if isinstance(value, int) else 0


def read_file(path: Path) -> RecordFile:
    """Read one record file; a torn last line (a task is writing, or died) is left for the next time."""
    record = RecordFile(path=path)
    for raw in path.read_bytes().split(b"\n"):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
            kind = line["kind"]
        except (ValueError, TypeError, KeyError):
            record.unreadable += 1
            continue
        if kind == "task":
            record.header = line
        else:
            record.lines.append(line)
    return record


def read_directory(directory: Path) -> list[RecordFile]:
    """Read all record files of one phase, in the order of their names."""
    return [read_file(path) for path in sorted(directory.glob("[0-9]*.jsonl"))]


def outcomes(record: RecordFile) -> Iterator[Outcome]:
    """Give the outcomes in one record file; a line that makes no sense is none."""
    place = where(record.header)
    for line in record.lines:
        if (outcome := read_outcome(line, place)) is not None:
            yield outcome


def read_outcome(line: Mapping[str, Any], place: Mapping[str, Any]) -> Outcome | None:
    """Read an outcome from its line and from `where` it was; None where the line is no sound outcome."""
    metrics = line.get("metrics")
    if line["kind"] != "outcome" or line.get("state") not in STATES or not isinstance(metrics, dict):
        return None
    return Outcome(
        trial=str(line.get("trial", "")),
        state=line["state"],
        metrics={str(name): number(value) for name, value in metrics.items()},
        seconds=number(line.get("seconds", 0.0)),
        error=str(line.get("error", "")),
        cause=str(line.get("cause", "")),
        step=whole(line.get("step")),
        time=number(line.get("time", 0.0)),
        **place,
    )


def where(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a task's own line says of its outcomes: the fields of `Outcome` that are not a trial's."""
    return {
        "submission": whole(header.get("submission")),
        "host": str(header.get("host", "")),
        "slurm_job_id": str(header.get("slurm_job_id", "")),
        "gpus": number(header.get("gpus", 0)),
        "cpus": number(header.get("cpus", 1)),
    }


def _age(outcome: Outcome) -> tuple[float, int]:
    """Return when an outcome came; a time that can't be read is the latest.

    Not by submissions: a node that was taken for dead may write for the first one after the second.
    """
    return math.inf if math.isnan(outcome.time) else outcome.time, outcome.submission


def counted(candidates: Iterable[Outcome]) -> dict[str, Outcome]:
    """Choose one outcome for each trial: a trial that ran twice counts once.

    The earliest outcome that is not a failure wins, then the latest failure; so a reader that sees more
    attempts never changes a result that others already built on.
    """
    chosen: dict[str, Outcome] = {}
    for outcome in sorted(candidates, key=_age):
        before = chosen.get(outcome.trial)
        if before is None or _replaces(outcome, before):
            chosen[outcome.trial] = outcome
    return chosen


def _replaces(new: Outcome, before: Outcome) -> bool:
    """Say whether an outcome counts in place of one that came before, or at the same moment."""
    failed = before.state == FAILED
    if not failed or new.state != FAILED:
        tie = not failed and new.state != FAILED and _age(new) == _age(before)
        return failed or (tie and repr(new) < repr(before))
    return _age(new) > _age(before) or repr(new) > repr(before)
