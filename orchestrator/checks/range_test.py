"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates", section 3.3).

The rate grows by the same factor with each update, over a few hundred updates of the job's own optimizer.
Where the loss begins to fall is the lower bound of rates worth trying, where it no longer does the upper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from orchestrator.checks.repeat import an_optimizer, copied
from orchestrator.checks.seeding import seeded
from orchestrator.checks.setup import Setup
from orchestrator.checks.yardstick import are_classes
from orchestrator.errors import UserError

LOWEST, HIGHEST, STEPS, BATCH = 1e-7, 10.0, 200, 64
# A loss this many times the first has exploded.
EXPLODED = 4.0
# Losses are smoothed over so many decades of the rate (standard deviation of a Gaussian: it does not lag).
SMOOTH_DECADES = 0.12
# The loss falls from where this share of its whole fall is done, and rises from where so much is lost again.
BEGUN, LOST = 0.05, 0.2
# A fall by less of the first loss is noise.
LEAST_FALL = 0.05
# The share of the largest rate that converges that is best: practice says a half; on the tasks in
# benchmarks/practice a fifth loses less.
BEST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeTest:
    """What a range test found.

    Attributes:
        rates: one for each update, until the loss exploded.
        losses: before each of these updates, the mean over seeds.
        smoothed: these, smoothed.
        accuracies: on the batch of each update, the mean over seeds; empty without classes.
        low: the rate at which the loss begins to fall; None where it never does.
        high: the largest rate that converges: beyond it the loss rises, or stays.
        best: a share of `high`, at least `low`.
        exploded: the loss did so at the end; else the highest rate was reached.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    accuracies: tuple[float, ...]
    low: float | None
    high: float | None
    best: float | None
    exploded: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def range_test(
    make: Callable[[], Setup],
    *,
    seeds: Sequence[int] = range(3),
    low: float = LOWEST,
    high: float = HIGHEST,
    steps: int = STEPS,
    batch_size: int = BATCH,
) -> RangeTest:
    """Run a range test on a set-up's training samples.

    Args:
        make: builds the set-up anew.
        seeds: of the order of the samples; curves are averaged.
        low: the rate of the first update.
        high: that of the last.
        steps: updates.
        batch_size: samples of an update.

    Raises:
        UserError: rates or steps that make no range.
    """
    if not 0 < low < high or not math.isfinite(high):
        raise UserError(f"{low:g} to {high:g} is no range of rates", key="range_test")
    if steps < 20 or not seeds or batch_size < 1:
        raise UserError(f"{steps} steps from {len(seeds)} seeds are too few", key="range_test")
    rates = np.geomspace(low, high, steps)
    setup = make()
    runs = [_run(setup, rates, seed, batch_size) for seed in seeds]
    length = min(len(losses) for losses, _ in runs)
    losses = np.mean([each[:length] for each, _ in runs], axis=0)
    accuracies = np.mean([each[:length] for _, each in runs], axis=0)
    found = bounds(rates[:length], losses)
    return RangeTest(
        rates=tuple(rates[:length].tolist()),
        losses=tuple(losses.tolist()),
        smoothed=tuple(_smoothed(rates[:length], losses).tolist()),
        accuracies=tuple(accuracies.tolist()) if np.isfinite(accuracies).all() else (),
        low=found[0] if found else None,
        high=found[1] if found else None,
        best=max(found[0], BEST_SHARE * found[1]) if found else None,
        exploded=length < steps,
    )


def bounds(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the rates at which a loss begins to fall and at which it rises again; None where it never falls.

    Args:
        rates: (k,), growing by a factor.
        losses: (k,), one for each.
    """
    if len(rates) < 10:
        return None
    curve = _smoothed(rates, losses)
    bottom = int(curve.argmin())
    first = float(np.median(curve[: max(1, bottom // 4)]))
    fall = first - float(curve[bottom])
    if fall < LEAST_FALL * abs(first):
        return None
    above = np.flatnonzero(curve[: bottom + 1] > first - BEGUN * fall)
    low = int(above[-1]) if len(above) else 0
    rises = np.flatnonzero(curve[bottom:] > curve[bottom] + LOST * fall)
    high = bottom + int(rises[0]) if len(rises) else len(rates) - 1
    return float(rates[low]), float(rates[high])


def _smoothed(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth a curve over the logarithm of the rate."""
    if len(rates) < 2:
        return losses
    decades = math.log10(rates[-1] / rates[0]) / (len(rates) - 1)
    smooth: NDArray[np.float64] = gaussian_filter1d(losses, SMOOTH_DECADES / decades, mode="nearest")
    return smooth


def _run(setup: Setup, rates: NDArray[np.float64], seed: int, size: int) -> tuple[list[float], list[float]]:
    """Return losses and accuracies on the batches of one run, before each update, until they explode."""
    losses: list[float] = []
    accuracies: list[float] = []
    device = setup.inputs.device
    with seeded(device, seed):
        model = copied(setup.model).train()
        optimizer = an_optimizer(setup, model)
        # Layers may have rates of their own; their proportions stay.
        shares = [group["lr"] for group in optimizer.param_groups]
        shares = [share / max(shares) if max(shares) > 0 else 1.0 for share in shares]
        order = torch.empty(0, dtype=torch.int64)
        for rate in rates:
            while len(order) < size:
                order = torch.cat([order, torch.randperm(len(setup.inputs))])
            rows, order = order[:size], order[size:]
            inputs, targets = setup.inputs[rows.to(device)], setup.targets[rows.to(setup.targets.device)]
            outputs = model(inputs)
            loss = setup.loss(outputs, targets)
            losses.append(float(loss.detach()))
            accuracies.append(_accuracy(outputs.detach(), targets))
            if not math.isfinite(losses[-1]) or losses[-1] > EXPLODED * max(abs(losses[0]), 1e-12):
                return losses[:-1] or [0.0], accuracies[:-1] or [math.nan]
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = float(rate) * share
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return losses, accuracies


def _accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(1) == targets).float().mean()) if are_classes(targets, outputs) else math.nan
