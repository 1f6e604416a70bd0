"""Past Optuna studies in `start_from`: their best trials are tried first in the first stage.

An entry `{optuna: sqlite:///past.db, study: NAME, best: 5}` becomes plain settings when the sweep is planned,
and those are frozen: the study may grow or go afterwards. With `learn: true` all its trials that lie in the
ranges are kept as well, for samplers that learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError, nearest
from orchestrator.planning.sampling.prior_results import LEARNING, fitted, known_results
from orchestrator.planning.sampling.start_from import KEY, usual_values
from orchestrator.schema import SweepConfig
from orchestrator.space import Parameter, Value, active, setting_id, show

if TYPE_CHECKING:
    from orchestrator.integrations.optuna_past import Past

OPTUNA = "optuna"
KEYS = (OPTUNA, "study", "best", "rename", "learn")
BEST = 5  # trials of a study, where the entry does not say how many


@dataclass(frozen=True, kw_only=True, slots=True)
class Prior:
    """What past studies give to a sweep.

    Attributes:
        entries: those of `start_from`, with settings in the place of studies.
        notes: for each study in a sentence what became of it.
        results: for each study that is to be learned from its trials, as `known_results` returns them.
    """

    entries: list[Any]
    notes: tuple[str, ...] = ()
    results: tuple[list[dict[str, Any]], ...] = ()


@dataclass(kw_only=True, slots=True)
class _Adapted:
    """A study's trials as settings of this sweep, and what did not fit."""

    settings: dict[str, dict[str, Value]] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    moved: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def names_study(entry: Any, space: Sequence[Parameter]) -> bool:
    """Say whether an entry of `start_from` names a past study, rather than values of parameters."""
    parameter = any(one.name == OPTUNA for one in space)
    return not parameter and isinstance(entry, Mapping) and isinstance(entry.get(OPTUNA), str)


def read_prior_studies(config: SweepConfig, space: Sequence[Parameter], file: Path | str) -> Prior:
    """Put the best trials of past studies in the place of the entries of `start_from` that name them.

    Parameters are matched by name (`rename: {lr: optimizer.lr}` where it differs there). A number outside of
    its range goes to the nearest end of it, a choice that there is not is left out, and what the sweep does
    not search is passed over; what a setting lacks is filled in as for any other entry.

    Args:
        config: the sweep.
        space: its parameters, as declared.
        file: the sweep file: for messages, and where relative paths start.

    Raises:
        UserError: no such storage or study, or nothing in it that could be tried.
    """
    entries: list[Any] = []
    notes: list[str] = []
    results: list[list[dict[str, Any]]] = []
    for number, entry in enumerate(config.start_from):
        if not names_study(entry, space):
            entries.append(entry)
            continue
        key = f"{KEY}.{number}"
        try:
            settings, note, learned = _read(config, space, entry, Path(file).resolve().parent)
        except UserError as error:
            inner = f"{key}.{error.key}" if error.key else key
            raise UserError(error.problem, file=file, key=inner, hint=error.hint) from None
        entries += settings
        notes.append(note)
        results += [learned] if learned else []
    return Prior(entries=entries, notes=tuple(notes), results=tuple(results))


def _read(
    config: SweepConfig, space: Sequence[Parameter], entry: Mapping[str, Any], folder: Path
) -> tuple[list[dict[str, Value]], str, list[dict[str, Any]]]:
    """Return an entry's settings, what is to be said of it, and what is to be learned from."""
    from orchestrator.integrations.optuna_past import read_past

    best, learn = _checked(entry)
    names = _renamed(entry.get("rename") or {}, space)
    past = read_past(entry[OPTUNA], entry.get("study"), folder)
    adapted = _adapt(config, space, past, names, best)
    if not adapted.settings:
        known = sorted({name for params, _ in past.trials for name in params})
        raise UserError(
            f"the study '{past.name}' and this sweep have no parameter in common",
            hint=f"There: {', '.join(known)}. Say which is which: rename: {{{known[0]}: {space[0].name}}}"
            if known
            else "Its trials have no parameters",
        )
    notes = [_note(past, adapted, config.metric.mode)]
    results: list[dict[str, Any]] = []
    if learn:
        sign = 1 if past.mode == "max" else -1
        trials = [(_by_name(params, names), sign * value) for params, value in past.trials]
        results = known_results(space, trials)
        notes.append(_what_is_learned(config, len(results)))
    return list(adapted.settings.values()), "; ".join(notes), results


