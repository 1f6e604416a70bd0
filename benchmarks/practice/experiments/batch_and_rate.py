"""The best learning rate for each batch size, of an mlp trained by SGD with momentum 0.9 for five epochs.

The rates are powers of two; the best one is the lowest point of a parabola through the three around the one
of lowest validation loss. `slope` is that of the best rates over the batch sizes, both logarithms: 1 is
in proportion (Goyal et al. 2017), 0.5 as the square root, 0 is no connection. A batch of 512 is also trained
at the best rate of a batch of 32, and at 16 times that.

Data: 6,000 images of MNIST where they are given, else scikit-learn's digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare import against
from job import dataset, train
from report import Verdict
from scipy.stats import t as student

ROWS = ("A14",)
CLAIM = "Batch size and learning rate scale together: the best rate is proportional to the batch size"
SIZES = (32, 64, 128, 256, 512)
RATES = tuple(range(-9, 2))
SAME, SCALED = "batch 512 at the rate of 32", "batch 512 at 16 times the rate of 32"


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    whole = _samples(data)
    rows, best = [], []
    for size in SIZES:
        losses = [_loss(whole, seed, size, 2.0**rate) for rate in RATES]
        best.append(lowest(losses))
        rows.append({"variant": f"batch {size}", "log2_best_rate": best[-1], "val_loss": min(losses)})
    slope = float(np.polyfit(np.log2(SIZES), best, 1)[0])
    for name, rate in ((SAME, 2.0 ** best[0]), (SCALED, 16 * 2.0 ** best[0])):
        loss = _loss(whole, seed, SIZES[-1], rate)
        rows.append({"variant": name, "log2_best_rate": math.log2(rate), "val_loss": loss})
    return [{**row, "slope": slope} for row in rows]


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    slopes = np.array([row["slope"] for row in rows if row["variant"] == SAME])
    error = slopes.std(ddof=1) / np.sqrt(len(slopes))
    half = student.ppf(0.975, len(slopes) - 1) * error
    near = abs(slopes.mean() - 1) <= max(half, 0.25)
    grows = slopes.mean() - half > 0
    gap = against(rows, "val_loss", SAME, SCALED)
    return Verdict(
        holds=bool(near) if grows else None,
        sentence=f"the best rate grows as the batch size to the power {slopes.mean():.2f} ± {error:.2f} "
        f"(1 is in proportion); a batch of 512 has a validation loss higher by {gap} at the rate of 32 than "
        "at 16 times that",
        metric="log2_best_rate",
    )


def lowest(losses: Sequence[float]) -> float:
    """Return the logarithm of the rate at which a parabola around the lowest loss is lowest."""
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    place = int(np.argmin(finite))
    if not 0 < place < len(finite) - 1 or not math.isfinite(finite[place + 1]):
        return float(RATES[place])
    before, here, after = np.log(finite[place - 1 : place + 2])
    return RATES[place] + 0.5 * float((before - after) / (before - 2 * here + after))


def _samples(data: Path | None) -> dict[str, Any]:
    if data is None:
        return dataset("digits")
    mnist = dataset("npz", path=str(data / "mnist.npz"), inputs="x_test", labels="y_test", layout="grey")
    return {**mnist, "split": {"validation": 0.2, "test": 0.2, "seed": 0}}


def _loss(data: dict[str, Any], seed: int, size: int, rate: float) -> float:
    """Return the lowest validation loss of an epoch; infinite where training diverged."""
    metrics = train(
        data, seed=seed, batch_size=size, epochs=5, select="val/loss",
        optimizer__name="sgd", optimizer__lr=rate, optimizer__momentum=0.9,
    )  # fmt: skip
    return metrics["val/loss"] if math.isfinite(metrics["val/loss"]) else math.inf
