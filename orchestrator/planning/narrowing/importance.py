"""Importance: how much of what the results vary by each parameter accounts for, by fANOVA or PED-ANOVA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.planning.narrowing.evidence import ranked, standing
from orchestrator.planning.narrowing.fanova import fanova
from orchestrator.planning.narrowing.ped_anova import Places, along_number, ped_anova
from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import CHOICE, Parameter, Value, expressions

# Fewer results than this can't tell.
FEWEST_RESULTS = 8
# Up to so many results fANOVA, which uses all of them, tells more than PED-ANOVA, which uses the best.
FEW_RESULTS = 100
# More results than this are thinned evenly by rank: the shares don't change, the time does.
MOST_RESULTS = 500
# The share of results that counts as good for PED-ANOVA.
GOOD_SHARE = 0.25
# A parameter is not important when it has less than this share of an equal one, on so many results at least.
SHARE_OF_EQUAL, FEWEST_TO_HOLD = 0.25, 24


def importance(space: Sequence[Parameter], observations: Sequence[Observation]) -> dict[str, float]:
    """Work out how much of what the results vary by each parameter accounts for.

    Results of different scales are pooled by their rank within their scale; diverged trials are the worst of
    it. Few results are told apart by fANOVA (Hutter et al. 2014), many by PED-ANOVA (Watanabe et al. 2023),
    which is fast. A conditional parameter is measured among the trials that have it, and counts by the share
    of trials that do.

    Args:
        space: the parameters; those with one value have no importance.
        observations: finished trials, in any order, of one scale or several.

    Returns:
        Shares by name that add up to 1; empty when it can't be told (too few results, all equal, no
        parameter varied).
    """
    rows = _by_rank(observations)
    if len(rows) < FEWEST_RESULTS or len({rank for _, rank in rows}) < 2:
        return {}
    shares: dict[str, float] = {}
    groups: dict[tuple[int, ...], list[str]] = {}
    for parameter in space:
        there = tuple(index for index, (params, _) in enumerate(rows) if parameter.name in params)
        groups.setdefault(there, []).append(parameter.name)
    for there, names in groups.items():
        subset = [rows[index] for index in there]
        # What all of these trials have is measured along, or it would be taken for noise.
        along = [p for p in space if all(p.name in params for params, _ in subset)]
        measured = _evaluate(along, subset)
        for name in names:
            shares[name] = measured.get(name, 0.0) * len(subset) / len(rows)
    total = math.fsum(shares.values())
    return {p.name: shares[p.name] / total for p in space} if total > 0 else {}


def unimportant(space: Sequence[Parameter], observations: Sequence[Observation]) -> dict[str, float]:
    """Return what to hold at their best in the next stage, decided by measured importance.

    Conservative: only on enough results, only what has less than a quarter of an equal share both in all
    results and in either half of them (every other trial by rank), never more than half of the parameters,
    and never one that decides whether others are there.

    Args:
        space: the parameters that the next stage could tune.
        observations: all finished trials so far.

    Returns:
        The share of each by name, as `importance` measures it, in the order of the space.
    """
    varied = [parameter for parameter in space if not parameter.constant]
    ordered = ranked(observations)
    if len(varied) < 2 or len(ordered) < FEWEST_TO_HOLD:
        return {}
    bound = SHARE_OF_EQUAL / len(varied)
    measured = [importance(varied, part) for part in (ordered, ordered[::2], ordered[1::2])]
    if not all(measured):
        return {}
    deciding = {name for p in space if p.when for name in expressions.parse(p.when).names}
    weak = [
        parameter.name
        for parameter in varied
        if all(shares[parameter.name] < bound for shares in measured) and parameter.name not in deciding
    ]
    weakest = sorted(weak, key=lambda name: (measured[0][name], name))[: len(varied) // 2]
    return {p.name: measured[0][p.name] for p in space if p.name in weakest}


def _by_rank(observations: Sequence[Observation]) -> list[tuple[Mapping[str, Value], float]]:
    """Return settings with their rank within their scale (1 the best, equal ones alike), in a fixed order."""
    scales: dict[float, list[Observation]] = {}
    for seen in observations:
        scales.setdefault(seen.scale, []).append(seen)
    rows = []
    for scale in sorted(scales):
        ordered = ranked(scales[scale])
        first = 0
        for place, seen in enumerate(ordered):
            if standing(seen) != standing(ordered[first]):
                first = place
            rows.append((seen.params, 1 - first / len(ordered)))
    rows.sort(key=lambda row: -row[1])
    if len(rows) > MOST_RESULTS:
        rows = [rows[i * len(rows) // MOST_RESULTS] for i in range(MOST_RESULTS)]
    return rows


def _evaluate(
    space: Sequence[Parameter], rows: Sequence[tuple[Mapping[str, Value], float]]
) -> Mapping[str, float]:
    """Return the importance of the parameters that all the rows have."""
    varied = [p for p in space if len({_key(params[p.name]) for params, _ in rows}) > 1]
    if len(rows) < FEWEST_RESULTS or len({rank for _, rank in rows}) < 2:
        return {}
    if len(varied) < 2:
        return {p.name: 1.0 for p in varied}
    found = {p.name: [params[p.name] for params, _ in rows] for p in varied}
    ranks = np.asarray([rank for _, rank in rows])
    if len(rows) <= FEW_RESULTS:
        return fanova({p.name: _columns(p, found[p.name]) for p in varied}, ranks)
    return ped_anova({p.name: _places(p, found[p.name]) for p in varied}, ranks, GOOD_SHARE)


def _columns(parameter: Parameter, values: Sequence[Value]) -> NDArray[np.float64]:
    """Return where trials lie along a parameter, as fANOVA takes it."""
    if parameter.kind != CHOICE:
        return _numbers(parameter, values)[:, None]
    places = _places(parameter, values)
    return np.eye(places.cells)[places.cell]


def _places(parameter: Parameter, values: Sequence[Value]) -> Places:
    """Return where trials lie along a parameter, as PED-ANOVA takes it.

    The numbers that trials have span a number's width: promoted settings may lie outside the range that was
    searched. A choice has its values in the parameter's own order, then what was promoted from earlier ones.
    """
    if parameter.kind != CHOICE:
        return along_number(_numbers(parameter, values))
    # 1, 1.0 and True are different choices.
    known = dict.fromkeys(map(_key, parameter.values)) | dict.fromkeys(sorted(map(_key, values)))
    cells = {key: cell for cell, key in enumerate(known)}
    return Places(np.asarray([cells[_key(value)] for value in values]), len(cells), ordered=False)


def _numbers(parameter: Parameter, values: Sequence[Value]) -> NDArray[np.float64]:
    places = []
    for value in values:
        assert isinstance(value, int | float), f"{parameter.name} is a number"
        places.append(parameter.transformed(value))
    return np.asarray(places, dtype=np.float64)


def _key(value: Value) -> str:
    return f"{type(value).__name__} {value!r}"
