"""Holding: stages that tune some parameters only, the rest fixed at their best, and getting ranges back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.planning.narrowing.evidence import ranked, sound
from orchestrator.planning.narrowing.importance import unimportant
from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import CHOICE, Parameter, Value, from_json, show, to_json, with_reason

# `tune: auto` holds what measured importance says hardly matters.
AUTO = "auto"


def to_hold(
    tune: Sequence[str], space: Sequence[Parameter], observations: Sequence[Observation]
) -> tuple[str, ...]:
    """Return the names that a stage holds.

    Args:
        tune: the stage's own words: names to tune, `auto`, or nothing for all of them.
        space: the ranges that the stage would search.
        observations: all finished trials so far; `auto` goes by their measured importance.
    """
    if not tune:
        return ()
    if tuple(tune) == (AUTO,):
        return unimportant(space, observations)
    return tuple(parameter.name for parameter in space if parameter.name not in tune)


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
    space: Sequence[Parameter], names: Sequence[str], best: Mapping[str, Value]
) -> tuple[Parameter, ...]:
    """Return the space with some parameters held at one value.

    A name that `best` lacks (no trial had it yet, and the job gives no value) stays free.

    Args:
        space: the ranges.
        names: the parameters to hold.
        best: their best values so far, or in the first stage the job's own.
    """
    held = []
    for parameter in space:
        if parameter.name not in names or parameter.name not in best:
            held.append(parameter)
            continue
        value = best[parameter.name]
        reason = f"held at {show(value)}, the best so far: this stage tunes others"
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
