"""Imbalanced digits, with the loss of each class weighed by its count.

See imbalance.py for the data and the metrics. The row's own weight is one over the square root of the count;
one over the count and the effective number of samples (Cui et al. 2019) stand beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imbalance import judged, measured
from report import Verdict

from orchestrator.training.settings import LossSettings

ROWS = ("B3",)
CLAIM = "Weights of one over the square root of a class's count find more of the rare classes"
RULES = ("none", "inverse_sqrt", "inverse", "effective")


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    return [measured(seed, data, rule, loss=LossSettings(class_weights=rule)) for rule in RULES]


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    return judged(rows, list(RULES[1:]), ["inverse_sqrt"])
