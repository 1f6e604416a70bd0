"""Imbalanced digits, with a margin that grows for rare classes (LDAM, Cao et al. 2019).

See imbalance.py for the data and the metrics. `ldam` has a cosine classifier as its last layer, as in the
paper; `ldam, plain layer` an ordinary one; `cosine, no margin` says what the layer alone is worth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imbalance import judged, measured
from report import Verdict

from orchestrator.training.settings import LossSettings

ROWS = ("B4",)
CLAIM = "A margin that grows for rare classes finds more of them"
LDAM = LossSettings(name="ldam")
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"loss": LossSettings()},
    "ldam": {"loss": LDAM},
    "ldam, plain layer": {"loss": LDAM, "cosine": False},
    "cosine, no margin": {"loss": LossSettings(name="ldam", margin=0.0)},
    "ldam, inverse_sqrt": {"loss": LossSettings(name="ldam", class_weights="inverse_sqrt")},
}


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    return [measured(seed, data, name, **arguments) for name, arguments in VARIANTS.items()]


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    return judged(rows, [name for name in VARIANTS if name != "none"], ["ldam"])
