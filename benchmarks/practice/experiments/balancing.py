"""Imbalanced digits, with the classes balanced by the order in which samples come.

See imbalance.py for the data and the metrics. The weights of the loss are equal in all variants.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imbalance import judged, measured
from report import Verdict

ROWS = ("B2",)
CLAIM = "Over- and undersampling, both together, and balanced batches find more of the rare classes"
RULES = ("none", "over", "under", "both", "batch")


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    return [measured(seed, data, rule, balance=rule) for rule in RULES]


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    return judged(rows, list(RULES[1:]), list(RULES[1:]))
