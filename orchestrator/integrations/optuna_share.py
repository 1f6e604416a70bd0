"""A sweep's trials as Optuna studies, for optuna-dashboard and whatever else reads Optuna's storages.

Each stage becomes a study of its own, NAME/STAGE. Objectives of different stages were measured on different
problems: in one study the best trial would be one of the cheap first stage with its two classes, and every
plot would mix what can't be compared. The dashboard's comparison lays several studies over each other.

A trial is written when it has ended, whole, in one transaction or one line of the journal, so a process may
die at any instant and the next one adds what is missing. What Optuna has as finished it never changes: a
failed trial that was run again and ended otherwise is added once more, and the failure stays beside it.

A trial that diverged, or has no number for an objective, is what Optuna itself makes of NaN: FAIL, which no
plot shows and no sampler learns from; the attributes `state`, `diagnosis` and `error` say why.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Busy, UserError
from orchestrator.integrations.optuna_storage import Place, open_storage
from orchestrator.integrations.optuna_values import placed_value
from orchestrator.results.compact import trial_phases
from orchestrator.results.load import Results, load_results
from orchestrator.results.schema import text
from orchestrator.sweep.directory import PhaseDirectory, SweepDirectory, read_waves
from orchestrator.sweep.lease import Lease, hold
from orchestrator.sweep.records import COMPLETED, FAILED, PRUNED, outcomes, read_directory

if TYPE_CHECKING:
    import optuna
    import pandas as pd

# The columns of the results that become attributes of a trial, beside its scale and its other metrics.
_ATTRIBUTES = (
    "trial_id", "state", "stage", "setting_id", "origin", "parent", "seed", "attempts", "seconds",
    "gpu_seconds", "slurm_job_id", "host", "diagnosis", "diagnosis_evidence", "error",
)  # fmt: skip
_LONGEST = 2000  # characters of one attribute: the end of a traceback says the most
_UID = "sweep_uid"
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedStudy:
    """One stage's study: how many ended trials the stage has, and how many were added to it just now."""

    study: str
    stage: str
    trials: int
    added: int


