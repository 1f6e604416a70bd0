"""The learning-rate range test: its bounds on made curves, and on tasks whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from orchestrator.checks.range_test import BEST_SHARE, bounds, range_test
from orchestrator.checks.setup import Setup
from orchestrator.errors import UserError


def curve(rates: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Flat at 2, falling to 1 between two rates, rising after."""
    logs = np.log10(rates)
    fall = np.clip((logs - np.log10(low)) / (np.log10(high) - np.log10(low)), 0, 1)
    curve: NDArray[np.float64] = 2 - fall + 3 * np.clip(logs - np.log10(high), 0, None)
    return curve


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-5.5, -3.0),
    width=st.floats(1.0, 3.0),
    seed=st.integers(0, 1000),
    scale=st.floats(1e-3, 1e3),
)
def test_bounds_are_where_the_loss_begins_to_fall_and_to_rise(
    low: float, width: float, seed: int, scale: float
) -> None:
    rates = np.geomspace(1e-7, 10, 200)
    noise = np.random.default_rng(seed).normal(0, 0.02, len(rates))
    found = bounds(rates, scale * (curve(rates, 10**low, 10 ** (low + width)) + noise))
    assert found is not None
    assert abs(np.log10(found[0]) - low) < 0.4
    assert abs(np.log10(found[1]) - (low + width)) < 0.4


def test_a_loss_that_never_falls_has_no_bounds() -> None:
    rates = np.geomspace(1e-7, 10, 200)
    noise = np.random.default_rng(0).normal(0, 0.02, len(rates))
    assert bounds(rates, 2 + noise) is None
    assert bounds(rates, np.linspace(2, 4, 200)) is None
    assert bounds(rates[:5], np.array([5.0, 4, 3, 2, 1])) is None


def quadratic(curvature: float) -> Callable[[], Setup]:
    """Least squares with an optimizer without momentum: it converges below 2 / curvature."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(512, 1, generator=generator) * curvature**0.5
    targets = torch.randn(512, 1, generator=generator) / 2
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    # Half the squared error has the inputs' second moment as its curvature.
    return lambda: Setup(
        model=model,
        loss=lambda outputs, targets: ((outputs - targets) ** 2).mean() / 2,
        inputs=inputs,
        targets=targets,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
    )


@pytest.mark.parametrize("curvature", [1.0, 100.0])
def test_the_upper_bound_is_where_descent_diverges(curvature: float) -> None:
    found = range_test(quadratic(curvature))
    assert found.low is not None and found.high is not None and found.best is not None
    assert 0.5 < found.high * curvature / 2 < 3.0
    assert found.low < found.best == pytest.approx(BEST_SHARE * found.high) or found.best == found.low


def digits(loss: nn.Module | None = None) -> Setup:
    data = load_digits()
    torch.manual_seed(0)
    return Setup(
        model=nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
        loss=loss or nn.CrossEntropyLoss(),
        inputs=torch.tensor(data.data / 16, dtype=torch.float32)[:600],
        targets=torch.tensor(data.target)[:600],
    )


def test_a_rate_between_the_bounds_learns_more_than_one_outside() -> None:
    setup = digits()
    found = range_test(lambda: setup)
    assert found.low is not None and found.high is not None and found.best is not None
    assert 0.8 < max(found.accuracies) <= 1 and len(found.accuracies) == len(found.rates)

    def after(rate: float) -> float:
        model = digits().model
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        torch.manual_seed(1)
        for _ in range(3):
            for rows in torch.split(torch.randperm(600), 64):
                optimizer.zero_grad()
                loss = setup.loss(model(setup.inputs[rows]), setup.targets[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        with torch.no_grad():
            return float(setup.loss(model(setup.inputs), setup.targets))

    best, below, above = (after(rate) for rate in (found.best, found.low / 5, found.high * 5))
    assert best < below and best < above


def test_it_is_the_same_each_time_changes_nothing_and_fits_json() -> None:
    setup = digits()
    before = setup.model.state_dict()["0.weight"].clone()
    state = torch.get_rng_state()
    found = range_test(lambda: setup, steps=60, seeds=(4,))
    assert found == range_test(digits, steps=60, seeds=(4,))
    assert torch.equal(before, setup.model.state_dict()["0.weight"])
    assert torch.equal(state, torch.get_rng_state())
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["low"] == found.low and len(told["rates"]) == len(told["losses"]) == len(told["smoothed"])


def test_rates_of_layers_keep_their_proportions() -> None:
    seen: list[tuple[float, float]] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            seen.append((self.param_groups[0]["lr"], self.param_groups[1]["lr"]))
            super().step()

    def two(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        first, *rest = parameters
        return Watched([{"params": [first], "lr": 0.01}, {"params": rest, "lr": 0.1}], lr=1.0)

    setup = digits()
    range_test(
        lambda: replace(setup, optimizer=two),
        steps=20, seeds=(0,), low=1e-4, high=1e-2,
    )  # fmt: skip
    assert [high for _, high in seen] == pytest.approx(np.geomspace(1e-4, 1e-2, 20).tolist())
    assert all(low == pytest.approx(high / 10) for low, high in seen)


def test_a_loss_that_is_never_finite_has_no_bounds() -> None:
    class Never(nn.Module):
        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return outputs.sum() * float("nan")

    found = range_test(lambda: digits(Never()), steps=20)
    assert (found.low, found.high, found.best, found.exploded) == (None, None, None, True)
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("wrong", [{"low": 1.0, "high": 0.1}, {"low": 0.0}, {"steps": 3}, {"seeds": ()}])
def test_what_makes_no_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError):
        range_test(digits, **wrong)  # type: ignore[arg-type]
