"""The sanity checks on sound set-ups, and what is around them."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.checks.baselines import above_chance
from orchestrator.checks.names import NAMES
from orchestrator.checks.run import CHECKS, run_checks
from orchestrator.checks.setup import Setup, as_setup
from orchestrator.errors import UserError
from orchestrator.training.models import build_model
from orchestrator.training.settings import ModelSettings

# They look at the data alone, which are the same in all these.
OF_DATA = ("D7", "D10")


def digits(count: int = 300) -> tuple[Tensor, Tensor]:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))[:count]
    inputs = torch.tensor(data.data / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return inputs[order], torch.tensor(data.target)[order]


def made(build: Callable[[], nn.Module], **other: Any) -> Callable[[], Setup]:
    inputs, targets = digits()

    def make() -> Setup:
        torch.manual_seed(0)
        whole = {"model": build(), "loss": nn.CrossEntropyLoss(), "inputs": inputs, "targets": targets}
        return Setup(**{**whole, **other})

    return make


def complaints(make: Callable[[], Setup], skip: tuple[str, ...] = OF_DATA) -> list[str]:
    return [
        f"{each.id}: {each.saw} | {each.cause}"
        for each in run_checks(make, skip=skip)
        if each.passed is False
    ]


IMAGES = [
    ModelSettings(),
    ModelSettings(depth=0),
    ModelSettings(depth=4, width=16, activation="tanh"),
    ModelSettings(batch_norm=True, dropout=0.5, activation="leaky_relu"),
    ModelSettings(name="cnn", width=8),
    ModelSettings(name="cnn", width=8, batch_norm=True, dropout=0.3, activation="gelu"),
    ModelSettings(name="residual", width=8, depth=2, batch_norm=True, dropout=0.2),
    ModelSettings(name="residual", width=8, depth=2),
    ModelSettings(name="highway", width=32, depth=3, dropout=0.2),
    ModelSettings(name="highway", width=32, depth=3, batch_norm=True),
]


@pytest.mark.parametrize(
    "settings", IMAGES, ids=lambda one: f"{one.name}-{one.depth}-{one.activation}-{one.batch_norm}"
)
def test_nothing_is_wrong_with_the_networks_for_images(settings: ModelSettings) -> None:
    assert complaints(made(lambda: build_model(settings, (1, 8, 8), 10))) == []


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("both", [False, True])
def test_nothing_is_wrong_with_the_recurrent_networks(name: str, both: bool) -> None:
    settings = ModelSettings(
        name=name, width=16, depth=1 + both, embedding=16, bidirectional=both, dropout=0.2
    )
    inputs, _ = digits()
    rows = made(lambda: build_model(settings, (8, 8), 10), inputs=inputs[:, 0])
    assert complaints(rows) == []
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 30, (200, 7), generator=generator)
    tokens[:50, 5:] = 0
    labels = (tokens == 5).any(1).long()
    texts = made(lambda: build_model(settings, (7,), 2, vocabulary=30), inputs=tokens, targets=labels)
    assert complaints(texts) == []


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(8, 16) / 4, requires_grad=False)
        self.first = nn.Linear(8, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.first(x[:, 0]) + self.places).mean(1))  # type: ignore[no-any-return]


class OwnBatchNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.middle, Tensor)
        if self.training:
            with torch.no_grad():
                self.middle.lerp_(x.mean(0), 0.1)
            return x - x.mean(0)
        return x - self.middle


def own(*layers: nn.Module, width: int = 24) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), *layers, nn.ReLU(), nn.Linear(width, 10))


def groups() -> nn.Sequential:
    conv = (
        nn.Conv2d(1, 8, 3),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.InstanceNorm2d(8),
        nn.ReLU(),
    )
    return nn.Sequential(*conv, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 10))


@pytest.mark.parametrize(
    "build",
    [Attention, groups, lambda: own(OwnBatchNorm(24)), lambda: own(nn.LayerNorm(24), nn.Dropout(0.5))],
)
def test_nothing_is_wrong_with_networks_of_ones_own(build: Callable[[], nn.Module]) -> None:
    assert complaints(made(build)) == []


def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, torch.arange(1.0, 11.0), label_smoothing=0.1)


def focal(outputs: Tensor, targets: Tensor) -> Tensor:
    logs = functional.cross_entropy(outputs, targets, reduction="none")
    return ((1 - (-logs).exp()) ** 2 * logs).mean()


def margin(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(4 * (outputs.tanh() - functional.one_hot(targets, 10) * 0.3), targets)


def against_one_hot(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs, functional.one_hot(targets, 10).float())


@pytest.mark.parametrize("loss", [smoothed, focal, margin, against_one_hot, nn.MultiMarginLoss()])
def test_nothing_is_wrong_with_other_losses(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert complaints(made(own, loss=loss)) == []


def test_nothing_is_wrong_with_probabilities_where_the_loss_takes_them() -> None:
    assert complaints(made(lambda: own().append(nn.LogSoftmax(1)), loss=nn.NLLLoss())) == []
    given = made(
        lambda: own().append(nn.Softmax(1)), loss=lambda o, t: functional.nll_loss((o + 1e-9).log(), t)
    )
    assert complaints(given) == []


def test_nothing_is_wrong_with_one_logit_or_with_values() -> None:
    _, targets = digits()
    binary = (targets > 4).float()[:, None]
    one = made(lambda: own().append(nn.Linear(10, 1)), loss=nn.BCEWithLogitsLoss(), targets=binary)
    assert complaints(one, skip=()) == []
    values = (targets.float() - 4.5) / 3
    absolute = made(
        lambda: own().append(nn.Linear(10, 1)), loss=lambda o, t: (o[:, 0] - t).abs().mean(), targets=values
    )
    assert complaints(absolute, skip=()) == []


def test_what_is_seen_is_the_same_each_time_and_fits_json() -> None:
    names: list[str] = []
    results = run_checks(made(own), skip=["D3"], human_accuracy=0.98, progress=names.append)
    again = run_checks(made(own), skip=["D3"], human_accuracy=0.98)
    assert [(one.id, one.saw) for one in results] == [(one.id, one.saw) for one in again]
    assert names == list(NAMES.values()) and list(NAMES) == list(CHECKS) == [one.id for one in results]
    known = {one.id: json.loads(json.dumps(one.to_json(), allow_nan=False)) for one in results}
    assert known["D3"]["passed"] is None and known["D3"]["saw"] == "left out"
    assert known["D6"]["details"]["samples"][0]["picture"].startswith("data:image/png;base64,")
    assert sum(known["D6"]["details"]["labels"]["counts"].values()) == 300
    assert known["D7"]["details"]["people"] == 0.98 and 0.8 < known["D7"]["details"]["linear"] < 1
    assert "people reach 0.980" in known["D7"]["saw"]


def test_the_callers_random_numbers_and_model_stay() -> None:
    setup = made(own)()
    before = {name: each.clone() for name, each in setup.model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    run_checks(lambda: setup, skip=OF_DATA)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # type: ignore[index]
    assert all(torch.equal(before[name], each) for name, each in setup.model.state_dict().items())


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = own()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            raise RuntimeError("no evaluation here")
        return self.inner(x)  # type: ignore[no-any-return]


def test_a_check_that_raises_has_failed() -> None:
    results = {one.id: one for one in run_checks(made(Broken), skip=OF_DATA)}
    assert results["D4"].passed is False and "RuntimeError: no evaluation here" in results["D4"].saw
    assert "test_checks.py, line" in results["D4"].cause
    assert "no evaluation here" in results["D4"].details["traceback"]
    assert results["D3"].passed is True


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(UserError, match="there is no check 'D33'"):
        run_checks(made(own), skip=["D33"])


def test_predictions_are_above_chance_as_shuffling_says() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 90)
    predicted = np.where(rng.random(90) < 0.5, truth, rng.integers(0, 3, 90))
    shuffled = [(predicted == rng.permutation(truth)).sum() for _ in range(4000)]
    expected = ((predicted == truth).sum() - np.mean(shuffled)) / np.std(shuffled)
    assert above_chance(predicted, truth, True) == pytest.approx(expected, rel=0.1)
    assert above_chance(np.zeros(90, int), truth, True) == 0
    assert above_chance(np.zeros(90), truth * 1.0, False) == 0
    assert above_chance(truth * 2.0, truth * 1.0, False) == pytest.approx(89**0.5)


def test_a_set_up_may_be_a_mapping_or_an_object() -> None:
    inputs, targets = digits(20)
    given = {
        "model": own(),
        "loss": nn.CrossEntropyLoss(),
        "inputs": inputs.numpy(),
        "targets": targets.tolist(),
    }
    for value in (given, SimpleNamespace(**given, more=1)):
        setup = as_setup(value)
        assert torch.equal(setup.inputs, inputs) and torch.equal(setup.targets, targets)
        assert setup.class_names == () and setup.validation is None and not setup.frozen
    assert as_setup(setup).model is setup.model


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inputs": None}, "returned no `inputs`"),
        ({"model": len}, "`model` is builtin_function_or_method, not a torch.nn.Module"),
        ({"loss": 1.0}, "`loss` is float"),
        ({"targets": torch.zeros(3)}, "there are 20 inputs and 3 targets"),
        ({"inputs": torch.zeros(0, 2), "targets": torch.zeros(0)}, "there are no samples"),
        ({"targets": torch.tensor(1.0)}, "`targets` are one number"),
        ({"targets": ["a"] * 20}, "`targets` are list, not a tensor"),
        ({"validation": 3}, "`validation` is not a pair"),
        ({"lossy": 3}, "Did you mean 'loss'?"),
    ],
)
def test_what_is_no_set_up_is_refused(change: dict[str, Any], told: str) -> None:
    inputs, targets = digits(20)
    given = {"model": own(), "loss": nn.CrossEntropyLoss(), "inputs": inputs, "targets": targets}
    with pytest.raises(UserError, match=r"jobs\.setup") as error:
        as_setup({**given, **change})
    assert told in str(error.value)
    with pytest.raises(UserError, match="returned tuple"):
        as_setup((given,))
