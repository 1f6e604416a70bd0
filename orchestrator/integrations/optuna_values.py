"""A parameter's value as Optuna takes it, with a distribution that holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.results.schema import text
from orchestrator.space import CHOICE, INT

if TYPE_CHECKING:
    import optuna


def placed_value(
    value: Any, specs: Sequence[Mapping[str, Any]]
) -> tuple[Any, optuna.distributions.BaseDistribution]:
    """Return a parameter's value with the distribution that Optuna has it from.

    The distribution is the range of the first stage, so that the axes of all studies are the same, joined
    with the stage's own, which may have moved, and with the value, which may lie outside: `start_from` may
    name such a one. Optuna wants the same choices all over a study, and takes 1, 1.0 and True for the same:
    where that matters, or where a choice is no plain value, all choices are written as JSON.

    Args:
        value: of the trial.
        specs: of the parameter, from the first stage's `space.json` and from its own stage's.
    """
    import optuna.distributions as d

    kinds = {spec["kind"] for spec in specs}
    if not kinds or CHOICE in kinds:
        choices = list(dict.fromkeys(_key(one) for spec in specs for one in spec["values"])) or [_key(value)]
        values = [one for _, one in choices]
        if any(kind == "json" for kind, _ in choices) or len(set(values)) < len(values):
            values = [_json(one) for spec in specs[:1] for one in spec["values"]] or [_json(value)]
            return _json(value), d.CategoricalDistribution(values)
        return text(value) if isinstance(value, str) else value, d.CategoricalDistribution(values)
    low = min(value, *(spec["low"] for spec in specs))
    high = max(value, *(spec["high"] for spec in specs))
    log = bool(specs[0]["log"]) and low > 0
    if kinds == {INT}:
        return int(value), d.IntDistribution(int(low), int(high), log=log)
    return float(value), d.FloatDistribution(float(low), float(high), log=log)


def _key(value: Any) -> tuple[str, Any]:
    """Return a choice with its type; a value that is no plain one as JSON."""
    if value is None or isinstance(value, bool | int | float):
        return type(value).__name__, value
    return ("str", text(value)) if isinstance(value, str) else ("json", _json(value))


def _json(value: Any) -> str:
    return text(json.dumps(value, ensure_ascii=False, sort_keys=True))
