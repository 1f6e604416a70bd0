"""Holding: stages that tune some parameters only, the rest fixed at their best, and getting ranges back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.planning.narrowing.evidence import ranked, sound
from orchestrator.planning.narrowing.importance import unimportant
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.start_from import middle
from orchestrator.space import CHOICE, Parameter, Value, active, from_json, show, to_json, with_reason
from orchestrator.space.conditions import relatives

# `tune: auto` holds what measured importance says hardly matters.
AUTO = "auto"
# What a parameter is held at, and where that is from, in words.
Held = tuple[Value, str]


def with_held(
    tune: Sequence[str],
    space: Sequence[Parameter],
    observations: Sequence[Observation],
    own: Mapping[str, Value],
) -> tuple[Parameter, ...]:
    """Return a stage's ranges with what it does not tune held at one value.

    Parameters that exist only under some values of others are tuned where they exist: all is held as in the
    best trial that has them. Where no trial has them all, what they depend on is searched too.

    Args:
        tune: the stage's own words: names to tune, `auto`, or nothing for all of them.
        space: the ranges that the stage would search.
        observations: all finished trials so far.
        own: values of the job's own config that lie in the ranges; they are held before any result.
    """
    why = to_hold(tune, space, observations)
    tuned = [parameter.name for parameter in space if parameter.name in tune]
    values = _values(space, tuned, observations, own)
    there = active(space, {name: value for name, (value, _) in values.items()})
    needed = {other.name for name in tuned if name not in there for other in relatives(name, space)}
    return hold(space, {name: words for name, words in why.items() if name not in needed}, values)


def _values(
    space: Sequence[Parameter],
    tuned: Sequence[str],
    observations: Sequence[Observation],
    own: Mapping[str, Value],
) -> dict[str, Held]:
    """Return what each parameter would be held at: as in the trials that have all that is tuned, if any."""
    values: dict[str, Held] = {}
    for parameter in space:
        ordered = parameter.kind != CHOICE or parameter.ordered
        values[parameter.name] = (
            middle(parameter),
            "the middle of its range" if ordered else "the first choice",
        )
    values |= {name: (value, "the job's own value") for name, value in own.items()}
    best = best_values(space, observations)
    values |= {name: (value, "the best so far") for name, value in best.items()}
    having = [seen for seen in observations if all(name in seen.params for name in tuned)]
    for name, value in best_values(space, having).items():
        if value != best[name]:
            values[name] = value, f"the best so far with {', '.join(tuned)}"
    return values


def to_hold(
    tune: Sequence[str], space: Sequence[Parameter], observations: Sequence[Observation]
) -> dict[str, str]:
    """Return the names that a stage would hold, and why, in words.

    Args:
        tune: the stage's own words: names to tune, `auto`, or nothing for all of them.
        space: the ranges that the stage would search.
        observations: all finished trials so far; `auto` goes by their measured importance.
    """
    if not tune:
        return {}
    if tuple(tune) == (AUTO,):
        shares = unimportant(space, observations)
        return {name: f"{share:.1%} of the results' variation is its doing" for name, share in shares.items()}
    return {parameter.name: "this stage tunes others" for parameter in space if parameter.name not in tune}


def best_values(space: Sequence[Parameter], observations: Sequence[Observation]) -> dict[str, Value]:
    """Return each parameter's value in the best trial that has it, of the largest scale with a result.

    Args:
        space: the parameters.
        observations: finished trials of all scales, in any order.
    """
    best: dict[str, Value] = {}
    for scale in sorted({seen.scale for seen in observations}, reverse=True):
        for seen in ranked([seen for seen in observations if seen.scale == scale and sound(seen)]):
            for parameter in space:
                if parameter.name in seen.params:
                    best.setdefault(parameter.name, seen.params[parameter.name])
    return best


def hold(
    space: Sequence[Parameter], why: Mapping[str, str], values: Mapping[str, Held]
) -> tuple[Parameter, ...]:
    """Return the space with some parameters held at one value.

    Args:
        space: the ranges.
        why: the parameters to hold, and why each is held.
        values: what they are held at.
    """
    held = []
    for parameter in space:
        if parameter.name not in why:
            held.append(parameter)
            continue
        value, source = values[parameter.name]
        reason = f"held at {show(value)}, {source}: {why[parameter.name]}"
        if parameter.kind == CHOICE:
            held.append(with_reason(parameter, reason, values=(value,)))
        else:
            held.append(with_reason(parameter, reason, low=value, high=value))
    return tuple(held)


def free_to_json(space: Sequence[Parameter], held: Sequence[Parameter]) -> dict[str, Any]:
    """Return, for space.json under "free", the ranges of the parameters that a stage holds.

    Args:
        space: the ranges as they would be searched.
        held: the same with some held, from `hold`.
    """
    apart = [one for one, other in zip(space, held, strict=True) if one != other]
    parameters: dict[str, Any] = to_json(apart, "")["parameters"]
    return parameters


def searchable(content: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Return a stage's ranges from its space.json, for `narrow`: of held parameters those from before.

    A space.json without "free" held nothing.
    """
    free = content.get("free") or {}
    return from_json({"parameters": {**content["parameters"], **free}})
