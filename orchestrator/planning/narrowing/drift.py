"""Drift: how a parameter's best region moves as the scale grows, and where that puts it at the next scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.planning.narrowing.evidence import Sample, StageResults
from orchestrator.planning.narrowing.window import LEAST_BANDWIDTH, good_rates, units_of
from orchestrator.space import Parameter

# A region's place is measured on so many trials at least, at so many places of a grid.
FEWEST_TRIALS, GRID = 12, 65
# A drift of more standard errors than the first moves the range, than the second leaves it more room.
MOVES, SUSPECTED = 2.0, 1.0
# No drift moves a range further in one step than this share of its width.
FURTHEST = 0.5
# A place is never known better than this share of the range.
LEAST_ERROR = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """How far a parameter's best region is expected to move until the next scale.

    Attributes:
        shift: on a scale on which the searched range is 0 to 1, never further than `FURTHEST`.
        measured: the same before that cap.
        error: its standard error.
        places: by stage, oldest first, where the region lay, as values of the parameter.
    """

    shift: float
    measured: float
    error: float
    places: tuple[tuple[str, float], ...]

    @property
    def sure(self) -> bool:
        """Say whether the range should move along."""
        return abs(self.shift) > MOVES * self.error

    @property
    def suspected(self) -> bool:
        """Say whether there should be room for it."""
        return abs(self.shift) > SUSPECTED * self.error


def drift(parameter: Parameter, stages: Sequence[tuple[StageResults, Mapping[str, Sample]]]) -> Drift | None:
    """Measure the drift of a number over the stages.

    At each scale the region's place is the mean over the range of where good trials are more frequent than on
    average, with a standard error by bootstrap; how densely the range was sampled does not enter. A straight
    line over the logarithm of the scale is fitted by weighted least squares, its error widened where the
    places lie off the line by more than their own errors (Birge 1932). It is followed for one step: from the
    last scale as far as it lies from the one before, but not beyond full scale.

    Args:
        parameter: the range that the last stage searched; a number that is not constant.
        stages: all stages so far, oldest first, each with its trials by parameter.

    Returns:
        The drift; None where fewer than two scales tell, or the last one is full scale.
    """
    found = [
        (stage, place)
        for stage, there in stages
        if parameter.name in there and (place := _place(parameter, there[parameter.name])) is not None
    ]
    scales = sorted({stage.scale for stage, _ in found})
    if len(scales) < 2 or scales[-1] != stages[-1][0].scale:
        return None
    step = min(math.log(scales[-1] / scales[-2]), -math.log(scales[-1]))
    if step <= 0:
        return None
    x = np.log([stage.scale for stage, _ in found])
    y, errors = np.array([place for _, place in found]).T
    weights = errors**-2
    centre = np.average(x, weights=weights)
    spread = float((weights * (x - centre) ** 2).sum())
    slope = float((weights * (x - centre) * y).sum()) / spread
    off_line = weights * (y - np.average(y, weights=weights) - slope * (x - centre)) ** 2
    birge = math.sqrt(max(1.0, float(off_line.sum()) / max(1, len(x) - 2)))
    measured = slope * step
    return Drift(
        shift=max(-FURTHEST, min(FURTHEST, measured)),
        measured=measured,
        error=birge / math.sqrt(spread) * step,
        places=tuple((stage.name, _value(parameter, place)) for stage, (place, _) in found),
    )


def _place(parameter: Parameter, sample: Sample) -> tuple[float, float] | None:
    """Return the place of a stage's best region on the parameter's searched range, and its standard error."""
    if len(sample.trials) < FEWEST_TRIALS or not sample.good[0].any() or sample.good[0].all():
        return None
    units = units_of(parameter, sample)
    grid = np.linspace(units.min(), units.max(), GRID)
    rates, base = good_rates(sample, units, grid, LEAST_BANDWIDTH)
    excess = np.maximum(rates - base[:, None], 0.0)
    mass = excess.sum(axis=1)
    places = (excess @ grid)[mass > 0] / mass[mass > 0]
    if mass[0] <= 0 or len(places) < 2:
        return None
    return float(places[0]), max(LEAST_ERROR, float(places[1:].std()))


def _value(parameter: Parameter, unit: float) -> float:
    low, high = parameter.transformed(parameter.low), parameter.transformed(parameter.high)
    return float(parameter.at(low + unit * (high - low)))
