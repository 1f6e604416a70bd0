"""Results of past studies for samplers that learn: frozen with the plan, read when settings are drawn.

They were measured on another problem, so only their order says something here: they count as results of a
scale of their own, further from a full training than all of this sweep's (see `pooling`). The sampler
`model` compares values, which mean nothing across problems, and does not get them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import CHOICE, INT, Parameter, Value, active
from orchestrator.sweep.files import read_as

LEARNING = ("tpe", "gp", "cmaes")  # the samplers that read them
# How much smaller than the sweep's smallest scale that of a past study is taken to be.
FURTHER = 3.0


def fitted(parameter: Parameter, value: Any) -> tuple[bool, Any]:
    """Return whether a value has a place in a parameter's range, and the nearest there is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if parameter.kind == CHOICE:
        if parameter.contains(value):
            return True, value
        # 64 and 64.0 are the same batch size to everybody but Optuna's own types.
        same = [v for v in parameter.values if number and type(v) in (int, float) and v == value]
        return bool(same), same[0] if same else None
    if not number or not math.isfinite(value):
        return False, None
    inside = min(max(value, parameter.low), parameter.high)
    return True, round(inside) if parameter.kind == INT else float(inside)


def known_results(
    space: Sequence[Parameter], trials: Sequence[tuple[Mapping[str, Any], float]]
) -> list[dict[str, Any]]:
    """Return the trials that lie in the ranges with all their parameters, as `prior.json` holds them.

    Args:
        space: the parameters, as declared.
        trials: settings by this sweep's names, and objectives with larger always better.
    """
    results: list[dict[str, Any]] = []
    for params, objective in trials:
        setting = _inside(space, params)
        if setting is not None:
            results.append({"params": setting, "objective": objective})
    return results


def _inside(space: Sequence[Parameter], params: Mapping[str, Any]) -> dict[str, Value] | None:
    """Return a setting in this sweep's types; None where a value lies outside, or one is missing."""
    placed = {p.name: fitted(p, params[p.name]) for p in space if p.name in params}
    if any(not fits or own != params[name] for name, (fits, own) in placed.items()):
        return None
    values = {name: own for name, (_, own) in placed.items()}
    if any(p.name not in values and not p.when for p in space):
        return None
    # What only exists under a condition may be missing; any value will do to find out whether it had to be.
    setting = active(space, {p.name: values.get(p.name, p.from_unit(0.5)) for p in space})
    return {name: values[name] for name in setting} if setting.keys() <= values.keys() else None


def read_prior_results(path: Path, lowest: float) -> list[Observation]:
    """Return the past results of a plan, none where there are none.

    Args:
        path: of `prior.json`.
        lowest: the smallest scale of the sweep, a share of a full-scale training.
    """
    if not path.exists():
        return []

    def observed(content: Mapping[str, Any]) -> list[Observation]:
        return [
            Observation(params=one["params"], objective=one["objective"], scale=lowest / FURTHER**number)
            for number, results in enumerate(content["studies"], 1)
            for one in results
        ]

    return read_as(path, observed, "the results of past studies")
