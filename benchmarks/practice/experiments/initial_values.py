"""Ten hidden layers with ReLU or tanh, begun in four ways.

See curves.py for data and metrics. SGD with momentum 0.9 for 6 epochs at rates 0.001, 0.01 and 0.1: each
variant has the one of these that gave it the best accuracy, so that no way to begin suffers from a rate that
suits another one. `normal` is small, with a deviation of 0.01.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compare import against
from curves import digits, last
from report import Verdict

ROWS = ("C6",)
CLAIM = "He's initial values suit ReLU, Xavier's tanh; small normal ones fail in deep networks"
ACTIVATIONS, INITS = ("relu", "tanh"), ("he_normal", "xavier_uniform", "orthogonal", "normal")
RATES = (0.001, 0.01, 0.1)


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    rows = []
    with digits(seed, data) as samples:
        for activation in ACTIVATIONS:
            for init in INITS:
                ends = [
                    last(
                        samples,
                        seed,
                        epochs=6,
                        model__depth=10,
                        model__activation=activation,
                        model__init=init,
                        optimizer__name="sgd",
                        optimizer__lr=rate,
                    )
                    for rate in RATES
                ]
                rows.append(
                    {"variant": f"{activation}, {init}", **max(ends, key=lambda end: end["accuracy"])}
                )
    return rows


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    pairs = {
        "relu: He over Xavier": ("relu, he_normal", "relu, xavier_uniform"),
        "tanh: Xavier over He": ("tanh, xavier_uniform", "tanh, he_normal"),
        "relu: He over small normal": ("relu, he_normal", "relu, normal"),
        "tanh: Xavier over small normal": ("tanh, xavier_uniform", "tanh, normal"),
        "tanh: orthogonal over Xavier": ("tanh, orthogonal", "tanh, xavier_uniform"),
    }
    found = {name: against(rows, "accuracy", one, other) for name, (one, other) in pairs.items()}
    sure = [gap.sure for name, gap in found.items() if "orthogonal" not in name]
    holds = True if all(each > 0 for each in sure) else False if any(each < 0 for each in sure) else None
    sentence = "accuracy, " + "; ".join(f"{name} {gap}" for name, gap in found.items())
    return Verdict(holds=holds, sentence=sentence, metric="accuracy")
