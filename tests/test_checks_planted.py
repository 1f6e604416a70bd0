"""Each sanity check against a bug that was planted for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from orchestrator.checks.run import CHECKS, run_checks
from orchestrator.checks.setup import Setup

SLOW = ("D7", "D10")
NOT_D10 = tuple(name for name in CHECKS if name != "D10")
Make = Callable[[], Setup]


def digits(count: int = 300) -> tuple[Tensor, Tensor]:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))[:count]
    return torch.tensor(data.data / 16, dtype=torch.float32)[order], torch.tensor(data.target)[order]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


def sound(**other: Any) -> Setup:
    inputs, targets = digits()
    whole: dict[str, Any] = {
        "model": net(),
        "loss": nn.CrossEntropyLoss(),
        "inputs": inputs,
        "targets": targets,
    }
    return Setup(**{**whole, **other})


def failures(make: Make, *, skip: tuple[str, ...] = SLOW, **other: Any) -> dict[str, str]:
    results = run_checks(make, skip=skip, **other)
    assert [result.id for result in results] == list(CHECKS)
    return {
        result.id: f"{result.saw} | {result.cause} | {result.next}"
        for result in results
        if result.passed is False
    }


def test_nothing_is_wrong_with_the_set_up_that_bugs_are_planted_in() -> None:
    assert failures(sound, skip=()) == {}


def test_samples_that_are_sorted_by_class_are_no_bug() -> None:
    inputs, targets = digits()
    order = targets.argsort()
    assert failures(lambda: sound(inputs=inputs[order], targets=targets[order]), skip=()) == {}


def test_labels_shuffled_against_inputs() -> None:
    inputs, targets = digits()
    shuffled = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))]
    found = failures(lambda: sound(targets=shuffled), skip=())
    assert set(found) == {"D10"} and "labels shuffled against their inputs" in found["D10"]
    few = run_checks(lambda: sound(inputs=inputs[:120], targets=shuffled[:120]), skip=NOT_D10)
    assert [(one.passed, "too few" in one.saw) for one in few if one.id == "D10"] == [(None, True)]
    half = inputs[:200], shuffled[:200]
    found = failures(lambda: sound(validation=half), skip=NOT_D10)
    assert set(found) == {"D10"} and "validation labels" in found["D10"]


def test_softmax_twice() -> None:
    found = failures(lambda: sound(model=nn.Sequential(net(), nn.Softmax(1))), skip=(*SLOW, "D2", "D3"))
    assert "drop its last softmax" in found["D11"]
    _, targets = digits()
    binary = (targets > 4).float()[:, None]
    model = nn.Sequential(net(), nn.Linear(10, 1), nn.Sigmoid())
    found = failures(
        lambda: sound(model=model, targets=binary, loss=nn.BCEWithLogitsLoss()), skip=(*SLOW, "D2", "D3")
    )
    assert "drop its last sigmoid" in found["D11"]


class OverBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.std(0) + 1e-5)


class WrongView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.t().reshape(x.shape)


class InTraining(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0) if self.training else x


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.LSTM(8, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x.reshape(-1, 8, 8))[0][:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("leak", "where"),
    [(OverBatch, "1 (OverBatch)"), (WrongView, "1 (WrongView)"), (InTraining, "training mode")],
)
def test_a_leak_across_the_batch(leak: type[nn.Module], where: str) -> None:
    def make() -> Setup:
        first, *rest = net()
        return sound(model=nn.Sequential(first, leak(), *rest))

    assert where in failures(make)["D4"]


def test_a_recurrent_layer_that_takes_the_batch_for_time() -> None:
    def make() -> Setup:
        torch.manual_seed(0)
        return sound(model=TimeFirst())

    assert "batch_first" in failures(make)["D4"]


class Dropped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def test_inputs_that_do_not_arrive() -> None:
    found = failures(lambda: sound(model=nn.Sequential(Dropped(), net())))
    assert "zeroed" in found["D2"] and "D6" not in found
    inputs, _ = digits()
    found = failures(lambda: sound(inputs=torch.zeros_like(inputs)), skip=(*SLOW, "D9"))
    assert {"D2", "D6"} <= set(found)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


def test_frozen_layers() -> None:
    def without_gradient(*layers: int) -> nn.Sequential:
        model = net()
        for layer in layers:
            model[layer].requires_grad_(False)
        return model

    found = failures(lambda: sound(model=without_gradient(2)))
    assert set(found) == {"D9"} and "'2' has requires_grad=False" in found["D9"]
    assert failures(lambda: sound(model=without_gradient(0, 2), frozen=True)) == {}
    first, second, *rest = net()
    found = failures(lambda: sound(model=nn.Sequential(first, second, Detached(), *rest)), skip=(*SLOW, "D8"))
    assert set(found) == {"D9"} and "no gradient reaches '0'" in found["D9"]
    assert "D0" in failures(lambda: sound(model=without_gradient(0, 2, 4)))


def test_an_optimizer_that_has_one_layer_alone() -> None:
    found = failures(lambda: sound(optimizer=lambda given: torch.optim.SGD(list(given)[-2:], lr=0.1)))
    assert set(found) == {"D9"} and "model.parameters()" in found["D9"]


def test_a_wrong_bias() -> None:
    def make() -> Setup:
        model = net()
        with torch.no_grad():
            model[4].bias[3] += 6  # type: ignore[index, operator]
        return sound(model=model)

    found = failures(make)
    assert set(found) == {"D1"} and "all samples lean to output 3" in found["D1"]


def test_the_odds_of_classes_in_another_order() -> None:
    _, targets = digits()
    rare = (targets == 0).long()

    def make(shares: tuple[float, float]) -> Setup:
        model = nn.Sequential(net(), nn.ReLU(), nn.Linear(10, 2))
        with torch.no_grad():
            model[2].bias.copy_(torch.tensor(shares).log())  # type: ignore[operator]
        return sound(model=model, targets=rare)

    assert failures(lambda: make((0.9, 0.1))) == {}
    assert set(failures(lambda: make((0.1, 0.9)))) == {"D1"}


def test_targets_far_from_zero() -> None:
    data = load_diabetes()
    inputs = torch.tensor(data.data / data.data.std(0), dtype=torch.float32)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))
    values = torch.tensor(data.target, dtype=torch.float32)
    far = Setup(model=model, loss=nn.MSELoss(), inputs=inputs, targets=values + 1000)
    assert "Standardize the targets" in failures(lambda: far, skip=(*SLOW, "D3"))["D1"]
    near = replace(far, targets=(values - values.mean()) / values.std())
    assert failures(lambda: near, skip=()) == {}


class Noisy(Dataset[Tensor]):
    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> Tensor:
        return self.inputs[row] + torch.randn(64) / 100


def test_a_worker_without_a_seed() -> None:
    inputs, targets = digits(64)

    def make(seed: int | None) -> Setup:
        if seed is not None:
            torch.manual_seed(seed)
        loader = DataLoader(Noisy(inputs), batch_size=64, num_workers=1)
        return sound(inputs=next(iter(loader)), targets=targets)

    others = tuple(name for name in CHECKS if name != "D5")
    assert failures(lambda: make(0), skip=others) == {}
    found = failures(lambda: make(None), skip=others)
    assert "100% of the training inputs differ" in found["D5"] and "workers" in found["D5"]


def test_a_model_that_is_built_before_the_seed() -> None:
    found = failures(lambda: sound(model=nn.Sequential(nn.Linear(64, 10))))
    assert set(found) == {"D5"} and "initial values of 0.weight" in found["D5"]


def test_training_that_differs_from_run_to_run() -> None:
    metrics = iter([{"loss": 1.0}, {"loss": 1.0000001}])
    assert "trained twice" in failures(sound, train_twice=lambda: next(metrics))["D5"]
    assert failures(sound, train_twice=lambda: {"loss": float("nan")}) == {}


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda o, t: functional.cross_entropy(o.detach(), t), "detached loss"),
        (lambda o, t: functional.cross_entropy(o, t).item(), "detached loss"),
        (lambda o, t: functional.cross_entropy(o, t, reduction="none"), "loss.mean()"),
        (lambda o, t: -functional.cross_entropy(o, t), "wrong sign"),
        (lambda o, t: functional.cross_entropy(o, t) / (o * 0).sum(), "division of zero"),
        (lambda o, t: o.nothing(t), "it raised AttributeError"),
    ],
)
def test_a_loss_that_is_none(loss: Any, told: str) -> None:
    found = failures(lambda: sound(loss=loss))
    assert told in found["D0"] and set(found) == {"D0"}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: nn.Linear(64, 9), "9 outputs, and there are 10 classes"),
        (lambda: nn.Sequential(net(), nn.Flatten(0)), "3000,"),
        (lambda: nn.LSTM(64, 10), "returns tuple"),
        (lambda: nn.Linear(63, 10), "it raised RuntimeError"),
    ],
)
def test_outputs_that_do_not_fit(model: Callable[[], nn.Module], told: str) -> None:
    found = failures(lambda: sound(model=model()))
    assert told in found["D0"] and set(found) == {"D0"}


def test_values_that_are_compared_with_all_others() -> None:
    _, targets = digits()
    values = (targets - 4.5) / 3
    model = nn.Sequential(net(), nn.Linear(10, 1))
    found = failures(lambda: sound(model=model, targets=values, loss=nn.MSELoss()))
    assert "squeeze" in found["D0"]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Doubled.apply(x)  # type: ignore[no-untyped-call, no-any-return]


def test_a_backward_that_is_not_the_derivative() -> None:
    first, _, *rest = net()
    found = failures(lambda: sound(model=nn.Sequential(first, Own(), *rest)))
    assert set(found) == {"D8"} and "'1' (Own)" in found["D8"]


def test_samples_that_are_not_finite_or_of_one_class() -> None:
    inputs, targets = digits()
    inputs[3, 5] = float("nan")
    found = failures(lambda: sound(inputs=inputs))
    assert "1 values of 1 samples are not finite" in found["D6"]
    assert "one and the same target" in failures(lambda: sound(targets=torch.zeros_like(targets)))["D6"]
    assert (
        "labels go from 1 to 10"
        in failures(lambda: sound(targets=targets + 1, class_names=("a",) * 10))["D0"]
    )
