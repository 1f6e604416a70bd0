"""Adam, SGD, and Adam first, then SGD after 12 of 30 epochs or after the first plateau.

See curves.py for data and metrics. Adam at 1e-3, SGD at 0.05 with momentum 0.9; after a switch SGD has ten
times Adam's rate. The claim is about what generalizes: loss and accuracy on the validation part at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compare import against
from curves import digits, last
from report import Verdict

ROWS = ("C2",)
CLAIM = "Adam first, then SGD once near convergence, ends better than Adam alone"
VARIANTS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer__lr": 1e-3},
    "sgd": {"optimizer__name": "sgd", "optimizer__lr": 0.05},
    "adam, sgd after 12 epochs": {
        "optimizer__lr": 1e-3,
        "optimizer__switch__to": "sgd",
        "optimizer__switch__at": 12,
    },
    "adam, sgd after a plateau": {"optimizer__lr": 1e-3, "optimizer__switch__to": "sgd"},
}


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    with digits(seed, data) as samples:
        return [
            {"variant": name, **last(samples, seed, epochs=30, **changes)}
            for name, changes in VARIANTS.items()
        ]


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    switched = [name for name in VARIANTS if name.startswith("adam, ")]
    loss = {name: against(rows, "val_loss", name, "adam") for name in (*switched, "sgd")}
    right = {name: against(rows, "accuracy", name, "adam") for name in (*switched, "sgd")}
    signs = [right[name].sure for name in switched] + [-loss[name].sure for name in switched]
    holds = None if not any(signs) or {1, -1} <= set(signs) else max(signs) > 0
    parts = [f"{name}: accuracy {right[name]}, loss {loss[name]}" for name in loss]
    return Verdict(holds=holds, sentence="over adam: " + "; ".join(parts), metric="val_loss")
