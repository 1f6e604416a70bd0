"""Final runs of the best of each value of one parameter, such as of each kind of model (F4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from orchestrator.planning.merit import Merit


def best_of_each(
    name: str, ranked: Sequence[Merit], count: int, best: Callable[[Sequence[Merit], int], list[Merit]]
) -> list[Merit]:
    """Return settings by turns: the best of each value of a parameter, then the second best of each, and on.

    Values come in the order of their best settings; settings in which the parameter was not active (it is
    conditional) come after them in each turn.

    Args:
        name: the parameter.
        ranked: the best first.
        count: how many settings.
        best: returns the best few of one value's settings.
    """
    groups: dict[object, list[Merit]] = {}
    for merit in ranked:
        groups.setdefault(value_key(name, merit.params), []).append(merit)
    # The sort is stable: None, not active, goes to the end.
    ordered = sorted(groups, key=lambda key: key is None)
    turns = itertools.zip_longest(*(best(groups[key], count) for key in ordered))
    return [merit for turn in turns for merit in turn if merit is not None][:count]


def missing_values(name: str, ranked: Sequence[Merit], taken: Collection[Mapping[str, Any]]) -> list[Merit]:
    """Return, of settings in order, the first of each value that none of the taken settings has."""
    seen = {value_key(name, params) for params in taken} | {None}
    missing = []
    for merit in ranked:
        if (key := value_key(name, merit.params)) not in seen:
            seen.add(key)
            missing.append(merit)
    return missing


def value_key(name: str, params: Mapping[str, Any]) -> object:
    """Return a parameter's value so that 1, 1.0 and true are told apart; None where it is not active."""
    return repr(params[name]) if name in params else None
