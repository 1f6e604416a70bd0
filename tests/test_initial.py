"""Initial values: their spread, the special biases, and that signals keep their size through many layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from orchestrator.errors import UserError
from orchestrator.training.highway import Highway
from orchestrator.training.initial import INITS, initialize, set_output_bias
from orchestrator.training.models import build_model, normalize_last
from orchestrator.training.settings import ModelSettings


def hidden(init: str, activation: str = "relu") -> Tensor:
    """Return the weight (200, 300) of a hidden layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 2))
    initialize(model, ModelSettings(init=init, activation=activation))
    weight = model[0].weight
    assert isinstance(weight, Tensor)
    return weight.detach()


@pytest.mark.parametrize(
    ("init", "activation", "deviation", "bounded"),
    [
        ("auto", "relu", math.sqrt(2 / 300), False),
        ("auto", "gelu", math.sqrt(2 / 300), False),
        ("auto", "prelu", math.sqrt(2 / (1 + 0.25**2) / 300), False),
        ("auto", "tanh", math.sqrt(2 / 500), True),
        ("xavier_uniform", "relu", math.sqrt(2 / 500), True),
        ("xavier_normal", "relu", math.sqrt(2 / 500), False),
        ("he_uniform", "relu", math.sqrt(2 / 300), True),
        ("he_normal", "tanh", math.sqrt(2 / 300), False),
        ("uniform", "relu", 0.05 / math.sqrt(3), True),
        ("normal", "relu", 0.01, False),
    ],
)
def test_the_spread_of_weights(init: str, activation: str, deviation: float, bounded: bool) -> None:
    weight = hidden(init, activation)
    assert weight.std().item() == pytest.approx(deviation, rel=0.02)
    # A uniform one ends at sqrt(3) deviations; a normal one does not.
    assert (weight.abs().max().item() < 1.75 * deviation) == bounded


def test_orthogonal_rows() -> None:
    gram = hidden("orthogonal", "tanh")
    assert torch.allclose(gram @ gram.T, torch.eye(200), atol=1e-5)
    doubled = hidden("orthogonal", "relu")
    assert torch.allclose(doubled @ doubled.T, 2 * torch.eye(200), atol=1e-5)


@pytest.mark.parametrize("init", INITS)
def test_every_name_sets_every_model(init: str) -> None:
    for name, shape in (("mlp", (6,)), ("highway", (6,)), ("cnn", (1, 6, 6)), ("residual", (1, 6, 6))):
        torch.manual_seed(0)
        model = build_model(ModelSettings(name=name, width=4, init=init), shape, 3)
        torch.manual_seed(1)
        other = build_model(ModelSettings(name=name, width=4, init=init), shape, 3)
        for (key, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
            assert one.equal(two) == key.endswith("bias"), key


@pytest.mark.parametrize(("name", "gates"), [("lstm", 4), ("gru", 3)])
@pytest.mark.parametrize("init", ["auto", "orthogonal"])
def test_recurrent_weights_are_orthogonal_for_each_gate(name: str, gates: int, init: str) -> None:
    torch.manual_seed(0)
    model = build_model(ModelSettings(name=name, width=6, depth=2, bidirectional=True, init=init), (5, 3), 2)
    values = dict(model.named_parameters())
    for key in [key for key in values if "weight_hh" in key]:
        parts = values[key].split(6)  # type: ignore[no-untyped-call]
        assert len(parts) == gates
        assert all(torch.allclose(part @ part.T, torch.eye(6), atol=1e-5) for part in parts)
    for key in [key for key in values if "layers.bias" in key]:
        expected = torch.zeros(6 * gates)
        if name == "lstm" and "bias_ih" in key:
            expected[6:12] = 1  # the forget gate
        assert values[key].equal(expected), key


@pytest.mark.parametrize(("depth", "bias"), [(2, -1.0), (15, -2.0), (40, -3.0)])
def test_gates_of_highways_begin_nearly_closed(depth: int, bias: float) -> None:
    model = build_model(ModelSettings(name="highway", width=3, depth=depth), (4,), 2)
    gates = [each.gate.bias for each in model.modules() if isinstance(each, Highway)]
    assert len(gates) == depth - 1
    assert all(gate.eq(bias).all() for gate in gates)


@pytest.mark.parametrize(
    "activation", ["relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "tanh", "maxout"]
)
def test_signals_keep_their_size_through_ten_layers(activation: str) -> None:
    torch.manual_seed(0)
    model = build_model(ModelSettings(activation=activation, width=128, depth=10), (128,), 2)
    samples = torch.randn(64, 128)
    features = model[:-1](samples)  # type: ignore[index]
    assert 0.01 < features.square().mean().sqrt() < 30
    small = build_model(ModelSettings(activation=activation, width=128, depth=10, init="normal"), (128,), 2)
    assert small[:-1](samples).square().mean().sqrt() < 1e-3  # type: ignore[index]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_residual_sums_do_not_grow_with_depth(batch_norm: bool) -> None:
    torch.manual_seed(0)
    settings = ModelSettings(name="residual", width=4, depth=6, batch_norm=batch_norm)
    model = build_model(settings, (1, 8, 8), 3)
    assert model(torch.randn(16, 1, 8, 8)).abs().max() < 10


def test_the_last_bias_begins_at_the_classes_odds() -> None:
    targets = torch.tensor([0] * 90 + [1] * 9 + [2])
    for name, shape in (("mlp", (4,)), ("lstm", (3, 4))):
        model = build_model(ModelSettings(name=name, width=4, output_bias="data"), shape, 3)
        set_output_bias(model, targets, 3)
        last = [each for each in model.modules() if isinstance(each, nn.Linear)][-1]
        assert torch.allclose(last.bias.exp(), torch.tensor([0.9, 0.09, 0.01]))
    # A class that is not there has a small chance, not none.
    set_output_bias(model, torch.tensor([0, 0, 2]), 3)
    assert last.bias.isfinite().all() and last.bias[1] < last.bias[2] < last.bias[0]


def test_the_last_bias_begins_at_the_mean() -> None:
    model = build_model(ModelSettings(), (4,), 1)
    set_output_bias(model, torch.tensor([150.0, 160.0, 173.0]), None)
    assert [each for each in model.modules() if isinstance(each, nn.Linear)][-1].bias.item() == 161.0


def test_a_last_layer_without_a_fitting_bias_is_refused() -> None:
    with pytest.raises(UserError, match="no bias to set"):
        set_output_bias(normalize_last(build_model(ModelSettings(), (4,), 3)), torch.tensor([0, 1, 2]), 3)
    with pytest.raises(UserError, match="has 5 outputs, not 3"):
        set_output_bias(nn.Linear(4, 5), torch.tensor([0, 1, 2]), 3)
