"""An mlp on scikit-learn's digits with five parameters of which few matter.

Each method proposes 32 settings: a grid (two values of each), points at random, quasi-random points (sobol),
and this project's model, which learns in four rounds of eight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from job import dataset, train
from report import Verdict, paired

from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.samplers import sample
from orchestrator.space import FLOAT, INT, Parameter

ROWS = ("A9",)
CLAIM = "Random search beats a grid, and search that learns beats both"
TRIALS, ROUNDS = 32, 4
SPACE = (
    Parameter(name="optimizer__lr", kind=FLOAT, low=1e-5, high=3.0, log=True),
    Parameter(name="optimizer__weight_decay", kind=FLOAT, low=1e-6, high=1e-1, log=True),
    Parameter(name="model__width", kind=INT, low=4, high=64, log=True),
    Parameter(name="model__dropout", kind=FLOAT, low=0.0, high=0.8),
    Parameter(name="loss__label_smoothing", kind=FLOAT, low=0.0, high=0.3),
)


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    rows = []
    for method in ("grid", "random", "sobol", "model"):
        rounds = ROUNDS if method == "model" else 1
        history: list[Observation] = []
        for turn in range(rounds):
            drawn = sample(SPACE, TRIALS // rounds, method, seed * 100 + turn, history)
            history += [Observation(setting, _loss(setting, seed), scale=1.0) for setting in drawn]
        rows.append(
            {"variant": method, "validation loss of the best": -max(one.objective for one in history)}
        )
    return rows


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    metric = "validation loss of the best"
    random_gain, random_error = paired(rows, metric, "random", "grid")
    gain, error = paired(rows, metric, "model", "random")
    beats = random_gain < -2 * random_error, gain < -2 * error
    return Verdict(
        holds=True if all(beats) else False if random_gain > 0 or gain > 0 else None,
        sentence=f"validation loss: random - grid {random_gain:+.3f} ± {random_error:.3f}, "
        f"model - random {gain:+.3f} ± {error:.3f}, {TRIALS} trainings each",
        metric=metric,
    )


def _loss(setting: dict[str, Any], seed: int) -> float:
    loss = train(dataset("digits"), **setting, epochs=5, batch_size=64, seed=seed)["val/loss"]
    return -loss if loss == loss else -10.0
