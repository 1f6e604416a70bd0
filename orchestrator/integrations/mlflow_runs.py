"""Trials and stages as MLflow's runs: what is written, worked out without MLflow.

A completed trial and one that diverged are FINISHED (it gave a result, the worst one), a pruned one is
KILLED and a failed one FAILED. Values that are no finite numbers are left out, because a database of MLflow
has 0 for NaN and 1.8e308 for infinity; a tag says which and from which step on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest

from orchestrator.integrations.ended import OBJECTIVE, Ended
from orchestrator.integrations.mlflow_names import name_of, param_of, tag_of
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, PRUNED

VERSION = 1  # of what is written: a higher one replaces all runs
FINISHED, KILLED, RUNNING = "FINISHED", "KILLED", "RUNNING"
STATUS = {COMPLETED: FINISHED, DIVERGED: FINISHED, PRUNED: KILLED, FAILED: "FAILED"}
# MLflow's own limits of one call are 1000 metrics, 100 parameters, 1000 of both and 1 MB.
METRICS_AT_ONCE, PARAMS_AT_ONCE, CHARACTERS_AT_ONCE = 900, 100, 200_000
# Tags by which a run is found again, and which MLflow's pages show in places of their own.
KIND, TRIAL, STAGE, DIGEST = "sweep.kind", "sweep.trial_id", "sweep.stage", "sweep.digest"
PARENT, NOTE, USER, COMMIT = (
    "mlflow.parentRunId",
    "mlflow.note.content",
    "mlflow.user",
    "mlflow.source.git.commit",
)
SOURCE = {"mlflow.source.name": "orchestrate share", "mlflow.source.type": "LOCAL"}
OF_TRIAL, OF_STAGE, OF_ENSEMBLE = "trial", "stage", "ensemble"

# A name, a value, when (milliseconds since the epoch) and a step.
Metric = tuple[str, float, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run as it is written.

    Attributes:
        name: what it is called.
        tags: by name; `sweep.digest` tells its content.
        params: by name.
        metrics: all values of all of them.
        status: FINISHED, KILLED, FAILED or RUNNING.
        began, ended: milliseconds since the epoch.
    """

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Sequence[Metric]
    status: str
    began: int
    ended: int

    @property
    def digest(self) -> str:
        """What tells its content from any other; empty for one that goes on changing."""
        return self.tags.get(DIGEST, "")


def run_of(trial: Ended, kind: str = OF_TRIAL) -> Run:
    """Return a trial that has ended as a run; the ensemble is one, too."""
    params = {name_of(name): param_of(value) for name, value in trial.params.items()}
    metrics = list(_metrics(trial))
    tags = {KIND: kind, **SOURCE}
    tags.update({name_of(f"sweep.{name}"): tag_of(value) for name, value in trial.facts.items()})
    if not_finite := _not_finite(trial):
        tags["sweep.not_finite"] = tag_of(not_finite)
    if commit := trial.facts.get("git_commit"):
        tags[COMMIT] = str(commit)
    if words := "\n".join(str(trial.facts[key]) for key in ("diagnosis", "error") if key in trial.facts):
        # As a block of code: the page reads Markdown.
        tags[NOTE] = "\n".join(f"    {line}" for line in tag_of(words).splitlines())
    began, ended = milliseconds(trial.began), milliseconds(trial.ended)
    status = STATUS[trial.state]
    content = json.dumps([VERSION, tags, params, metrics, status, began, ended], sort_keys=True)
    tags[DIGEST] = sha256(content.encode("utf-8", "replace")).hexdigest()[:16]
    return Run(
        name=trial.trial_id,
        tags=tags,
        params=params,
        metrics=metrics,
        status=status,
        began=began,
        ended=ended,
    )


def batches(
    metrics: Sequence[Metric], params: Mapping[str, str]
) -> Iterator[tuple[list[Metric], list[tuple[str, str]]]]:
    """Give metrics and parameters in parts that MLflow takes at once; nothing gives none."""
    starts = range(0, len(metrics), METRICS_AT_ONCE)
    values = [list(metrics[start : start + METRICS_AT_ONCE]) for start in starts]
    settings: list[list[tuple[str, str]]] = []
    size = CHARACTERS_AT_ONCE
    for name, value in params.items():
        size += len(name) + len(value)
        if size > CHARACTERS_AT_ONCE or len(settings[-1]) == PARAMS_AT_ONCE:
            settings.append([])
            size = len(name) + len(value)
        settings[-1].append((name, value))
    for some, others in zip_longest(values, settings):
        yield some or [], others or []


def _metrics(trial: Ended) -> Iterator[Metric]:
    last = 0
    for name, points in trial.curves.items():
        key = name_of(name)
        for step, value, at in points:
            last = max(last, step)
            if math.isfinite(value):
                yield key, value, milliseconds(at), step
    for name, value in trial.outcome.items():
        yield name_of(name), value, milliseconds(trial.ended), last


def _not_finite(trial: Ended) -> str:
    found = []
    for name, points in trial.curves.items():
        bad = [(step, value) for step, value, _ in points if not math.isfinite(value)]
        if bad:
            step, value = bad[0]
            found.append(f"{name}: {len(bad)} of {len(points)} values, {value} at step {step} the first")
    if trial.state != FAILED and OBJECTIVE not in trial.outcome and trial.curves:
        found.append("no finite objective")
    return "\n".join(found)


def milliseconds(seconds: float) -> int:
    """Return a time as MLflow takes it: since the epoch, and not before."""
    return max(0, round(seconds * 1000))
