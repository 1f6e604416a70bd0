"""PED-ANOVA: how differently the best trials and all of them are spread along each parameter.

Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces" (IJCAI 2023), section 4: a parameter's importance is the Pearson divergence between two densities,
of the best trials and of all, each a kernel density estimate on a grid. Kernels, widths and grid are those of
Optuna's evaluator, and so are the shares, which a test compares. It is not called, because importing
`optuna.importance` imports scikit-learn, which takes longer than all else of a report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Cells that the width of a number's values is cut into.
CELLS = 50
# What all values are as likely as one of, beside those that were seen.
PRIOR_WEIGHT = 1.0
# No kernel is narrower, in cells: 90% of it lies within the one that it is centred on.
NARROWEST = 0.5 / 1.64
LEAST_DENSITY = 1e-12


@dataclass(frozen=True, slots=True)
class Places:
    """Where the trials lie along a parameter.

    Attributes:
        cell: of each trial, the number of its cell.
        cells: how many cells there are.
        ordered: neighbours are alike, as those of a number are and a choice's are not.
    """

    cell: NDArray[np.int64]
    cells: int
    ordered: bool


def along_number(values: NDArray[np.float64]) -> Places:
    """Return where finite numbers lie, in the width that they span."""
    low, high = float(values.min()), float(values.max())
    with np.errstate(all="ignore"):  # a width of next to nothing
        # Half-way between two cells is the lower one's.
        place = np.ceil((values - low) / ((high - low) / (CELLS - 1)) - 0.5)
    cell = np.clip(np.nan_to_num(place), 0, CELLS - 1).astype(np.int64)
    return Places(cell, CELLS, ordered=True)


def ped_anova(
    along: Mapping[str, Places], values: NDArray[np.float64], good_share: float
) -> dict[str, float]:
    """Return each parameter's share of what makes the best trials differ from all.

    Args:
        along: where the trials lie along each parameter.
        values: the trials' results, larger is better, shape (trials,).
        good_share: the share of trials that counts as the best, in (0, 1); with them all that are equal to
            the last of them.

    Returns:
        Shares by name that add up to 1; equal ones where all of the trials are among the best.
    """
    best = values >= np.sort(values)[-math.ceil(good_share * len(values))]
    found = {name: _divergence(places, best) for name, places in along.items()}
    total = math.fsum(found.values())
    return {name: one / total if total > 0 else 1 / len(found) for name, one in found.items()}


def _divergence(places: Places, best: NDArray[np.bool_]) -> float:
    """Return the Pearson divergence of the best trials' density from that of all (equation 9)."""
    density = _smoothed if places.ordered else _shares
    among_best, among_all = (
        density(np.bincount(cell, minlength=places.cells)) + LEAST_DENSITY
        for cell in (places.cell[best], places.cell)
    )
    return float(among_all @ (among_best / among_all - 1) ** 2)


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how likely each value of a choice is, from how often each was seen."""
    kernels = np.count_nonzero(counts) + 1
    # Each kernel lies on the value that was seen, and a little on all of them; one lies on all of them alike.
    spill = PRIOR_WEIGHT / kernels
    seen = (counts + counts.sum() * spill) / (1 + len(counts) * spill)
    return np.asarray((seen + PRIOR_WEIGHT / len(counts)) / (counts.sum() + PRIOR_WEIGHT))


def _smoothed(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how likely each cell is: a normal kernel on each that has trials, cut off where cells end.

    Kernels are as wide as Scott's rule has it; another one, as wide as all cells, lies in their middle.
    """
    cells, centres = len(counts), np.flatnonzero(counts)
    weights = counts[centres]
    total = int(weights.sum())
    width = max(_width(centres, weights, total), NARROWEST)
    middles = np.append(centres, (cells - 1) / 2)
    edges = np.arange(cells + 1) - 0.5
    below = _below((edges - middles[:, None]) / np.append(np.full(len(centres), width), cells)[:, None])
    kernels = np.diff(below, axis=1) / (below[:, -1:] - below[:, :1])
    return np.asarray(np.append(weights, PRIOR_WEIGHT) @ kernels / (total + PRIOR_WEIGHT))


def _width(centres: NDArray[np.int64], weights: NDArray[np.int64], total: int) -> float:
    """Return a kernel's width by Scott's rule (1992), from the quartiles where they lie close."""
    mean = centres @ weights / total
    deviation = math.sqrt((centres - mean) ** 2 @ weights / max(1, total - 1))
    upto = np.cumsum(weights)
    first = np.searchsorted(upto, total // 4, side="left")
    third = min(len(centres) - 1, int(np.searchsorted(upto, total * 3 // 4, side="right")))
    between = float(centres[third] - centres[first])
    return float(1.059 * min(between / 1.34, deviation) * total**-0.2)


def _below(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much of a standard normal distribution lies below each place.

    Without SciPy, whose import would take longer than this; most places are met many times.
    """
    some, where = np.unique(places, return_inverse=True)
    share = [0.5 * math.erfc(-place / math.sqrt(2)) for place in some.tolist()]
    return np.asarray(share)[where].reshape(places.shape)
