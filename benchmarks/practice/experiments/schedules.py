"""Each schedule with its default numbers, in a short run and a long one, at a small rate and at a large one.

See curves.py for data and metrics. SGD with momentum 0.9; 4 and 32 epochs; rates 0.003 and 0.1. The step
schedule halves the rate every five epochs, whatever the length is; exponential and cosine know it.

Accuracy decides. The validation loss would not do: a network that trains on after it fits the data grows more
confident, also where it errs, so that training which ended early has the lower loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compare import against
from curves import digits, last
from report import Verdict

ROWS = ("C3",)
CLAIM = "A default decay can end training early, so none at first; one that fits the length helps at the end"
LENGTHS, RATES = (4, 32), (0.003, 0.1)
NAMES = ("none", "step", "exponential", "inverse_time", "cosine", "plateau")


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    rows = []
    with digits(seed, data) as samples:
        for epochs in LENGTHS:
            for rate in RATES:
                for name in NAMES:
                    changes = {"epochs": epochs, "optimizer__name": "sgd", "optimizer__lr": rate}
                    end = last(samples, seed, schedule__name=name, **changes)
                    rows.append({"variant": f"{name}, {epochs} epochs, lr {rate}", **end})
    return rows


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    """It holds where step ends a long run at the small rate early, and cosine helps one at the large rate."""
    found = {
        (name, epochs, rate): against(
            rows, "accuracy", f"{name}, {epochs} epochs, lr {rate}", f"none, {epochs} epochs, lr {rate}"
        )
        for name in NAMES[1:]
        for epochs in LENGTHS
        for rate in RATES
    }
    early, helps = found["step", 32, 0.003], found["cosine", 32, 0.1]
    holds = None if early.sure == 0 or helps.sure == 0 else early.sure < 0 and helps.sure > 0
    parts = [
        f"{epochs} epochs at {rate}: "
        + ", ".join(f"{name} {found[name, epochs, rate]}" for name in NAMES[1:])
        for epochs in LENGTHS
        for rate in RATES
    ]
    return Verdict(holds=holds, sentence="accuracy over none's: " + "; ".join(parts), metric="accuracy")
