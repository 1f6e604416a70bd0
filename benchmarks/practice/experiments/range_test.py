"""A learning-rate range test against a plain sweep over the learning rate, on four tasks.

Each rate of the sweep, four to a decade, is trained for many epochs; its result is the best epoch's
validation loss. The range test has 200 updates from three orders of the samples. `inside` says whether the
best swept rate lies between the test's bounds, `near` whether a rate whose loss is within 5% of it does.
`share` is the best swept rate over the upper bound, the practice's "half of the largest that converges", and
`regret` by how much the validation loss of the rate that the test proposes is above that of the best swept
one (below zero where it lies better between the grid's points); beside it the same of half and of a tenth
of the upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
import torch
from report import Verdict
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.checks.range_test import range_test
from orchestrator.checks.setup import Setup

ROWS = ("C4",)
CLAIM = "The best learning rate lies between the bounds of a range test"
RATES = tuple(float(rate) for rate in np.geomspace(1e-5, 10.0, 25))
AS_GOOD = 1.05


@dataclass(frozen=True)
class Task:
    data: str
    model: Callable[[], nn.Module]
    optimizer: Callable[..., torch.optim.Optimizer]
    epochs: int
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy


def mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs[:, 0], targets)


def sgd(parameters: Any, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


TASKS = {
    "digits, mlp, adam": Task("digits", lambda: mlp(64, 10), torch.optim.Adam, 12),
    "digits, cnn, sgd": Task("digits", cnn, sgd, 8),
    "breast cancer, mlp, sgd": Task("breast_cancer", lambda: mlp(30, 2), sgd, 25),
    "diabetes, mlp, adam": Task("diabetes", lambda: mlp(10, 1), torch.optim.Adam, 25, squared),
}  # fmt: skip


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [{"variant": name, **_compare(task, seed)} for name, task in TASKS.items()]
    finally:
        torch.set_num_threads(threads)


def _compare(task: Task, seed: int) -> dict[str, Any]:
    setup = _setup(task, seed)
    found = range_test(lambda: setup, seeds=range(3 * seed, 3 * seed + 3))
    losses = {rate: _trained(task, setup, seed, rate) for rate in RATES}
    best = min(losses, key=lambda rate: losses[rate])
    low, high = found.low or math.nan, found.high or math.nan
    proposed = _trained(task, setup, seed, found.best) if found.best else math.inf
    good = [rate for rate, loss in losses.items() if loss <= AS_GOOD * losses[best]]
    return {
        "low": low,
        "high": high,
        "proposed": found.best or math.nan,
        "best": best,
        "inside": float(low <= best <= high),
        "near": float(any(low <= rate <= high for rate in good)),
        "share": best / high,
        "regret": proposed / losses[best] - 1,
        "regret_half": _trained(task, setup, seed, high / 2) / losses[best] - 1,
        "regret_tenth": _trained(task, setup, seed, high / 10) / losses[best] - 1,
    }


def _setup(task: Task, seed: int) -> Setup:
    bunch = getattr(sklearn.datasets, f"load_{task.data}")()
    order = np.random.default_rng(seed).permutation(len(bunch.target))
    cut = round(0.7 * len(order))
    inputs = torch.tensor(bunch.data, dtype=torch.float32)[order]
    inputs = (
        (inputs - inputs[:cut].mean(0)) / (inputs[:cut].std(0) + 1e-6)
        if task.data != "digits"
        else inputs / 16
    )
    targets = torch.tensor(bunch.target)[order]
    if targets.is_floating_point():
        targets = ((targets - targets[:cut].mean()) / targets[:cut].std()).float()
    torch.manual_seed(seed)
    return Setup(
        model=task.model(),
        loss=task.loss,
        inputs=inputs[:cut],
        targets=targets[:cut],
        optimizer=task.optimizer,
        validation=(inputs[cut:], targets[cut:]),
    )


def _trained(task: Task, setup: Setup, seed: int, rate: float) -> float:
    """Return the validation loss of the best epoch."""
    torch.manual_seed(seed)
    model = task.model()
    optimizer = task.optimizer(model.parameters(), lr=rate)
    assert setup.validation is not None
    best = math.inf
    for _ in range(task.epochs):
        for rows in torch.randperm(len(setup.inputs)).split(64):
            optimizer.zero_grad()
            loss = setup.loss(model(setup.inputs[rows]), setup.targets[rows])
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            measured = float(setup.loss(model(setup.validation[0]), setup.validation[1]))
        if not math.isfinite(measured):
            return best if math.isfinite(best) else 1e9
        best = min(best, measured)
    return best


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    inside, near = (float(np.mean([row[key] for row in rows])) for key in ("inside", "near"))
    shares = np.log10([row["share"] for row in rows])
    middle, error = shares.mean(), shares.std(ddof=1) / np.sqrt(len(shares))
    regret, half, tenth = (
        float(np.median([row[key] for row in rows])) for key in ("regret", "regret_half", "regret_tenth")
    )
    sentence = (
        f"the best of 25 swept rates lies inside in {inside:.0%} of {len(rows)} runs, one as good within 5% "
        f"in {near:.0%}. That it is often half of the largest rate that converges does not hold: it is "
        f"{10**middle:.2f} of it (×/÷ {10**error:.2f}), and half has a validation loss {half:.0%} above the "
        f"best (median), a tenth {tenth:.0%}, the share that the test proposes {regret:.0%}"
    )
    return Verdict(holds=inside >= 0.9, sentence=sentence, metric="share")