def _checked(entry: Mapping[str, Any]) -> tuple[int, bool]:
    """Return how many trials an entry wants tried, and whether the others are to be learned from.

    Raises:
        UserError: a key or value of it makes no sense.
    """
    for name in entry:
        if name not in KEYS:
            raise UserError(
                "is no key of an entry that names a study", key=str(name), hint=nearest(str(name), KEYS)
            )
    best, learn = entry.get("best", BEST), entry.get("learn", False)
    if not isinstance(best, int) or isinstance(best, bool) or best < 1:
        raise UserError(f"{best!r} is no number of trials", key="best", hint="Write a whole number from 1 up")
    if not isinstance(learn, bool):
        raise UserError(f"{learn!r} is neither true nor false", key="learn")
    return best, learn


def _by_name(params: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a trial's parameters by this sweep's names; what is renamed comes before the rest."""
    kept = {name: value for name, value in params.items() if name not in names}
    return kept | {new: params[name] for name, new in names.items() if name in params}


def _what_is_learned(config: SweepConfig, count: int) -> str:
    """Say how many trials teach which stages."""
    stages = [name for name, stage in config.stages.items() if stage.sampler in LEARNING]
    if not stages:
        return f"nothing is learned from its trials: no stage has a sampler that does ({', '.join(LEARNING)})"
    from orchestrator.planning.sampling.optuna_samplers import STARTUP

    few = f", when there are {STARTUP} results with the sweep's own" if count < STARTUP else ""
    return f"{count} of them lie in the ranges and teach the sampler of {', '.join(stages)}{few}"


def _renamed(given: Any, space: Sequence[Parameter]) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise UserError(f"{given!r} is no mapping", key="rename", hint="Write rename: {lr: optimizer.lr}")
    known = [parameter.name for parameter in space]
    for name, new in given.items():
        if new not in known:
            raise UserError(
                f"'{new}' is not in the space", key=f"rename.{name}", hint=nearest(str(new), known)
            )
    return {str(name): str(new) for name, new in given.items()}


def _adapt(
    config: SweepConfig, space: Sequence[Parameter], past: Past, names: Mapping[str, str], best: int
) -> _Adapted:
    """Turn the best trials into settings, each once."""
    usual = usual_values(config, space)
    adapted = _Adapted()
    for there, value in past.trials:
        if len(adapted.settings) == best:
            break
        params = _by_name(there, names)
        placed = {p.name: fitted(p, params[p.name]) for p in space if p.name in params}
        given = {name: own for name, (fits, own) in placed.items() if fits}
        # A condition may not hold in this setting: the value is none of it then.
        setting = active(space, {**usual, **given})
        kept = {name: value for name, value in given.items() if name in setting}
        if not kept or setting_id(setting) in adapted.settings:
            continue
        adapted.settings[setting_id(setting)] = kept
        adapted.values.append(value)
        adapted.left_out.update(placed.keys() - given.keys())
        adapted.moved.update(name for name, own in kept.items() if own != params[name])
        adapted.unknown |= {name for name in there if names.get(name, name) not in placed}
    return adapted


def _note(past: Past, adapted: _Adapted, mode: str) -> str:
    """Say in one sentence what is taken from a study, and what did not fit."""
    first, last, count = adapted.values[0], adapted.values[-1], len(adapted.settings)
    span = show(first) if count == 1 else f"{show(first)} to {show(last)}"
    taken = f"{KEY}: the best {count} of {len(past.trials)} finished trials of the Optuna study '{past.name}'"
    parts = [f"{taken} ({span})"]
    if adapted.moved:
        parts.append(f"brought into the range: {_listed(adapted.moved)}")
    if adapted.left_out:
        parts.append(f"left out, because there is no such value: {_listed(adapted.left_out)}")
    if adapted.unknown:
        parts.append(f"not searched here: {', '.join(sorted(adapted.unknown))}")
    if past.mode != mode:
        parts.append(f"there the {past.mode} is the best, and here the {mode}")
    return "; ".join(parts)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count}×)" for name, count in sorted(counts.items()))
