"""Cyclical rates with momentum that moves against them, and with momentum that stays (Smith 2018).

See curves.py for data and metrics. SGD for 16 epochs, in cycles of four epochs or in one; the highest rate is
0.05 or 0.2; momentum stays at 0.85, 0.9 or 0.95, or falls from 0.95 to 0.85 while the rate rises.

Momentum that stays at 0.85 tells whether its moving helps, or that it is low where the rate is high.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compare import against, mean_of
from curves import digits, last
from report import Verdict

ROWS = ("C5",)
CLAIM = "Momentum that moves against a cyclical learning rate does better than momentum that stays"
RATES, SCHEDULES = (0.05, 0.2), ("cyclical", "one_cycle")
MOMENTA = {"0.85": (0.85, False), "0.9": (0.9, False), "0.95": (0.95, False), "0.95 to 0.85": (0.95, True)}


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    rows = []
    with digits(seed, data) as samples:
        for schedule in SCHEDULES:
            for rate in RATES:
                for momentum, (highest, moves) in MOMENTA.items():
                    end = last(
                        samples,
                        seed,
                        epochs=16,
                        optimizer__name="sgd",
                        optimizer__lr=rate,
                        optimizer__momentum=highest,
                        schedule__name=schedule,
                        schedule__cycle_momentum=moves,
                    )
                    rows.append({"variant": f"{schedule}, lr {rate}, momentum {momentum}", **end})
    return rows


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    """The claim is tried against the best of the momenta that stay, in each of the four settings."""
    gains = []
    for schedule in SCHEDULES:
        for rate in RATES:
            name = f"{schedule}, lr {rate}"
            staying = [f"{name}, momentum {each}" for each in ("0.85", "0.9", "0.95")]
            best = max(staying, key=lambda variant: mean_of(rows, "accuracy", variant))
            gains.append((name, against(rows, "accuracy", f"{name}, momentum 0.95 to 0.85", best)))
    sure = [gain.sure for _, gain in gains]
    holds = None if not any(sure) or {1, -1} <= set(sure) else max(sure) > 0
    sentence = "accuracy over the best constant momentum: " + "; ".join(
        f"{name} {gain}" for name, gain in gains
    )
    return Verdict(holds=holds, sentence=sentence, metric="accuracy")
