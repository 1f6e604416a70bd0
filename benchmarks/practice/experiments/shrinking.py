"""Twenty-four random settings of an mlp, trained on a part of the data or of the classes, and on all of it.

What varies is the learning rate, weight decay, width, dropout and batch size. Kendall's tau says how far the
two rankings agree, and `best` where the setting that the part likes best stands among all at full scale, from
0 (the best) to 1.

Data: 6,000 images of MNIST where they are given, else scikit-learn's digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from job import dataset, train
from report import Verdict
from scipy.stats import kendalltau

from orchestrator.planning.sampling.samplers import sample
from orchestrator.space import CHOICE, FLOAT, Parameter

ROWS = ("A2", "A3")
CLAIM = "Shrinking the data to a tenth, and the classes to two, keeps the ranking of settings"
SETTINGS = 24
SPACE = (
    Parameter(name="optimizer__lr", kind=FLOAT, low=1e-4, high=1.0, log=True),
    Parameter(name="optimizer__weight_decay", kind=FLOAT, low=1e-6, high=1e-1, log=True),
    Parameter(name="model__width", kind=CHOICE, values=(8, 16, 32, 64), ordered=True),
    Parameter(name="model__dropout", kind=FLOAT, low=0.0, high=0.7),
    Parameter(name="batch_size", kind=CHOICE, values=(32, 64, 128, 256), ordered=True),
)
PARTS: dict[str, dict[str, Any]] = {
    "all of it, another seed": {"fraction": 1.0},
    "30% of the data": {"fraction": 0.3},
    "10% of the data": {"fraction": 0.1},
    "3% of the data": {"fraction": 0.03},
    "5 of 10 classes": {"classes": 5},
    "2 of 10 classes": {"classes": 2},
    "10% of the data, 2 classes": {"fraction": 0.1, "classes": 2},
}


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    whole = _whole(data)
    settings = sample(SPACE, SETTINGS, "random", seed)
    full = [_train(whole, setting, seed) for setting in settings]
    rows = []
    for name, part in PARTS.items():
        small = [_train({**whole, **part}, setting, seed + 1000) for setting in settings]
        place = float(np.mean(np.array(full) > full[int(np.argmax(small))]))
        rows.append({"variant": name, "tau": float(kendalltau(full, small).statistic), "best": place})
    return rows


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    means = {name: np.mean([row["tau"] for row in rows if row["variant"] == name]) for name in PARTS}
    tenth, few = means["10% of the data"], means["2 of 10 classes"]
    ceiling = means["all of it, another seed"]
    return Verdict(
        holds=bool(tenth > 0.5 and few > 0.3),
        sentence=f"tau with full scale: {tenth:.2f} at 10% of the data, {means['3% of the data']:.2f} at 3%; "
        f"{means['5 of 10 classes']:.2f} with 5 of 10 classes, and {few:.2f} with the first 2, which nearly "
        f"every setting tells apart; {ceiling:.2f} is what another seed at full scale gives",
        metric="tau",
    )


def _whole(data: Path | None) -> dict[str, Any]:
    if data is None:
        return dataset("digits")
    mnist = dataset("npz", path=str(data / "mnist.npz"), inputs="x_test", labels="y_test")
    return {**mnist, "split": {"validation": 0.2, "test": 0.2, "seed": 0}}


def _train(data: dict[str, Any], setting: dict[str, Any], seed: int) -> float:
    accuracy = train(data, **setting, epochs=4, seed=seed)["val/accuracy"]
    return accuracy if accuracy == accuracy else 0.0
