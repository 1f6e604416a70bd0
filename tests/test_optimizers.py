"""Optimizers: torch's own with the settings' numbers, and the switch from one to another."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from orchestrator.errors import UserError
from orchestrator.training.optimizers import OPTIMIZERS, build_optimizer
from orchestrator.training.schedules import build_schedule
from orchestrator.training.settings import OptimizerSettings, ScheduleSettings, SwitchSettings
from orchestrator.training.switch import Switch, after_switch, build_switch

ADAM_THEN_SGD = OptimizerSettings(switch=SwitchSettings(to="sgd"))


def steps(make: Any, count: int = 5) -> torch.Tensor:
    """Return weights after some updates on a bowl."""
    weights = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = make([weights])
    for _ in range(count):
        optimizer.zero_grad()
        (weights.square() * torch.tensor([1.0, 10.0])).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (OptimizerSettings(name="sgd"), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
        (
            OptimizerSettings(name="sgd", nesterov=True, momentum=0.5, weight_decay=0.1),
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5, nesterov=True, weight_decay=0.1),
        ),
        (OptimizerSettings(name="sgd", nesterov=True, momentum=0.0), lambda p: torch.optim.SGD(p, lr=0.01)),
        (OptimizerSettings(name="adam"), lambda p: torch.optim.Adam(p, 0.01, (0.9, 0.999), 1e-8)),
        (
            OptimizerSettings(name="adam", beta1=0.8, beta2=0.9, eps=0.1),
            lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.9), 0.1),
        ),
        (
            OptimizerSettings(name="adamw", weight_decay=0.3),
            lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
        ),
        (OptimizerSettings(name="rmsprop"), lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.99)),
        (OptimizerSettings(name="rmsprop", alpha=0.5), lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.5)),
        (OptimizerSettings(name="adagrad"), lambda p: torch.optim.Adagrad(p, lr=0.01, eps=1e-10)),
        (OptimizerSettings(name="adadelta"), lambda p: torch.optim.Adadelta(p, 0.01, rho=0.95, eps=1e-6)),
        (
            OptimizerSettings(name="adadelta", rho=0.9, eps=0.01),
            lambda p: torch.optim.Adadelta(p, 0.01, rho=0.9, eps=0.01),
        ),
    ],
)
def test_each_optimizer_has_the_settings_numbers(settings: OptimizerSettings, expected: Any) -> None:
    assert steps(lambda given: build_optimizer(given, replace(settings, lr=0.01))).equal(steps(expected))


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_each_optimizer_goes_down(name: str) -> None:
    rate = {"adadelta": 10.0, "adagrad": 0.3, "sgd": 0.01}.get(name, 0.1)
    weights = steps(lambda given: build_optimizer(given, OptimizerSettings(name=name, lr=rate)), 60)
    assert weights.abs().max() < 0.5


def test_groups_keep_their_own_rates() -> None:
    one, two = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups: list[dict[str, Any]] = [{"params": [one], "lr": 0.5}, {"params": [two]}]
    optimizer = build_optimizer(groups, OptimizerSettings(lr=0.1))
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "adagard"}, "Did you mean 'adagrad'"),
        ({"lr": -1.0}, "optimizer.lr: -1.0 is negative"),
        ({"lr": math.nan}, "optimizer.lr"),
        ({"momentum": 1.0}, "optimizer.momentum: 1.0 is not from 0 to below 1"),
        ({"beta2": 1.0}, "optimizer.beta2"),
        ({"rho": -0.1}, "optimizer.rho"),
        ({"eps": 0.0}, "optimizer.eps: 0.0 is not above 0"),
        ({"clip": -5.0}, "optimizer.clip"),
        ({"momentum_start": 0.5}, "momentum_start: grows the momentum of sgd, and the optimizer is adam"),
    ],
)
def test_numbers_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_optimizer([nn.Parameter(torch.zeros(1))], OptimizerSettings(**changes))


def test_a_model_without_parameters() -> None:
    with pytest.raises(UserError, match="nothing to train"):
        build_optimizer(nn.Flatten().parameters(), OptimizerSettings())


def switched(settings: OptimizerSettings, losses: list[float]) -> list[int]:
    """Return the epochs at which a switch is due."""
    switch = build_switch(settings)
    assert switch is not None
    return [epoch for epoch, loss in enumerate(losses, 1) if switch.due(epoch, loss)]


def test_when_it_switches() -> None:
    falling = [1 / epoch for epoch in range(1, 9)]
    at = replace(ADAM_THEN_SGD, switch=SwitchSettings(to="sgd", at=3))
    assert switched(at, falling) == [3]
    assert switched(ADAM_THEN_SGD, falling) == []
    assert switched(ADAM_THEN_SGD, [5, 4, 4, 4.1, 3.9, 4, 4, 4, 4]) == [8]
    assert switched(ADAM_THEN_SGD, [5, math.nan, math.nan, math.nan]) == [4]
    assert build_switch(OptimizerSettings()) is None


@pytest.mark.parametrize(
    ("name", "to", "lr", "expected"),
    [
        ("adam", "sgd", None, [0.1, 0.05]),
        ("adam", "adamw", None, [0.01, 0.005]),
        ("sgd", "adam", None, [0.01, 0.005]),
        ("adam", "sgd", 0.3, [0.3, 0.15]),
    ],
)
def test_rates_after_a_switch(name: str, to: str, lr: float | None, expected: list[float]) -> None:
    settings = OptimizerSettings(name=name, momentum=0.7, switch=SwitchSettings(to=to, lr=lr))
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (0.01, 0.005)]
    switch = build_switch(settings)
    assert switch is not None
    optimizer = switch.make(build_optimizer(groups, settings))
    assert isinstance(
        optimizer, {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[to]
    )
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
    assert to != "sgd" or optimizer.param_groups[0]["momentum"] == 0.7


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        (SwitchSettings(to="sdg"), "optimizer.switch.to: .* Did you mean 'sgd'"),
        (SwitchSettings(to="sgd", patience=0), "optimizer.switch.patience: 0 is below 1"),
        (SwitchSettings(to="sgd", lr=-0.1), "optimizer.switch.lr: -0.1 is negative"),
    ],
)
def test_a_switch_that_cannot_be(switch: SwitchSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_switch(OptimizerSettings(switch=switch))


class Loop:
    """The least of a loop that switches, as switch.py says; six epochs of three updates."""

    schedule_settings = ScheduleSettings(name="cosine", warmup_epochs=1.0)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 3)
        settings = replace(ADAM_THEN_SGD, lr=0.05, switch=SwitchSettings(to="sgd", at=3))
        self.optimizer: Optimizer = build_optimizer(self.model.parameters(), settings)
        self.schedule = build_schedule(self.optimizer, self.schedule_settings, epochs=6, epoch_updates=3)
        switch = build_switch(settings)
        assert switch is not None
        self.switch: Switch = switch

    def take_over(self, epoch: int) -> None:
        self.optimizer = self.switch.make(self.optimizer)
        left = after_switch(self.schedule_settings)
        self.schedule = build_schedule(self.optimizer, left, epochs=6 - epoch, epoch_updates=3)

    def epoch(self, epoch: int) -> None:
        data = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(epoch))
        for inputs in data:
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(inputs), inputs.argmax(1).clamp(max=2))
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            assert self.schedule is not None
            self.schedule.step()
        if self.switch.due(epoch, 1 / epoch):
            self.take_over(epoch)

    def save(self) -> bytes:
        file = io.BytesIO()
        assert self.schedule is not None
        parts = {"model": self.model, "optimizer": self.optimizer}
        states = {key: part.state_dict() for key, part in (parts | {"schedule": self.schedule}).items()}  # type: ignore[attr-defined]
        torch.save(states | {"switch": self.switch.state_dict()}, file)
        return file.getvalue()

    def resume(self, content: bytes) -> None:
        state = torch.load(io.BytesIO(content), weights_only=True)
        self.switch.load_state_dict(state["switch"])
        if self.switch.switched_at is not None:
            self.take_over(self.switch.switched_at)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        assert self.schedule is not None
        self.schedule.load_state_dict(state["schedule"])


@pytest.mark.parametrize("stop_after", range(6))
def test_a_run_that_switches_is_taken_up_with_the_same_bits(stop_after: int) -> None:
    whole, first, second = Loop(), Loop(), Loop()
    for epoch in range(1, 7):
        whole.epoch(epoch)
    for epoch in range(1, stop_after + 1):
        first.epoch(epoch)
    second.resume(first.save())
    for epoch in range(stop_after + 1, 7):
        second.epoch(epoch)
    assert isinstance(whole.optimizer, torch.optim.SGD)
    assert second.model.weight.equal(whole.model.weight)
