"""Narrowing choices: unordered values one by one, ordered ones as an interval of neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.planning.narrowing.evidence import Floats, Sample, sound
from orchestrator.planning.narrowing.numbers import Grip
from orchestrator.planning.narrowing.window import window
from orchestrator.space import Parameter, Value, show, with_reason
from orchestrator.space.parameter import is_numeric

# A value is clearly worse at this one-sided significance, measured on so many trials at least; and when it
# holds fewer of the good trials than chance would put there, at that significance.
WORSE_P, WORSE_TRIALS, FEW_GOOD_P = 0.05, 4, 0.1
# A value that one of so many best trials has is never dropped.
CORE = 3
# Nearly all of a value's trials diverged: this share, of so many at least.
UNSOUND_SHARE, UNSOUND_TRIALS = 0.9, 6


def narrow_choice(parameter: Parameter, sample: Sample, grip: Grip) -> Parameter:
    """Return the values that an unordered choice still has, with the reason.

    A value goes only when its trials rank clearly lower than those of the best trial's value (Mann and
    Whitney 1947) and hold too few of the good ones (Fisher's exact test): one that mostly does badly but
    sometimes very well depends on other parameters and stays.
    """
    places = _places(parameter, sample)
    leading = sample.trials[0].params[parameter.name]
    core = {_key(trial.params[parameter.name]) for trial in sample.trials[:CORE]}
    reference = places[_key(leading)]
    dropped = {
        _key(value): f"{show(value)} (median rank {_median(places[_key(value)]) + 1:g} of "
        f"{len(sample.trials)} against {_median(reference) + 1:g} for {show(leading)})"
        for value in parameter.values
        if _key(value) not in core and _worse(places[_key(value)], reference, sample, grip.hard)
    }
    nothing = f"none is clearly worse than {show(leading)}, the best trial's"
    return _kept(parameter, dropped, leading, nothing, "dropped as clearly worse", grip.because)


def narrow_ordered(parameter: Parameter, sample: Sample, grip: Grip) -> Parameter:
    """Return the neighbouring values that an ordered choice still has, with the reason.

    Values are cut off from either end as a number's range is; there is nothing to move to past an edge.
    """
    size = len(parameter.values)
    centres = (np.arange(size) + 0.5) / size
    place = {_key(value): float(centre) for value, centre in zip(parameter.values, centres, strict=True)}
    keys = [_key(trial.params[parameter.name]) for trial in sample.trials]
    # A value that was dropped before has no place in the order any more.
    known = np.array([key in place for key in keys])
    units = np.array([place[key] for key in keys if key in place])
    found = window(sample.only(known), units, grid=centres, least=0.25 / size)
    core = [place[key] for key in keys[:CORE] if key in place]
    # No order collapses in one step: the best trial's neighbours stay.
    core += [place[key] + side / size for key in keys[:1] if key in place for side in (-1, 1)]
    # Where nothing holds back, the ends lie between two values; a value goes when its middle lies outside.
    half = 0.5 / size
    low = min([(found.low - half) * grip.hard if found.low > 0 else 0.0, *core])
    high = max([1 - (1 - found.high - half) * grip.hard if found.high < 1 else 1.0, *core])
    dropped = {
        _key(value): show(value)
        for value, centre in zip(parameter.values, centres, strict=True)
        if centre < low - 1e-9 or centre > high + 1e-9
    }
    leading = sample.trials[0].params[parameter.name]
    counts = [(trial.params[parameter.name]) for trial in sample.best]
    tally = ", ".join(
        f"{show(value)} ×{number}"
        for value in parameter.values
        if (number := sum(_same(value, other) for other in counts))
    )
    evidence = f"the {len(counts)} best of {len(sample.trials)} have {tally}"
    return _kept(
        parameter, dropped, leading, "neither end is surely poorer than the rest",
        "cut off as surely poorer", (evidence, *grip.because),
    )  # fmt: skip


def drop_unsound(parameter: Parameter, sample: Sample, reason: str) -> Parameter:
    """Return a choice without the values with which nearly all trials diverged; `reason` leads the reason."""
    leading = sample.trials[0].params[parameter.name]
    dropped = {}
    for value in parameter.values:
        there = [trial for trial in sample.trials if _same(trial.params[parameter.name], value)]
        lost = sum(not sound(trial) for trial in there)
        if (
            not _same(value, leading)
            and len(there) >= UNSOUND_TRIALS
            and lost >= UNSOUND_SHARE * len(there)
            and _fewer(len(there) - lost, len(there), int(sample.good[0].sum()), len(sample.trials)) < WORSE_P
        ):
            dropped[_key(value)] = f"{show(value)} ({lost} of {len(there)} trials diverged)"
    return _kept(parameter, dropped, leading, reason, "dropped as diverging", (reason,) if dropped else ())


def _kept(
    parameter: Parameter,
    dropped: dict[tuple[type, Value], str],
    leading: Value,
    nothing: str,
    what: str,
    because: Sequence[str],
) -> Parameter:
    """Return the values left, the best trial's among them, with a reason in one sentence."""
    values = [value for value in parameter.values if _key(value) not in dropped]
    parts = [f"{what}: {', '.join(dropped.values())}"] if dropped else []
    if not any(_same(value, leading) for value in values):
        # A setting promoted from an earlier stage may hold a value that was dropped there.
        values = with_value(parameter, values, leading)
        parts.insert(0, f"{show(leading)} is back, the best trial's")
    if not parts:
        parts = [f"kept: {nothing}"]
    return with_reason(parameter, "; ".join([*parts, *because]), values=tuple(values))


def with_value(parameter: Parameter, values: Sequence[Value], value: Value) -> list[Value]:
    """Return values with one more, at its place where they are ordered numbers."""
    more = (*values, value)
    return sorted(more, key=_number) if parameter.ordered and is_numeric(more) else list(more)


def _number(value: Value) -> float:
    assert isinstance(value, int | float), "the caller has looked"
    return float(value)


def _key(value: Value) -> tuple[type, Value]:
    # 1, 1.0 and True are three values.
    return type(value), value


def _same(one: Value, other: Value) -> bool:
    return _key(one) == _key(other)


def _places(parameter: Parameter, sample: Sample) -> dict[tuple[type, Value], Floats]:
    """Return the places in the ranking by value; equal results share one, or their order would speak."""
    by_value: dict[tuple[type, Value], list[float]] = {_key(value): [] for value in parameter.values}
    for trial, mark in zip(sample.trials, sample.marks, strict=True):
        by_value.setdefault(_key(trial.params[parameter.name]), []).append(float(mark))
    return {key: np.array(places) for key, places in by_value.items()}


def _median(places: Floats) -> float:
    return float(np.median(places))


def _worse(places: Floats, reference: Floats, sample: Sample, hard: float) -> bool:
    from scipy.stats import mannwhitneyu

    if min(len(places), len(reference)) < WORSE_TRIALS or hard <= 0:
        return False
    if float(mannwhitneyu(places, reference, alternative="greater").pvalue) >= WORSE_P * hard:
        return False
    good = set(sample.marks[sample.good[0] > 0].tolist())
    found = sum(place in good for place in places.tolist())
    return _fewer(found, len(places), int(sample.good[0].sum()), len(sample.trials)) < FEW_GOOD_P * hard


def _fewer(found: int, drawn: int, good: int, total: int) -> float:
    """Return how often chance puts so few of the good trials among so many drawn (Fisher's exact test)."""
    from scipy.stats import hypergeom

    return float(hypergeom.cdf(found, total, good, drawn))
