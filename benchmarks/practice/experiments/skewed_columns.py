"""Breast cancer, a table most of whose thirty columns are skewed, spread in four ways before training.

A linear model and a network of one hidden layer of 32 units; each figure is the mean of three divisions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from compare import against
from report import Verdict
from tables import measured

from orchestrator.training.settings import ModelSettings

ROWS = ("B6",)
CLAIM = "Spreading skewed columns by a logarithm or by uniform quantiles lowers the loss"
DIVISIONS = 3
MODELS = {"linear": ModelSettings(depth=0), "mlp": ModelSettings(width=32, depth=1)}
SPREADS: dict[str, str | list[str]] = {
    "standardize": "standardize",
    "log": ["log", "standardize"],
    "uniform quantiles": ["uniform_quantiles", "standardize"],
    "normal quantiles": "normal_quantiles",
    "power": "power",
}
CLAIMED = ("log", "uniform quantiles")


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    rows = []
    for name, model in MODELS.items():
        for spread, transform in SPREADS.items():
            parts = [
                measured("breast_cancer", transform, model, 10 * seed + part) for part in range(DIVISIONS)
            ]
            accuracy, loss = np.mean(parts, axis=0)
            rows.append({"variant": f"{name}, {spread}", "accuracy": float(accuracy), "loss": float(loss)})
    return rows


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    gaps = {
        (model, spread): against(rows, "loss", f"{model}, {spread}", f"{model}, standardize")
        for model in MODELS
        for spread in SPREADS
        if spread != "standardize"
    }
    claimed = [gap for (_, spread), gap in gaps.items() if spread in CLAIMED]
    holds: bool | None = all(gap.sure < 0 for gap in claimed)
    if not holds and not any(gap.sure > 0 for gap in claimed):
        holds = None
    parts = [f"{model}, {spread} {gap}" for (model, spread), gap in gaps.items()]
    return Verdict(
        holds=holds, sentence="test loss against standardize alone: " + "; ".join(parts), metric="loss"
    )
