"""Narrowing a number: from the window of its good results to the next range and the reason for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.planning.narrowing.drift import Drift
from orchestrator.planning.narrowing.evidence import Floats, Sample, sound
from orchestrator.planning.narrowing.window import LEAST_BANDWIDTH, Window, units_of, window
from orchestrator.space import INT, Parameter, show, with_reason

# How far a range moves past an edge, as a share of its width.
EDGE_STEP = 0.25
# No range gets narrower in one step than this share of its width.
LEAST_SHARE = 0.1
# So many of the best trials always stay inside.
CORE = 3
# Where fewer trials than this share come out sound, nearly all diverge.
UNSOUND = 0.1
# A range that keeps more than this share of its width counts as kept.
KEPT = 0.98
# exp(log(8)) is a little more than 8, and must not become 9.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Grip:
    """How hard to narrow one parameter, and why not harder.

    Attributes:
        hard: 1 all the way to the window, 0 not at all.
        margin: how much wider than the window the next range is, as a share of the window.
        edge: how much of a step past an edge is taken.
        because: what holds back, in words; empty where nothing does.
    """

    hard: float
    margin: float
    edge: float
    because: tuple[str, ...] = ()


def narrow_number(parameter: Parameter, sample: Sample, grip: Grip, drift: Drift | None) -> Parameter:
    """Return a number's next range, with its reason."""
    units = units_of(parameter, sample)
    found = window(sample, units, least=_least_kernel(parameter))
    low, high = _held_back(found, grip)
    past = found.presses_low and grip.edge > 0, found.presses_high and grip.edge > 0
    if past[0]:
        low = -EDGE_STEP * grip.edge
    if past[1]:
        high = 1 + EDGE_STEP * grip.edge
    # Where good trials lie all over the range there is no region that a drift could be suspected of.
    placed = found.low > 0 or found.high < 1
    followed = drift is not None and (drift.sure or (drift.suspected and placed))
    moves = drift if followed and grip.edge > 0 else None
    if moves is not None:
        low, high = _along(low, high, moves, grip.edge)
    low, high = _with_core(low, high, units, sample)
    after = _range(parameter, *_no_thinner(low, high), sample)
    return with_reason(
        parameter, _reason(parameter, after, sample, grip, found, moves), low=after[0], high=after[1]
    )


def cut_unsound(parameter: Parameter, sample: Sample, reason: str) -> Parameter:
    """Return a number's range without the ends where nearly all trials diverged; `reason` leads the reason.

    Args:
        parameter: the range that was searched.
        sample: its trials, those that did not diverge marked as good.
        reason: why nothing else may be cut off.
    """
    units = units_of(parameter, sample)
    found = window(sample, units, least=_least_kernel(parameter), poor=UNSOUND)
    low, high = _with_core(found.low, found.high, units, sample)
    after = _range(parameter, *_no_thinner(low, high), sample)
    if low <= 0 and high >= 1:
        return with_reason(parameter, f"kept: {reason}", low=after[0], high=after[1])
    beyond = (units < low) | (units > high)
    lost = int((beyond & (sample.good[0] == 0)).sum())
    what = f"cut to where trials do not diverge ({lost} of {int(beyond.sum())} beyond it did), else kept"
    return with_reason(parameter, f"{what}: {reason}", low=after[0], high=after[1])


def limits_of(parameter: Parameter) -> tuple[float, float]:
    """Return the hard limits in the transformed space; on a log scale none at or below zero."""
    floor, ceiling = parameter.limits
    low = -math.inf if floor is None or (parameter.log and floor <= 0) else parameter.transformed(floor)
    high = math.inf if ceiling is None or (parameter.log and ceiling <= 0) else parameter.transformed(ceiling)
    return low, high


def _least_kernel(parameter: Parameter) -> float:
    """Return the least bandwidth: whole numbers that lie far apart are smoothed over half a number."""
    if parameter.kind != INT:
        return LEAST_BANDWIDTH
    return max(LEAST_BANDWIDTH, 0.5 / (parameter.high - parameter.low))


def _held_back(found: Window, grip: Grip) -> tuple[float, float]:
    """Return the window with its margin, only as far as the grip goes; an edge that was not cut stays."""
    pad = grip.margin * (found.high - found.low) / 2
    low = max(0.0, found.low - pad) * grip.hard
    high = 1 - max(0.0, 1 - found.high - pad) * grip.hard
    return low, high


def _along(low: float, high: float, drift: Drift, share: float) -> tuple[float, float]:
    """Move a window along a drift, wider by its error; a drift that is only suspected just adds room ahead.

    Nothing is given up behind where nothing was cut off before.
    """
    ahead = (abs(drift.shift) + (drift.error if drift.sure else 0.0)) * share
    behind = max(0.0, abs(drift.shift) - drift.error) * share if drift.sure else 0.0
    if drift.shift > 0:
        return (low + behind if low > 0 else low), high + ahead
    return low - ahead, (high - behind if high < 1 else high)