def share_with_optuna(
    sweep: Path,
    place: Place,
    *,
    study: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[SharedStudy]:
    """Write the ended trials of a sweep to Optuna studies, those that are not there yet.

    Args:
        sweep: the sweep's directory; its results say what has ended.
        place: the storage.
        study: what the studies' names begin with; otherwise the sweep's name.
        note: called now and then with how far it is.

    Raises:
        UserError: no results yet, a study of that name that is another's, or the storage can't be used.
    """
    results = load_results(sweep)
    uid = str(results.plan.get("uid") or results.name)
    shared = []
    with _alone(results.path) as lease, open_storage(place, write=True) as storage:
        for stage in results.stages:
            rows = results.at(stage)
            if rows.empty:
                continue
            name = text(f"{study or results.name}/{stage}")
            kept = _study(storage, name, results, stage, uid)
            written = _written(kept)
            missing = rows[[_is_missing(row, written) for row in rows.to_dict("records")]]
            for number, trial in enumerate(_trials(results, stage, missing)):
                if number % 20 == 0:
                    note(f"{name}: {number} of {len(missing)}")
                lease.confirm()
                kept.add_trial(trial)
            shared.append(SharedStudy(study=name, stage=stage, trials=len(rows), added=len(missing)))
    return shared


@contextlib.contextmanager
def _alone(sweep: Path) -> Iterator[Lease]:
    """Hold off others that share the same sweep: Optuna would take a trial twice.

    Raises:
        UserError: somebody is at it, for longer than there is patience.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    try:
        folder = sweep / "lease-share"
        with hold(folder, "orchestrate share", wait=lambda owner: time.monotonic() < until) as lease:
            yield lease
    except Busy as owner:
        raise UserError(f"is being shared by {owner}", file=sweep, hint="Call this again later") from None


def _study(
    storage: optuna.storages.BaseStorage, name: str, results: Results, stage: str, uid: str
) -> optuna.Study:
    """Return a stage's study, made where there is none.

    Raises:
        UserError: there is one of that name with other trials.
    """
    import optuna

    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if results.mode == "max" else directions.MINIMIZE
    study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
    if study.user_attrs.get(_UID) == uid:
        return study
    # One without trials is what a process left that died right here.
    if _UID in study.user_attrs or study.get_trials(deepcopy=False) or len(study.directions) > 1:
        raise UserError(f"the study '{name}' holds other trials", hint="Choose another name: --study NAME")
    study.set_metric_names([text(results.metric)])
    phase = next(one for one in trial_phases(results.plan) if one["name"] == stage)
    for key, value in {"sweep": results.name, "stage": stage, "metric": results.metric}.items():
        study.set_user_attr(key, text(value))
    study.set_user_attr("scale", phase.get("scale"))
    study.set_user_attr(_UID, uid)
    return study


def _written(study: optuna.Study) -> dict[str, bool]:
    """Return the sweep's trials that a study has, and for each whether all that is there is a failure."""
    written: dict[str, bool] = {}
    for trial in study.get_trials(deepcopy=False):
        name = trial.user_attrs.get("trial_id")
        failed = trial.user_attrs.get("state") == FAILED
        if name is not None:
            written[name] = failed and written.get(name, True)
    return written


def _is_missing(row: Mapping[Any, Any], written: Mapping[str, bool]) -> bool:
    only_failed = written.get(row["trial_id"])
    return only_failed is None or (only_failed and row["state"] != FAILED)


def _trials(results: Results, stage: str, rows: pd.DataFrame) -> Iterator[optuna.trial.FrozenTrial]:
    """Give the rows of a stage as Optuna's trials, in the order in which they ended."""
    phase = next(one for one in trial_phases(results.plan) if one["name"] == stage)
    folder = SweepDirectory(results.path).phase(phase["kind"], stage)
    params = {spec.trial_id: spec.params for wave in read_waves(folder) for spec in wave}
    first = next(iter(results.spaces.values()), {})
    own = results.spaces.get(stage, first)
    rows = rows[rows["trial_id"].isin(params.keys())]
    curves = results.curves[
        (results.curves["stage"] == stage) & results.curves["trial_id"].isin(rows["trial_id"])
    ]
    steps = {
        name: dict(zip(part["step"].tolist(), part["value"].tolist(), strict=True))
        for name, part in curves[curves["metric"] == results.metric].groupby("trial_id")
    }
    ended = _ended(folder, rows["trial_id"].tolist(), curves)
    for row in sorted(rows.to_dict("records"), key=lambda row: (ended[row["trial_id"]], row["trial_id"])):
        name = row["trial_id"]
        ranges = {one: [spaces[one] for spaces in (first, own) if one in spaces] for one in params[name]}
        yield _trial(row, ended[name], params[name], ranges, steps.get(name, {}), results.metric)


def _ended(folder: PhaseDirectory, trials: Sequence[str], curves: pd.DataFrame) -> dict[str, float]:
    """Return when trials ended, in seconds since the epoch: with their last report, or else as recorded."""
    ended = {str(name): float(at) for name, at in curves.groupby("trial_id")["time"].max().dropna().items()}
    if any(name not in ended for name in trials):
        for record in read_directory(folder.records):
            for outcome in outcomes(record):
                if math.isfinite(outcome.time) and outcome.time > 0:
                    ended.setdefault(outcome.trial, outcome.time)
    # Of a trial that was given up there is no outcome.
    latest = max(ended.values(), default=time.time())
    return {name: ended.get(name, latest) for name in trials}


def _trial(
    row: Mapping[Any, Any],
    ended: float,
    setting: Mapping[str, Any],
    ranges: Mapping[str, Sequence[Mapping[str, Any]]],
    steps: Mapping[int, float],
    metric: str,
) -> optuna.trial.FrozenTrial:
    import optuna

    objective = row["objective"]
    finite = objective is not None and math.isfinite(objective)
    states = optuna.trial.TrialState
    state = states.COMPLETE if finite and row["state"] == COMPLETED else states.FAIL
    if row["state"] == PRUNED:
        state = states.PRUNED
    placed = {text(name): placed_value(value, ranges[name]) for name, value in setting.items()}
    seconds = row["seconds"] if row["seconds"] is not None and math.isfinite(row["seconds"]) else 0.0
    return optuna.trial.FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=float(objective) if finite and state != states.FAIL else None,
        datetime_start=datetime.fromtimestamp(ended - seconds),
        datetime_complete=datetime.fromtimestamp(ended),
        params={name: value for name, (value, _) in placed.items()},
        distributions={name: distribution for name, (_, distribution) in placed.items()},
        user_attrs=_attributes(row, metric),
        system_attrs={},
        intermediate_values={int(s): float(v) for s, v in steps.items() if math.isfinite(v)},
    )


def _attributes(row: Mapping[Any, Any], metric: str) -> dict[str, Any]:
    """Return what is known of a trial beside its parameters and its objective; what is empty is left out."""
    more = [key for key in row if str(key).startswith(("scale.", "metric.")) and key != f"metric.{metric}"]
    found: dict[str, Any] = {}
    for key in (*_ATTRIBUTES, *more):
        value = row[key]
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, str):
            value = text(value)[-_LONGEST:]
        elif value is None or not math.isfinite(value):
            continue
        if value != "":
            found[text(str(key))] = value
    return found
