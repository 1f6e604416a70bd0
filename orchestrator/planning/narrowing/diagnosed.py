"""Ranges cut to where a stage's trials did not explode: their diagnoses tell it surer than their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.planning.narrowing.holding import best_values
from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import Parameter

# As `orchestrator.diagnosis.collect.bounds` gives them: low, high and why.
Bounds = Mapping[str, tuple[float | None, float | None, str]]


def cut_diagnosed(
    space: Sequence[Parameter], ruled: Bounds, trials: Sequence[Observation]
) -> tuple[Parameter, ...]:
    """Return ranges without what explosions rule out.

    Args:
        space: the next stage's ranges.
        ruled: the bounds of each parameter.
        trials: the last stage's, in any order; of those that have a parameter the best stays inside its
            range whatever the bounds say.
    """
    best = best_values(space, trials)
    return tuple(
        _cut(each, *ruled[each.name], best.get(each.name)) if each.name in ruled else each for each in space
    )


def _cut(parameter: Parameter, low: float | None, high: float | None, why: str, best: Any) -> Parameter:
    new_low = parameter.low if low is None else max(parameter.low, low)
    new_high = parameter.high if high is None else min(parameter.high, high)
    nothing = (new_low, new_high) == (parameter.low, parameter.high)
    if nothing or new_low >= new_high or (best is not None and not new_low <= best <= new_high):
        return parameter
    return replace(parameter, low=new_low, high=new_high, reason=f"{parameter.reason}; cut where {why}")