def _with_core(low: float, high: float, units: Floats, sample: Sample) -> tuple[float, float]:
    """Return ends between which the best few trials lie: a single one is best by luck too often."""
    core = [unit for unit, trial in zip(units[:CORE].tolist(), sample.trials, strict=False) if sound(trial)]
    return min([low, *core]), max([high, *core])


def _no_thinner(low: float, high: float) -> tuple[float, float]:
    missing = max(0.0, LEAST_SHARE - (high - low)) / 2
    return low - missing, high + missing


def _range(parameter: Parameter, low: float, high: float, sample: Sample) -> tuple[float, float]:
    """Return the ends as values within the hard limits, the best trial inside whatever rounding did."""
    start, end = parameter.transformed(parameter.low), parameter.transformed(parameter.high)
    least, most = limits_of(parameter)
    at = [max(least, start + low * (end - start)), min(most, start + high * (end - start))]
    floor, ceiling = parameter.limits
    # An end that did not move is the very number it was.
    ends = (
        parameter.low if low == 0 else parameter.at(min(at[0], most)),
        parameter.high if high == 1 else parameter.at(max(at[1], least)),
    )
    if parameter.kind == INT:
        # A factor, not a sum: the error of exp(log()) grows with the number.
        slack = ROUNDING * max(1.0, abs(ends[0]), abs(ends[1]))
        ends = math.floor(ends[0] + slack), math.ceil(ends[1] - slack)
        if parameter.log:
            ends = max(ends[0], 1), max(ends[1], 1)
    # exp(log(limit)) may lie a hair past the limit.
    ends = (
        ends[0] if floor is None else max(ends[0], floor),
        ends[1] if ceiling is None else min(ends[1], ceiling),
    )
    # In a range wider than any float no place could be computed.
    if not math.isfinite(float(ends[1]) - float(ends[0])):
        ends = parameter.low, parameter.high
    best = sample.trials[0].params[parameter.name]
    return min(ends[0], best), max(ends[1], best)


def _reason(
    parameter: Parameter,
    after: tuple[float, float],
    sample: Sample,
    grip: Grip,
    found: Window,
    moves: Drift | None,
) -> str:
    good = sample.best
    values = sorted(trial.params[parameter.name] for trial in good)
    # The middle four fifths: single trials far out say little.
    skip = len(values) // 10
    evidence = (
        f"the {len(good)} best of {len(sample.trials)} lie {'mostly ' if skip else ''}in "
        f"{show(values[skip])} … {show(values[-1 - skip])}, "
        f"the best at {show(sample.trials[0].params[parameter.name])}"
    )
    facts = [evidence, *_why(parameter, after, found, moves), *grip.because]
    return f"{_what(parameter, after)}: {'; '.join(facts)}"


def _what(parameter: Parameter, after: tuple[float, float]) -> str:
    """Return what became of the range, in a few words."""
    low, high = parameter.to_unit(after[0]), parameter.to_unit(after[1])
    past = []
    if after[0] < parameter.low:
        past.append(f"its lower end {show(parameter.low)}")
    if after[1] > parameter.high:
        past.append(f"its upper end {show(parameter.high)}")
    if past:
        kept = f", to {high - low:.0%} of its width" if high - low < KEPT else ""
        return f"moved past {' and '.join(past)}{kept}"
    return f"narrowed to {high - low:.0%} of its width" if high - low < KEPT else "kept"


def _why(
    parameter: Parameter, after: tuple[float, float], found: Window, moves: Drift | None
) -> Sequence[str]:
    facts = []
    cut = [
        f"the {name} end is sure to ± {spread:.0%} of the width"
        for name, spread, inside in (
            ("lower", found.spread[0], after[0] > parameter.low),
            ("upper", found.spread[1], after[1] < parameter.high),
        )
        if inside
    ]
    if cut:
        facts.append(", ".join(cut))
    elif not (found.presses_low or found.presses_high) and after == (parameter.low, parameter.high):
        facts.append("neither end is surely poorer than the rest")
    if moves is not None:
        first, last = moves.places[0], moves.places[-1]
        word = "moves along" if moves.sure else "leaves room for"
        capped = f", followed for {abs(moves.shift):.0%}" if moves.shift != moves.measured else ""
        facts.append(
            f"{word} the drift of the good region from {show(first[1])} at {first[0]} to {show(last[1])} at "
            f"{last[0]} ({moves.measured:+.0%} ± {moves.error:.0%} of the width by the next scale{capped})"
        )
    return facts
