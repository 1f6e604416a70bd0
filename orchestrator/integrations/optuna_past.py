"""Reading a past Optuna study: its finished trials, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError, nearest
from orchestrator.integrations.optuna_storage import find_place, open_storage

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """A study's finished trials.

    Attributes:
        name: of the study.
        mode: "max" or "min", what it was after.
        trials: parameters and objective of each, the best first; of equal ones the older.
    """

    name: str
    mode: str
    trials: tuple[tuple[Mapping[str, Any], float], ...]


def read_past(storage: str, name: object, folder: Path) -> Past:
    """Read a past study.

    Args:
        storage: a database's URL or a file.
        name: of the study; None: the only one.
        folder: where relative paths start.

    Raises:
        UserError: no such storage or study, several objectives, or no trial that has ended with a number.
    """
    import optuna

    place = find_place(storage, folder)
    with open_storage(place, write=False) as opened:
        study = _study(opened, name, place.shown)
        complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    up = study.direction == optuna.study.StudyDirection.MAXIMIZE
    found = [(trial.params, trial.value, trial.number) for trial in complete]
    ended = [(params, value, at) for params, value, at in found if value is not None and math.isfinite(value)]
    if not ended:
        raise UserError(f"the study '{study.study_name}' has no finished trial", key="study")
    ended.sort(key=lambda one: (-one[1] if up else one[1], one[2]))
    trials = tuple((params, value) for params, value, _ in ended)
    return Past(name=study.study_name, mode="max" if up else "min", trials=trials)


def _study(storage: optuna.storages.BaseStorage, name: object, shown: str) -> optuna.Study:
    """Return the study of that name, or the only one.

    Raises:
        UserError: there is none, or a choice between several, or it has several objectives.
    """
    import optuna

    names = optuna.get_all_study_names(storage)
    if name is None and len(names) > 1:
        listed = ", ".join(sorted(names)[:10])
        raise UserError(f"'{shown}' holds {len(names)} studies", hint=f"Give the key study, one of: {listed}")
    if not names or (name is not None and name not in names):
        wanted = "no study" if name is None else f"no study '{name}'"
        raise UserError(f"'{shown}' holds {wanted}", key="study", hint=nearest(str(name), names))
    study = optuna.load_study(study_name=names[0] if name is None else str(name), storage=storage)
    if (count := len(study.directions)) > 1:
        raise UserError(f"the study '{study.study_name}' has {count} objectives, not one", key="study")
    return study
