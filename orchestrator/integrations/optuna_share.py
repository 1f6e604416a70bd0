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

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.integrations.alone import alone
from orchestrator.integrations.ended import OBJECTIVE, OUTCOME, Ended, ended_trials, name_reported
from orchestrator.integrations.optuna_storage import Place, open_storage
from orchestrator.integrations.optuna_values import placed_value
from orchestrator.integrations.shared import Shared
from orchestrator.results.compact import trial_phases
from orchestrator.results.load import Results, load_results
from orchestrator.results.schema import text
from orchestrator.sweep.records import COMPLETED, FAILED, PRUNED

if TYPE_CHECKING:
    import optuna

_LONGEST = 2000  # characters of one attribute: the end of a traceback says the most
_UID = "sweep_uid"


def share_with_optuna(
    sweep: Path,
    place: Place,
    *,
    study: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Shared]:
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
    with alone(results.path) as lease, open_storage(place, write=True) as storage:
        for stage in results.stages:
            rows = results.at(stage)
            if rows.empty:
                continue
            name = text(f"{study or results.name}/{stage}")
            kept = _study(storage, name, results, stage, uid)
            written = _written(kept)
            added = 0
            for number, trial in enumerate(ended_trials(results, stage)):
                if number % 20 == 0:
                    note(f"{name}: {number} of {len(rows)}")
                if _is_missing(trial, written):
                    lease.confirm()
                    kept.add_trial(_trial(trial, _ranges(results, stage), name_reported(results.metric)))
                    added += 1
            shared.append(Shared(name=name, stage=stage, trials=len(rows), added=added, replaced=None))
    return shared


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


def _is_missing(trial: Ended, written: Mapping[str, bool]) -> bool:
    only_failed = written.get(trial.trial_id)
    return only_failed is None or (only_failed and trial.state != FAILED)


def _ranges(results: Results, stage: str) -> dict[str, list[Mapping[str, Any]]]:
    """Return each parameter's range in the first stage and in its own, those that there are."""
    first = next(iter(results.spaces.values()), {})
    own = results.spaces.get(stage, first)
    spaces = [{text(name): spec for name, spec in space.items()} for space in (first, own)]
    return {name: [space[name] for space in spaces if name in space] for name in {**spaces[0], **spaces[1]}}


def _trial(
    trial: Ended, ranges: Mapping[str, Sequence[Mapping[str, Any]]], metric: str
) -> optuna.trial.FrozenTrial:
    import optuna

    objective = trial.outcome.get(OBJECTIVE)
    states = optuna.trial.TrialState
    state = states.COMPLETE if objective is not None and trial.state == COMPLETED else states.FAIL
    if trial.state == PRUNED:
        state = states.PRUNED
    placed = {name: placed_value(value, ranges.get(name, ())) for name, value in trial.params.items()}
    return optuna.trial.FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=objective if state != states.FAIL else None,
        datetime_start=datetime.fromtimestamp(trial.began),
        datetime_complete=datetime.fromtimestamp(trial.ended),
        params={name: value for name, (value, _) in placed.items()},
        distributions={name: distribution for name, (_, distribution) in placed.items()},
        user_attrs=_attributes(trial),
        system_attrs={},
        intermediate_values={s: v for s, v, _ in trial.curves.get(metric, ()) if math.isfinite(v)},
    )


def _attributes(trial: Ended) -> dict[str, Any]:
    """Return what is known of a trial beside its parameters and its objective."""
    facts = {
        name: value[-_LONGEST:] if isinstance(value, str) else value for name, value in trial.facts.items()
    }
    others = {name: value for name, value in trial.outcome.items() if name != OBJECTIVE}
    return facts | {f"metric.{name.removeprefix(OUTCOME)}": value for name, value in others.items()}
