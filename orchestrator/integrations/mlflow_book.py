"""The experiment of a sweep in MLflow: which runs it has, and writing one as a whole.

A run is found again by its tags, and one of them tells its content. It is RUNNING until it is whole, so any
process may die at any instant: what it left half-written is deleted when the run has been written anew. A
trial that changed gets a new run, and then the old one is deleted: MLflow can change no parameter of a run.
What is deleted MLflow keeps until `mlflow gc`.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.errors import UserError
from orchestrator.integrations.mlflow_names import LONGEST_EXPERIMENT, tag_of
from orchestrator.integrations.mlflow_runs import (
    DIGEST,
    KIND,
    OF_TRIAL,
    PARENT,
    RUNNING,
    STAGE,
    TRIAL,
    USER,
    Metric,
    Run,
    batches,
)
from orchestrator.results.load import Results
from orchestrator.sweep.lease import Lease

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ADDED, REPLACED, NOTHING = "added", "replaced", "nothing"
_UID = "sweep.uid"
# Without it MLflow's page opens with what there is to see of chat programs.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
LISTED_AT_ONCE = 1000

# Of a run: its kind, stage and trial.
Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class There:
    """A run that MLflow has.

    Attributes:
        run_id: MLflow's own.
        digest: of its content; empty where there is none.
        status: FINISHED, KILLED, FAILED or RUNNING.
        params: by name.
        metrics: the latest value of each.
    """

    run_id: str
    digest: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Book:
    """A sweep's experiment.

    Attributes:
        client: MLflow's.
        experiment: its id.
        lease: confirmed before each run that is written.
        runs: those that it had when it was opened.
    """

    client: MlflowClient
    experiment: str
    lease: Lease
    runs: dict[Key, list[There]] = field(default_factory=dict)


def open_book(client: MlflowClient, name: str, results: Results, lease: Lease) -> Book:
    """Find a sweep's experiment, or make it, and list its runs.

    Args:
        client: MLflow's.
        name: of the experiment.
        results: of the sweep.
        lease: held by this process.

    Raises:
        UserError: there is one of that name that is not this sweep's, or none can be called that.
    """
    if not name.strip() or len(name) > LONGEST_EXPERIMENT:
        hint = f"Give one of at most {LONGEST_EXPERIMENT} characters: --name NAME"
        raise UserError("an experiment can't be called that", hint=hint)
    uid = str(results.plan.get("uid") or results.name)
    found = client.get_experiment_by_name(name)
    if found is None:
        told = {_UID: uid, "sweep.metric": tag_of(results.metric), "sweep.mode": results.mode, **_KIND}
        return Book(client=client, experiment=str(client.create_experiment(name, tags=told)), lease=lease)
    if found.lifecycle_stage != "active":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise UserError(
            f"the experiment '{name}' was deleted in MLflow",
            hint=f"Restore it ({restore}), or choose another name: --name NAME",
        )
    runs = _listed(client, found.experiment_id)
    # One without tags and runs is what a process left that died right after it had made it.
    if found.tags.get(_UID, "" if runs else uid) != uid:
        raise UserError(f"the experiment '{name}' holds other runs", hint="Choose another name: --name NAME")
    if _UID not in found.tags:
        client.set_experiment_tag(found.experiment_id, _UID, uid)
    return Book(client=client, experiment=found.experiment_id, lease=lease, runs=runs)


def write_run(book: Book, run: Run, key: Key, parent: str | None = None) -> str:
    """Have a run in MLflow once, with that content; return what that took: added, replaced or nothing.

    Args:
        book: the experiment.
        run: what it holds.
        key: by which it is found again; its tags say the same.
        parent: the id of the run that it lies below.
    """
    before = book.runs.get(key, [])
    whole = next((one for one in before if one.digest == run.digest and one.status != RUNNING), None)
    if whole is None:
        book.lease.confirm()
        made = create_run(book, run, parent)
        book.client.set_terminated(made, run.status, end_time=run.ended)
    for other in before:
        if other is not whole:
            book.client.delete_run(other.run_id)
    if whole is not None:
        return NOTHING
    return REPLACED if any(one.status != RUNNING for one in before) else ADDED


def create_run(book: Book, run: Run, parent: str | None = None) -> str:
    """Write all of a run but its end; return MLflow's id of it."""
    tags = {**run.tags, USER: _user(), **({PARENT: parent} if parent else {})}
    made = book.client.create_run(book.experiment, start_time=run.began, tags=tags, run_name=run.name)
    log(book, made.info.run_id, run.metrics, run.params)
    return str(made.info.run_id)


def log(book: Book, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str]) -> None:
    """Add parameters and metrics to those that a run has in MLflow."""
    from mlflow import entities

    for some, others in batches(metrics, params):
        book.client.log_batch(
            run_id,
            metrics=[entities.Metric(name, value, at, step) for name, value, at, step in some],
            params=[entities.Param(name, value) for name, value in others],
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return "unknown"


def _listed(client: MlflowClient, experiment: str) -> dict[Key, list[There]]:
    runs: dict[Key, list[There]] = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=LISTED_AT_ONCE, page_token=token)
        for run in page:
            tags, info = run.data.tags, run.info
            # In a folder a process may die when nothing but the name was written.
            trial = tags.get(TRIAL, info.run_name if info.status == RUNNING and KIND not in tags else "")
            found = There(
                run_id=info.run_id,
                digest=tags.get(DIGEST, ""),
                status=info.status,
                params=run.data.params,
                metrics=run.data.metrics,
            )
            runs.setdefault((tags.get(KIND, OF_TRIAL), tags.get(STAGE, ""), trial), []).append(found)
        token = page.token
        if not token:
            return runs
