"""Findings on real trainings: those made to show one, and sound ones made not to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from orchestrator.diagnosis.finding import ADVICE, Finding
from orchestrator.diagnosis.watch import Watch

Optimizers = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def clusters(samples: int = 400, noise: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Five classes of points around centres in ten dimensions."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, 10, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(samples) % 5
    return centres[labels] + noise * torch.randn(samples, 10, generator=draw), labels


def curve(samples: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A smooth function of two of three numbers, in unit variance."""
    inputs = torch.randn(samples, 3, generator=torch.Generator().manual_seed(seed))
    values = torch.sin(inputs[:, :1]) + 0.5 * inputs[:, 1:2]
    return inputs, (values - values.mean()) / values.std()


def scrambled(samples: int = 80, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clusters, with half of the labels wrong in training: nothing to learn of them but by heart."""
    inputs, labels = clusters(samples, seed=seed)
    if seed == 0:
        labels[::2] = torch.randint(0, 5, (len(labels[::2]),), generator=torch.Generator().manual_seed(1))
    return inputs, labels


def mlp(inputs: int = 10, outputs: int = 5, width: int = 32, activation: Any = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        activation(),
        nn.Linear(width, width),
        activation(),
        nn.Linear(width, outputs),
    )


def begun(scale: float, bias: float = 0.0, activation: Any = nn.ReLU) -> nn.Sequential:
    """An mlp with normal initial weights of that scale."""
    model = mlp(activation=activation)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, scale)
            nn.init.constant_(layer.bias, bias)
    return model


class Functional(nn.Module):
    """Rectified by a function, which no hook sees."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(10, 32), nn.Linear(32, 32), nn.Linear(32, 5)
        nn.init.constant_(self.second.bias, bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.relu(self.second(torch.relu(self.first(inputs)))))  # type: ignore[no-any-return]


def adam(lr: float) -> Optimizers:
    return lambda weights: torch.optim.Adam(weights, lr)


def sgd(lr: float) -> Optimizers:
    return lambda weights: torch.optim.SGD(weights, lr, momentum=0.9)


def trained(
    model: Callable[[], nn.Module],
    optimizer: Optimizers,
    data: Callable[..., tuple[Tensor, Tensor]] = clusters,
    epochs: int = 10,
) -> list[Finding]:
    """Train, watched, and return the findings."""
    torch.manual_seed(0)
    network = model()
    (inputs, targets), (held, expected) = data(), data(seed=1)
    weights = optimizer(network.parameters())
    loss_of = mse_loss if targets.is_floating_point() else cross_entropy
    watch = Watch(network, weights)
    for _ in range(epochs):
        network.train()
        total = 0.0
        for batch in torch.randperm(len(inputs)).split(16):  # type: ignore[no-untyped-call]
            loss = loss_of(network(inputs[batch]), targets[batch])
            watch.loss(loss)
            weights.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            weights.step()
            total += loss.item() * len(batch) / len(inputs)
        network.eval()
        metrics = {"train/loss": total}
        with torch.no_grad():
            for part, x, y in (("train", inputs, targets), ("val", held, expected)):
                outputs = network(x)
                if part == "val":
                    metrics["val/loss"] = loss_of(outputs, y).item()
                if not y.is_floating_point():
                    metrics[f"{part}/accuracy"] = (outputs.argmax(1) == y).float().mean().item()
        watch.epoch(metrics)
    return list(watch.close())


def codes(found: Iterable[Finding]) -> set[str]:
    return {one.code for one in found}


@pytest.mark.parametrize(
    ("model", "optimizer", "data"),
    [
        (mlp, adam(3e-4), clusters),
        (mlp, adam(1e-3), clusters),
        (mlp, adam(1e-2), clusters),
        (mlp, sgd(0.03), clusters),
        (lambda: mlp(activation=nn.Tanh), adam(3e-3), clusters),
        (lambda: Functional(0.0), adam(3e-3), clusters),
        (lambda: mlp(3, 1), adam(3e-3), curve),
        (lambda: mlp(3, 1), sgd(0.01), curve),
    ],
)
def test_sound_runs_have_no_finding(
    model: Callable[[], nn.Module], optimizer: Optimizers, data: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    assert trained(model, optimizer, data) == []


@pytest.mark.parametrize(
    ("code", "model", "optimizer", "data", "epochs"),
    [
        ("lr_too_large", mlp, adam(1.0), clusters, 4),
        ("lr_too_large", mlp, sgd(3.0), clusters, 4),
        ("lr_too_large", lambda: mlp(3, 1), sgd(1.0), curve, 4),
        ("lr_too_small", mlp, adam(1e-5), clusters, 4),
        ("lr_too_small", mlp, sgd(1e-5), clusters, 4),
        ("underfitting", lambda: mlp(width=1), adam(1e-2), scrambled, 30),
        ("overfitting", lambda: mlp(width=128), adam(3e-3), scrambled, 25),
        ("saturated_units", lambda: begun(3.0, activation=nn.Tanh), adam(1e-3), clusters, 3),
        ("saturated_units", lambda: begun(6.0, activation=nn.Sigmoid), adam(1e-3), clusters, 3),
        ("dead_units", lambda: begun(0.1, bias=-3.0), adam(1e-3), clusters, 3),
        ("dead_units", lambda: Functional(-20.0), adam(1e-3), clusters, 3),
    ],
)
def test_runs_made_to_show_a_finding_have_it(
    code: str,
    model: Callable[[], nn.Module],
    optimizer: Optimizers,
    data: Callable[..., tuple[Tensor, Tensor]],
    epochs: int,
) -> None:
    found = trained(model, optimizer, data, epochs)
    assert code in codes(found)
    one = next(one for one in found if one.code == code)
    assert one.advice == ADVICE[code] and one.step > 0 and any(sign.isdigit() for sign in one.evidence)
    assert not codes(found) & ({"lr_too_large", "lr_too_small"} - {code})


def test_an_explosion_is_told_with_its_numbers() -> None:
    found = next(one for one in trained(mlp, adam(1.0), epochs=1) if one.code == "lr_too_large")
    assert "rose from 1." in found.evidence and found.step <= 20


def test_the_layers_that_are_dead_are_named() -> None:
    found = next(one for one in trained(lambda: Functional(-20.0), adam(1e-3), epochs=3))
    assert found.code == "dead_units" and "100% in second" in found.evidence and "first" not in found.evidence


class Breaks(nn.Module):
    """An mlp whose forward pass has a part that breaks."""

    def __init__(self, breaking: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.head, self.breaking = mlp(outputs=8), nn.Linear(8, 5), breaking

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.breaking(self.body(inputs)))  # type: ignore[no-any-return]


class Logarithm(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.log(inputs - inputs.amin(1, keepdim=True))


def traced(
    model: nn.Module,
    optimizer: Optimizers | None = None,
    inputs: Tensor | None = None,
    loss_of: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    updates: int = 40,
) -> Finding:
    """Train until the loss is not finite, and return what it is traced to."""
    torch.manual_seed(0)
    known, labels = clusters()
    inputs = known if inputs is None else inputs
    weights = (optimizer or adam(1e-3))(model.parameters())
    watch = Watch(model, weights)
    for update in range(updates):
        batch = torch.arange(16) + 16 * update % 400
        loss = loss_of(model(inputs[batch % 400]), labels[batch % 400])
        watch.loss(loss)
        if not torch.isfinite(loss):
            break
        weights.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        weights.step()
    return watch.close()[0]


def test_nan_in_the_data_is_traced_to_its_samples() -> None:
    inputs = clusters()[0].clone()
    inputs[37, 3] = math.nan
    found = traced(mlp(), inputs=inputs)
    assert found.code == "nan_input" and "1 values" in found.evidence and "samples 5 of" in found.evidence
    assert found.step == 3


def test_nan_is_traced_to_the_module_that_gave_it() -> None:
    model = nn.Sequential(mlp(outputs=8), Logarithm(), nn.Linear(8, 5))
    found = traced(model)
    assert found.code == "nan_operation" and "log in 1 (Logarithm)" in found.evidence and found.step == 1


def test_nan_is_traced_to_an_operation_between_modules() -> None:
    found = traced(Breaks(lambda hidden: hidden / (hidden - hidden)))
    assert found.code == "nan_operation" and "div in the model (Breaks)" in found.evidence


def test_nan_is_traced_to_the_loss() -> None:
    def loss_of(outputs: Tensor, labels: Tensor) -> Tensor:
        return -torch.log(torch.relu(outputs)).mean()

    found = traced(mlp(), loss_of=loss_of)
    assert found.code == "nan_operation" and "Log of 0 in the loss" in found.evidence


def test_nan_is_traced_to_a_gradient_that_is_not_there() -> None:
    # sqrt is finite at 0 and its gradient is not.
    found = traced(Breaks(lambda hidden: torch.sqrt((hidden * 0).abs())))
    assert found.code == "nan_operation" and found.step == 1
    assert "gradient was not finite at update 1" in found.evidence and "body.4.bias" in found.evidence


def test_nan_is_traced_to_a_gradient_that_is_too_large() -> None:
    found = traced(mlp(outputs=5), sgd(1e6), loss_of=lambda o, y: (o - y[:, None]).pow(2).mean())
    assert found.code == "nan_gradient" and "loss had grown" in found.evidence


def test_nan_is_traced_to_initial_values() -> None:
    model = begun(1e15)
    found = traced(model, loss_of=lambda o, y: (o - y[:, None]).pow(2).mean())
    assert found.code == "nan_initial" and "largest weight" in found.evidence and found.step == 1


def test_tracing_leaves_the_model_and_randomness_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), Logarithm(), nn.Linear(8, 5))
    watch = Watch(model, torch.optim.Adam(model.parameters()))
    loss = model(clusters()[0][:16]).sum()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    watch.loss(loss)
    assert watch.close()[0].code == "nan_operation"
    assert torch.equal(torch.get_rng_state(), drawn) and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
