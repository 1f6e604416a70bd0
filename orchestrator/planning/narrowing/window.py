"""The window of good results along one parameter: where good trials are not rarer than chance has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.planning.narrowing.evidence import Booleans, Floats, Sample
from orchestrator.space import Parameter

# Places at which the share of good trials is looked at.
GRID = 65
# A place is poor where good trials are rarer than this share of their average, or of the best place's share.
POOR, POOR_TO_PEAK = 0.5, 0.35
# One trial's worth of belief that a place is like the average, where few trials lie.
PRIOR = 1.0
# An end is put at least as far out as it lies in this share of the resamples.
SURE = 0.75
# What lies beyond an end holds so few good trials by chance less often than this.
CHANCE = 0.2
# More trials than this are added up over as many cells.
CELLS = 512
# The best results press against an edge when they peak within this share of the range, so often in resamples.
EDGE_SHARE, EDGE_SURE = 0.2, 0.9
# The kernel, as a share of Scott's bandwidth (which smooths the ends of a good region too far out), and the
# least one, as a share of the range.
BANDWIDTH, LEAST_BANDWIDTH = 0.7, 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Where good trials lie along one parameter, on a scale on which the searched range is 0 to 1.

    Attributes:
        low: the lower end; 0 where nothing is sure enough to be cut off.
        high: the upper end; 1 where nothing is.
        spread: for either end, half the way it moves between the timid and the bold resamples.
        presses_low: the best results press against the lower edge.
        presses_high: they press against the upper edge.
    """

    low: float
    high: float
    spread: tuple[float, float]
    presses_low: bool
    presses_high: bool


def window(
    sample: Sample,
    units: Floats,
    *,
    grid: Floats | None = None,
    least: float = LEAST_BANDWIDTH,
    poor: float | None = None,
) -> Window:
    """Find where good trials lie, and how sure that is.

    At each place of a grid the share of good trials among those nearby is estimated by kernel regression
    (Nadaraya 1964, Watson 1964), which unlike the extent of the good trials does not hang on single noisy
    ones, and does not mistake places where little was tried for poor ones. Ends are cut off where that share
    is low, as the bump-hunting method PRIM peels faces off a box (Friedman and Fisher 1999, section 2), when
    both resampling and an exact test of what would be cut off agree (Fisher's, one-sided).

    Args:
        sample: the trials.
        units: their places; the searched range is 0 to 1, promoted trials may lie outside it.
        grid: the places to look at; by default evenly over the range.
        least: the kernel is no narrower than this.
        poor: a place is poor where the share of good trials is less than this; by default it is compared with
            the average and with the best place.
    """
    places = np.linspace(0.0, 1.0, GRID) if grid is None else grid
    if not len(units):
        return Window(low=0.0, high=1.0, spread=(0.0, 0.0), presses_low=False, presses_high=False)
    rates, base = good_rates(sample, units, places, least)
    limit = np.maximum(POOR * base, POOR_TO_PEAK * rates.max(axis=1))[:, None] if poor is None else poor
    alive = rates >= limit
    # Where all of a resample is poor, nothing of it speaks for an end.
    alive |= ~alive.any(axis=1, keepdims=True)
    lows = places[alive.argmax(axis=1)]
    highs = places[len(places) - 1 - alive[:, ::-1].argmax(axis=1)]
    low, high = float(np.quantile(lows, 1 - SURE)), float(np.quantile(highs, SURE))
    peak = places[rates.argmax(axis=1)]
    return Window(
        low=low if low > 0 and _rare(sample, units < low) else 0.0,
        high=high if high < 1 and _rare(sample, units > high) else 1.0,
        spread=(_half_width(lows), _half_width(highs)),
        presses_low=_presses(rates, base, places <= EDGE_SHARE, peak <= EDGE_SHARE),
        presses_high=_presses(rates, base, places >= 1 - EDGE_SHARE, peak >= 1 - EDGE_SHARE),
    )


def good_rates(sample: Sample, units: Floats, places: Floats, least: float) -> tuple[Floats, Floats]:
    """Estimate the share of good trials at each place, in each replicate.

    Returns:
        Shares by replicate and place, and each replicate's share over all.
    """
    width = max(least, BANDWIDTH * _bandwidth(units[sample.good[0] > 0]))
    where, every, good = _binned(units, sample.weights, sample.weights * sample.good)
    kernel = np.exp(-0.5 * ((where[:, None] - places[None, :]) / width) ** 2)
    base = good.sum(axis=1) / np.maximum(1.0, every.sum(axis=1))
    shares = (good @ kernel + PRIOR * base[:, None]) / (every @ kernel + PRIOR)
    return shares, base


def _binned(units: Floats, every: Floats, good: Floats) -> tuple[Floats, Floats, Floats]:
    """Add up very many trials over cells much finer than any kernel, for speed (Fan and Marron 1994)."""
    if len(units) <= CELLS:
        return units, every, good
    low, high = float(units.min()), float(units.max())
    cells = np.rint((units - low) / max(high - low, LEAST_BANDWIDTH) * (CELLS - 1))
    order = np.argsort(cells, kind="stable")
    places, starts = np.unique(cells[order], return_index=True)
    where = low + places / (CELLS - 1) * max(high - low, LEAST_BANDWIDTH)
    return (
        where,
        np.add.reduceat(every[:, order], starts, axis=1),
        np.add.reduceat(good[:, order], starts, axis=1),
    )


def units_of(parameter: Parameter, sample: Sample) -> Floats:
    """Return where the trials lie when the range is 0 to 1; promoted ones may lie outside it."""
    name = parameter.name
    values = np.array(
        [parameter.low, parameter.high, *(trial.params[name] for trial in sample.trials)], float
    )
    low, high, *_ = places = np.log(values) if parameter.log else values
    return np.asarray((places[2:] - low) / (high - low), dtype=float)


def _bandwidth(units: Floats) -> float:
    """Return Scott's bandwidth (Multivariate Density Estimation, 1992, section 6.2) of the good trials."""
    return float(np.std(units)) * len(units) ** -0.2 if len(units) else 0.0


def _rare(sample: Sample, cut: Booleans) -> bool:
    """Say whether what would be cut off holds fewer good trials than chance would put there."""
    from scipy.stats import hypergeom

    good = sample.good[0] > 0
    found = int((good & cut).sum())
    return bool(hypergeom.cdf(found, len(good), int(good.sum()), int(cut.sum())) < CHANCE)


def _half_width(ends: Floats) -> float:
    timid, bold = np.quantile(ends, [1 - SURE, SURE])
    return float(bold - timid) / 2


def _presses(rates: Floats, base: Floats, near: Booleans, peaks: Booleans) -> bool:
    """Say whether good trials are surely more frequent near an edge than elsewhere, with their peak there."""
    if not near.any() or float(np.mean(peaks)) < EDGE_SURE:
        return False
    return float(np.quantile(rates[:, near].max(axis=1) - base, 1 - EDGE_SURE)) > 0
