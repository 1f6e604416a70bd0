"""Tables in their own units (wine, breast cancer), scaled in four ways, under three activations.

A network of one hidden layer of 32 units; each figure is the mean of both tables, each divided in three ways.
The sigmoid is put in place of tanh by hand: the built-in models have none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from compare import against, mean_of
from report import Verdict
from tables import measured
from torch import nn

from orchestrator.training.settings import ModelSettings

ROWS = ("B5",)
CLAIM = "Scale to 0..1 for a sigmoid, to -1..1 for tanh, and to mean 0 and variance 1 for others"
TABLES, DIVISIONS = ("wine", "breast_cancer"), 3
TRANSFORMS = ("none", "unit", "symmetric", "standardize")
CLAIMED = {"sigmoid": "unit", "tanh": "symmetric", "relu": "standardize"}


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    return [_row(seed, activation, transform) for activation in CLAIMED for transform in TRANSFORMS]


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    holds: bool | None = True
    parts = []
    for activation, claimed in CLAIMED.items():
        scaled = {name: f"{activation}, {name}" for name in TRANSFORMS}
        raw = against(rows, "loss", scaled[claimed], scaled["none"])
        best = min(TRANSFORMS, key=lambda name: mean_of(rows, "loss", scaled[name]))
        parts.append(f"{activation}: {claimed} {raw} against none")
        if best != claimed:
            behind = against(rows, "loss", scaled[claimed], scaled[best])
            parts[-1] += f", but {behind} against {best}"
            holds = False if behind.sure > 0 else (None if holds else holds)
        if raw.sure >= 0:
            holds = False
    return Verdict(holds=holds, sentence="test loss of " + "; ".join(parts), metric="loss")


def _row(seed: int, activation: str, transform: str) -> dict[str, Any]:
    sigmoid = activation == "sigmoid"
    model = ModelSettings(width=32, depth=1, activation="tanh" if sigmoid else activation)
    figures = [
        measured(
            table, transform, model, 10 * seed + part, replaced=(nn.Tanh, nn.Sigmoid) if sigmoid else None
        )
        for table in TABLES
        for part in range(DIVISIONS)
    ]
    accuracy, loss = np.mean(figures, axis=0)
    return {"variant": f"{activation}, {transform}", "accuracy": float(accuracy), "loss": float(loss)}
