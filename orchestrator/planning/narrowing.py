"""Narrowing: from a stage's results to the next stage's ranges, with a reason for every parameter.

A first honest version: the next range is where the good trials were, in the transformed space, with a margin;
past the edge where the best values press against it; a choice is dropped only when it is clearly worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.planning.samplers import Observation
from orchestrator.space import CHOICE, INT, Parameter, Value, show, with_reason

# Fewer results than this say too little to give anything up.
FEWEST_TRIALS = 6
# When more than this share of the trials is as good as the good ones, they don't tell good from bad.
TIE_SHARE = 0.6
# A range is narrowed only where chance would put the good trials as close together less often than this.
CHANCE = 0.1
# The good trials press against an end when the middle one of them lies within this share of the range.
EDGE_SHARE = 0.2
# How far a range moves past an edge, as a share of its width.
EDGE_STEP = 0.25
# No range gets narrower in one step than this share of its width.
LEAST_SHARE = 0.1
# A choice is clearly worse at this one-sided significance, measured on at least so many trials.
WORSE_P, WORSE_TRIALS = 0.05, 4
# exp(log(8)) is a little more than 8, and must not become 9.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Good:
    """The good trials of a stage, best first, out of all that count."""

    trials: tuple[Observation, ...]
    total: int

    @property
    def best(self) -> Observation:
        """The best trial seen."""
        return self.trials[0]


def narrow(
    space: Sequence[Parameter], results: Sequence[Observation], keep: float, margin: float
) -> tuple[Parameter, ...]:
    """Draw the next ranges.

    Args:
        space: the ranges that the stage searched.
        results: its finished trials; a diverged one has the objective -inf, a failed one is left out.
        keep: the share of the trials that counts as good.
        margin: how much wider than the good trials the next range is, as a share of their spread.

    Returns:
        The parameters in the same order, each with its reason. The best trial lies in every range.
    """
    ranked = sorted(results, key=_rank)
    finite = [trial for trial in ranked if math.isfinite(trial.objective)]
    if not finite:
        return _unchanged(space, "kept: no trial of the stage gave a result to go by")
    if len(ranked) < FEWEST_TRIALS:
        return _unchanged(space, f"kept: {len(ranked)} trials are too few to give anything up", finite[0])
    count = max(3, math.ceil(keep * len(ranked)))
    threshold = finite[min(count, len(finite)) - 1].objective
    good = Good(tuple(trial for trial in finite if trial.objective >= threshold), len(ranked))
    if len(good.trials) > TIE_SHARE * len(ranked):
        why = (
            f"kept: {len(good.trials)} of {len(ranked)} trials reach {threshold:.4g}, which tells none apart"
        )
        return _unchanged(space, why, finite[0])
    return tuple(
        _narrow_choice(parameter, good, ranked)
        if parameter.kind == CHOICE
        else _narrow_number(parameter, good, margin)
        for parameter in space
    )


def _same(one: Value, other: Value) -> bool:
    """Say whether two choices are the same; 1, 1.0 and True are three."""
    return (type(one), one) == (type(other), other)


def _rank(trial: Observation) -> tuple[float, str]:
    objective = trial.objective if math.isfinite(trial.objective) else -math.inf
    # Equal results are put in an order that does not depend on the order they came in.
    return -objective, repr(sorted(trial.params.items()))


def _unchanged(
    space: Sequence[Parameter], reason: str, best: Observation | None = None
) -> tuple[Parameter, ...]:
    kept = []
    for parameter in space:
        if best is None or parameter.contains(best.params[parameter.name]):
            kept.append(with_reason(parameter, reason))
            continue
        value = best.params[parameter.name]
        if parameter.kind == CHOICE:
            values = (*parameter.values, value)
            kept.append(with_reason(parameter, f"{reason}; widened to the best trial", values=values))
        else:
            low, high = min(parameter.low, value), max(parameter.high, value)
            kept.append(with_reason(parameter, f"{reason}; widened to the best trial", low=low, high=high))
    return tuple(kept)


def _narrow_number(parameter: Parameter, good: Good, margin: float) -> Parameter:
    places = [parameter.transformed(trial.params[parameter.name]) for trial in good.trials]
    low, high = parameter.transformed(parameter.low), parameter.transformed(parameter.high)
    width = high - low
    least, most = min(places), max(places)
    pad = max(margin * (most - least) / 2, (LEAST_SHARE * width - (most - least)) / 2)
    chance = _by_chance(len(places), most - least, width)
    if chance > CHANCE:
        new_low, new_high = min(low, least), max(high, most)
    else:
        new_low, new_high = _within(least - pad, low, least), -_within(-(most + pad), -high, -most)
    middle = sorted(places)[len(places) // 2]
    moved = []
    floor, ceiling = _limits(parameter)
    if middle <= low + EDGE_SHARE * width and floor < new_low:
        new_low = min(new_low, max(low - EDGE_STEP * width, floor))
        moved.append(f"past its lower end {show(parameter.low)}")
    if middle >= high - EDGE_SHARE * width and ceiling > new_high:
        new_high = max(new_high, min(high + EDGE_STEP * width, ceiling))
        moved.append(f"past its upper end {show(parameter.high)}")
    new_low, new_high = max(new_low, floor), min(new_high, ceiling)
    low_value, high_value = _ends(parameter, new_low, new_high, good)
    return with_reason(
        parameter,
        _number_reason(parameter, good, moved, chance, low_value, high_value),
        low=low_value,
        high=high_value,
    )


def _by_chance(count: int, spread: float, width: float) -> float:
    """Return how often so many places, drawn evenly over a range, lie as close together or closer.

    The range of a uniform sample: David and Nagaraja, Order Statistics (2003), section 2.3.
    """
    share = min(1.0, spread / width) if width > 0 else 1.0
    return count * share ** (count - 1) - (count - 1) * share**count


def _within(padded: float, edge: float, seen: float) -> float:
    """Return the padded end, stopped at the range's edge unless a good trial already lies past it."""
    return max(padded, min(edge, seen))


