"""The built-in networks: what they give, what they are made of, what they refuse; and the user's own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.errors import UserError
from orchestrator.training.activations import ACTIVATIONS, Maxout
from orchestrator.training.heads import CosineLinear
from orchestrator.training.highway import Highway
from orchestrator.training.models import MODELS, build_model, count_parameters, normalize_last
from orchestrator.training.recurrent import Recurrent
from orchestrator.training.settings import ModelSettings

IMAGE, TABLE, SERIES = (2, 6, 5), (7,), (9, 4)
SHAPES = {"mlp": (IMAGE, TABLE, SERIES), "cnn": (IMAGE,), "lstm": (IMAGE, SERIES)}
SHAPES |= {"highway": SHAPES["mlp"], "residual": SHAPES["cnn"], "gru": SHAPES["lstm"]}
TOKENS = torch.tensor([[3, 1, 2, 0, 0], [4, 4, 0, 0, 0], [1, 2, 3, 4, 5]])


class Own(nn.Module):
    """A network that a user might bring."""

    def __init__(self, shape: tuple[int, ...], outputs: int, width: int = 4, twist: str = "none") -> None:
        super().__init__()
        self.twist = twist
        self.norm = nn.BatchNorm1d(shape[0])
        self.layers = nn.Sequential(nn.Linear(shape[0], width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, inputs: Tensor) -> Any:
        if self.twist == "crash":
            raise ValueError("sizes do not match")
        scores = self.layers(self.norm(inputs)) + 0 * torch.rand(1)
        return {"tuple": (scores,), "one": scores[:, 0]}.get(self.twist, scores)


def no_module(shape: tuple[int, ...], **others: Any) -> str:
    return str(sorted(others))


def fails(outputs: int) -> nn.Module:
    raise RuntimeError("no such file")


def own(name: str = "Own", **changes: Any) -> ModelSettings:
    return ModelSettings(target=f"{__name__}.{name}", **changes)


def inputs(shape: Iterable[int]) -> Tensor:
    return torch.randn((3, *shape), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_gives_one_number_for_each_class(name: str, activation: str, batch_norm: bool) -> None:
    settings = ModelSettings(
        name=name, activation=activation, batch_norm=batch_norm, width=4, dropout=0.3, input_dropout=0.1
    )
    for shape in SHAPES[name]:
        torch.manual_seed(0)
        model = build_model(settings, shape, 3)
        scores = model(inputs(shape))
        assert scores.shape == (3, 3)
        scores.square().sum().backward()
        # Maxout passes only one of two pieces, dropout not everything: no weight as a whole may be left out.
        assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in model.parameters())
        assert model.eval()(inputs(shape)).equal(model(inputs(shape)))


@pytest.mark.parametrize("name", list(MODELS))
def test_first_outputs_are_small(name: str) -> None:
    """So that the first loss is near log(classes), at ten layers, too."""
    torch.manual_seed(0)
    shape = SHAPES[name][0]
    model = build_model(
        ModelSettings(name=name, width=64 if name == "mlp" else 8, depth=3 if name == "cnn" else 8), shape, 5
    ).eval()
    loss = nn.functional.cross_entropy(model(inputs(shape)), torch.tensor([0, 1, 2]))
    assert loss.item() == pytest.approx(math.log(5), abs=1.0)


def test_sizes() -> None:
    first = build_model(ModelSettings(width=8, depth=3, first_width=20), (5,), 2)
    assert [each.out_features for each in first.modules() if isinstance(each, nn.Linear)] == [20, 8, 8, 2]
    wide = build_model(ModelSettings(name="cnn", width=4, depth=2, kernel=5), (1, 9, 9), 2)
    kernels = [each.kernel_size for each in wide.modules() if isinstance(each, nn.Conv2d)]
    assert kernels == [(5, 5), (5, 5)]
    deep = build_model(ModelSettings(name="highway", width=8, depth=4), (5,), 2)
    assert sum(isinstance(each, Highway) for each in deep.modules()) == 3
    maxout = build_model(ModelSettings(width=8, depth=1, activation="maxout"), (5,), 2)
    assert count_parameters(maxout) == (5 * 16 + 16) + (8 * 2 + 2)
    residual = build_model(ModelSettings(name="residual", width=4, depth=3, kernel=5), (1, 12, 12), 2)
    channels = [each.out_channels for each in residual.modules() if isinstance(each, nn.Conv2d)]
    assert channels == [4, 4, 4, 8, 8, 8, 16, 16, 16]


def test_maxout_takes_the_larger_piece() -> None:
    features = torch.tensor([[1.0, 3.0, -2.0, -5.0]])
    assert Maxout()(features).tolist() == [[3.0, -2.0]]
    assert Maxout()(features.reshape(1, 4, 1, 1)).shape == (1, 2, 1, 1)


def test_a_closed_gate_lets_the_input_pass() -> None:
    layer = Highway(ModelSettings(width=4), gate_bias=-1.0)
    features = inputs((4,))
    with torch.no_grad():
        layer.gate.bias.fill_(-50)
        assert torch.allclose(layer(features), features)
        layer.gate.bias.fill_(50)
        assert torch.allclose(layer(features), layer.change(features))


@pytest.mark.parametrize("name", ["mlp", "highway", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_is_not_read(name: str, bidirectional: bool) -> None:
    settings = ModelSettings(name=name, width=4, embedding=6, bidirectional=bidirectional)
    torch.manual_seed(0)
    model = build_model(settings, (5,), 2, vocabulary=6).eval()
    long = torch.cat([TOKENS, torch.zeros(3, 4, dtype=torch.int64)], dim=1)
    assert torch.allclose(model(TOKENS), model(long), atol=1e-6)
    alone = torch.cat([model(row[row != 0][None]) for row in TOKENS])
    assert torch.allclose(model(TOKENS), alone, atol=1e-6)
    assert not torch.allclose(model(TOKENS)[0], model(TOKENS)[1])
    assert bool(model(torch.zeros(2, 5, dtype=torch.int64)).isfinite().all())  # nothing but padding


def test_a_recurrent_model_reads_images_from_the_top() -> None:
    torch.manual_seed(0)
    model = build_model(ModelSettings(name="lstm", width=4), IMAGE, 2)
    assert isinstance(model, Recurrent)
    assert model.layers.input_size == 2 * 5
    pictures = inputs(IMAGE)
    rows = torch.stack([pictures[:, :, row].flatten(1) for row in range(6)], dim=1)
    model.eval()
    series = build_model(ModelSettings(name="lstm", width=4), (6, 10), 2).eval()
    series.load_state_dict(model.state_dict())
    assert series(rows).equal(model(pictures))


@pytest.mark.parametrize(
    ("settings", "shape", "vocabulary", "message"),
    [
        (ModelSettings(name="mpl"), TABLE, None, "model.name: .* Did you mean 'mlp'"),
        (ModelSettings(activation="rellu"), TABLE, None, "Did you mean 'relu'"),
        (ModelSettings(activation="sigmoid"), TABLE, None, "saturates inside a network. Say tanh"),
        (ModelSettings(init="xavier"), TABLE, None, "model.init: .* Did you mean 'xavier_"),
        (ModelSettings(output_bias="date"), TABLE, None, "Did you mean 'data'"),
        (ModelSettings(kernel=4), TABLE, None, "model.kernel: 4 is not 3 or 5"),
        (ModelSettings(first_width=0), TABLE, None, "model.first_width: 0 is below 1"),
        (ModelSettings(input_dropout=1.0), TABLE, None, "model.input_dropout"),
        (ModelSettings(dropout=math.nan), TABLE, None, "model.dropout"),
        (ModelSettings(name="cnn"), TABLE, None, "Use mlp for tables"),
        (ModelSettings(name="residual"), (5,), 9, "the samples are tokens. Use lstm or gru"),
        (ModelSettings(name="lstm"), TABLE, None, r"sequences \(length, features\).*\(7,\)"),
        (ModelSettings(name="gru", depth=0), SERIES, None, "model.depth: 0 is below 1 for gru"),
        (own("Own_"), TABLE, None, "model.target: .* Did you mean 'Own'"),
        (own("Own", arguments={"widht": 3}), TABLE, None, "takes no 'widht'. Did you mean 'width'"),
        (own(arguments={"twist": "tuple"}), TABLE, None, "gives a tuple"),
        (
            own(arguments={"twist": "one"}),
            TABLE,
            None,
            r"gives \(2,\) of float32 for two samples, not \(2, 3\)",
        ),
        (own(arguments={"outputs": 5}), TABLE, None, r"gives \(2, 5\) .* not \(2, 3\)"),
        (own(arguments={"twist": "crash"}), TABLE, None, r"fails on two samples of shape \(7,\): ValueError"),
        (own("no_module"), TABLE, None, "returned str, not a torch module"),
        (own("fails"), TABLE, None, "RuntimeError: no such file"),
    ],
)
def test_what_is_refused(
    settings: ModelSettings, shape: tuple[int, ...], vocabulary: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_model(settings, shape, 3, vocabulary=vocabulary)


def test_a_model_of_the_users_own() -> None:
    torch.manual_seed(0)
    expected = Own((7,), 3, width=6)
    after = torch.rand(1)
    torch.manual_seed(0)
    model = build_model(own(arguments={"width": 6}), TABLE, 3)
    assert torch.rand(1).equal(after)  # the check draws nothing
    assert isinstance(model, Own) and model.training
    assert model.norm.running_mean is not None and model.norm.running_mean.equal(torch.zeros(7))
    for name, values in expected.state_dict().items():
        assert model.state_dict()[name].equal(values), name
    named = build_model(own(arguments={"width": 6}, init="normal"), TABLE, 3)
    assert named.state_dict()["layers.0.weight"].abs().max() < 0.06


def test_a_cosine_classifier_takes_the_last_layers_place() -> None:
    for name, shape in (("mlp", TABLE), ("cnn", IMAGE), ("lstm", SERIES)):
        torch.manual_seed(0)
        settings = ModelSettings(name=name, width=4)
        before = build_model(settings, shape, 3)
        weight = [each for each in before.modules() if isinstance(each, nn.Linear)][-1].weight
        model = normalize_last(before)
        cosines = model.eval()(inputs(shape))
        assert cosines.shape == (3, 3) and bool((cosines.abs() <= 1 + 1e-6).all())
        assert any(isinstance(each, CosineLinear) and each.weight.equal(weight) for each in model.modules())
        with torch.no_grad():  # lengths do not matter
            next(each for each in model.modules() if isinstance(each, CosineLinear)).weight.mul_(7)
        assert torch.allclose(model(inputs(shape)), cosines, atol=1e-6)
    assert isinstance(normalize_last(nn.Linear(2, 2)), CosineLinear)
    with pytest.raises(UserError, match="the model has none"):
        normalize_last(nn.Conv2d(1, 1, 3))


def test_a_model_learns_which_token_came_first() -> None:
    """What only a network that reads the order can tell."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.stack([torch.randperm(4, generator=generator) + 1 for _ in range(128)])
    targets = (tokens.argmin(1) < tokens.argmax(1)).long()
    accuracy = {}
    for name in ("gru", "lstm", "mlp"):
        torch.manual_seed(0)
        settings = ModelSettings(name=name, width=16, depth=1, embedding=8)
        model = build_model(settings, (4,), 2, vocabulary=5)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(tokens), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        accuracy[name] = (model(tokens).argmax(1) == targets).float().mean().item()
    assert accuracy["gru"] > 0.95 and accuracy["lstm"] > 0.95
    assert accuracy["mlp"] < 0.7
