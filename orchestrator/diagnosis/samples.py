"""What sampled updates show of layers and weights, and what it says (practice, E5, E6, E8)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.diagnosis.finding import (
    DEAD,
    RATIO_HIGH,
    RATIO_LOW,
    SATURATED,
    UNSTABLE,
    Finding,
    finding,
)

# Samples that a judgement goes by, the last ones, and the update from which on it does.
LAST, SETTLED = 3, 8
# A layer is said to be dead, or saturated, from this share of its units, or values, on.
SHARE = 0.5
# Ten times what is large for a ratio of update to weights, and a hundredth of what is small.
LARGE, SMALL = 1e-1, 1e-5
# Predictions of the fixed batch that change from one look to the next, late in training.
FLIPS, FEWEST_LOOKS = 0.2, 6


@dataclass(slots=True)
class Layer:
    """One layer's activations: shares at each sampled update.

    Attributes:
        dead: share of units that were off for all samples at the last `LAST` sampled updates.
        saturated: share of values at the ends of a bounded activation, at each sampled update.
    """

    dead: float | None = None
    saturated: list[float] = field(default_factory=list)


# Update (from 1) and, by weight, the norm of its change over its own.
Ratios = Sequence[tuple[int, Mapping[str, float]]]


def typical_ratio(ratios: Ratios) -> float | None:
    """Return the update-to-weight ratio of a training: the median over weights, then over updates.

    The first update is left out where there are others: adaptive optimizers know no scale yet.
    """
    seen = [
        statistics.median(one.values()) for update, one in ratios if one and (update > 1 or len(ratios) < 3)
    ]
    return statistics.median(seen) if seen else None


def judge_ratio(ratios: Ratios) -> Finding | None:
    """Say where updates are far from a thousandth to a hundredth of the weights (E6)."""
    typical = typical_ratio(ratios)
    if typical is None or len(ratios) < LAST or SMALL <= typical <= LARGE:
        return None
    code = RATIO_HIGH if typical > LARGE else RATIO_LOW
    said = f"an update is {typical:.1e} of the weights; 1e-3 to 1e-2 is usual"
    return finding(code, said, ratios[-1][0])


def judge_layers(layers: Mapping[str, Layer], update: int) -> list[Finding]:
    """Say which layers are dead or saturated (E5), as one finding each."""
    if update < SETTLED:
        return []
    dead = {name: one.dead for name, one in layers.items() if one.dead is not None and one.dead >= SHARE}
    ends = {
        name: statistics.fmean(one.saturated[-LAST:])
        for name, one in layers.items()
        if len(one.saturated) >= LAST
    }
    ends = {name: share for name, share in ends.items() if share >= SHARE}
    found = []
    if dead:
        said = f"units that are off for every sample: {_told(dead)}"
        found.append(finding(DEAD, said, update))
    if ends:
        said = f"activations at the ends of their range: {_told(ends)}"
        found.append(finding(SATURATED, said, update))
    return found


def judge_predictions(flips: Sequence[float], update: int) -> Finding | None:
    """Say whether predictions of one fixed batch keep changing late in training (E8).

    Args:
        flips: from one look to the next, the share of samples whose prediction changed.
        update: the last one.
    """
    if len(flips) < FEWEST_LOOKS - 1:
        return None
    late = statistics.fmean(flips[len(flips) // 2 :])
    if late < FLIPS:
        return None
    said = f"{late:.0%} of a fixed batch's predictions change from one look to the next, late in training"
    return finding(UNSTABLE, said, update)


def _told(shares: Mapping[str, float]) -> str:
    worst = sorted(shares, key=lambda name: -shares[name])[:3]
    more = f" and {len(shares) - 3} more" if len(shares) > 3 else ""
    return ", ".join(f"{shares[name]:.0%} in {name}" for name in worst) + more