def _limits(parameter: Parameter) -> tuple[float, float]:
    """Return the hard limits in the transformed space; on a log scale none at or below zero."""
    floor, ceiling = parameter.limits
    low = -math.inf if floor is None or (parameter.log and floor <= 0) else parameter.transformed(floor)
    high = math.inf if ceiling is None or (parameter.log and ceiling <= 0) else parameter.transformed(ceiling)
    return low, high


def _ends(parameter: Parameter, low: float, high: float, good: Good) -> tuple[float, float]:
    """Return the ends as values, the best trial inside whatever rounding did."""
    best = good.best.params[parameter.name]
    floor, ceiling = parameter.limits
    ends = parameter.at(low), parameter.at(high)
    if parameter.kind == INT:
        # A factor, not a sum: the error of exp(log()) grows with the number.
        slack = ROUNDING * max(1.0, abs(ends[0]), abs(ends[1]))
        ends = math.floor(ends[0] + slack), math.ceil(ends[1] - slack)
    # exp(log(limit)) may lie a hair past the limit.
    if parameter.kind == INT and parameter.log:
        ends = max(ends[0], 1), ends[1]
    ends = (
        ends[0] if floor is None else max(ends[0], floor),
        ends[1] if ceiling is None else min(ends[1], ceiling),
    )
    return min(ends[0], best), max(ends[1], best)


def _number_reason(
    parameter: Parameter, good: Good, moved: list[str], chance: float, low: float, high: float
) -> str:
    values = [trial.params[parameter.name] for trial in good.trials]
    evidence = (
        f"the {len(good.trials)} best of {good.total} lie in {show(min(values))} … {show(max(values))}, "
        f"the best at {show(good.best.params[parameter.name])}"
    )
    if moved:
        return f"moved {' and '.join(moved)}: {evidence}"
    if chance > CHANCE:
        return f"kept: {evidence}, no closer together than chance would put them"
    share = (parameter.transformed(high) - parameter.transformed(low)) / (
        parameter.transformed(parameter.high) - parameter.transformed(parameter.low)
    )
    if share > 0.95:
        return f"kept: {evidence}"
    return f"narrowed to {share:.0%} of its width: {evidence}"


def _narrow_choice(parameter: Parameter, good: Good, ranked: Sequence[Observation]) -> Parameter:
    from scipy.stats import mannwhitneyu

    by_value: dict[tuple[str, Value], list[float]] = {(type(v).__name__, v): [] for v in parameter.values}
    # Equal results share a place, or the order among them would speak for one value.
    first_place: dict[float, int] = {}
    for place, trial in enumerate(ranked):
        value = trial.params[parameter.name]
        shared = first_place.setdefault(_rank(trial)[0], place)
        by_value.setdefault((type(value).__name__, value), []).append(float(shared))
    leading = good.best.params[parameter.name]
    reference = by_value[type(leading).__name__, leading]
    kept, dropped = [], []
    for value in parameter.values:
        places = by_value[type(value).__name__, value]
        worse = (
            not _same(value, leading)
            and min(len(places), len(reference)) >= WORSE_TRIALS
            and not any(_same(trial.params[parameter.name], value) for trial in good.trials[:3])
            and float(mannwhitneyu(places, reference, alternative="greater").pvalue) < WORSE_P
        )
        if worse:
            median, best_median = sorted(places)[len(places) // 2], sorted(reference)[len(reference) // 2]
            dropped.append(
                f"{show(value)} (median rank {median + 1:.0f} of {len(ranked)} against {best_median + 1:.0f} "
                f"for {show(leading)})"
            )
        else:
            kept.append(value)
    if not any(_same(value, leading) for value in kept):
        # A setting promoted from an earlier stage may hold a value that was dropped there.
        kept.append(leading)
        why = f"{show(leading)} is back, the best trial's"
        if dropped:
            why += f"; dropped as clearly worse: {', '.join(dropped)}"
        return with_reason(parameter, why, values=tuple(kept))
    if not dropped:
        return with_reason(parameter, f"kept: none is clearly worse than {show(leading)}, the best trial's")
    return with_reason(parameter, f"dropped as clearly worse: {', '.join(dropped)}", values=tuple(kept))
