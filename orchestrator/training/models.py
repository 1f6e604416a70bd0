"""The built-in networks (practice, C8), and the user's own.

- `mlp`: layers of equal width, the first of another one if wanted; images are flattened.
- `highway`: an mlp whose layers after the first learn how much of their input they let pass.
- `cnn`: blocks of a convolution with same padding and 2x2 pooling; channels double from block to block.
- `residual`: blocks that are added to what goes into them.
- `lstm`, `gru`: sequences.

Each layer or block is: weights, batch normalization if wanted, activation, dropout (residual: the other way
round). Tokens are embedded; mlp and highway take the mean of a sample's embeddings. Initial values: see
orchestrator.training.initial.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from orchestrator.errors import UserError, nearest
from orchestrator.training.activations import ACTIVATIONS, check_activation, pieces
from orchestrator.training.heads import normalize_last
from orchestrator.training.highway import Highway, gate_bias
from orchestrator.training.initial import AUTO, check_init, initialize
from orchestrator.training.recurrent import PADDING, Recurrent
from orchestrator.training.residual import residual
from orchestrator.training.settings import ModelSettings
from orchestrator.training.target import build_target

__all__ = [
    "ACTIVATIONS",
    "MODELS",
    "build_model",
    "choose_device",
    "count_parameters",
    "normalize_last",
]

KERNELS = (3, 5)


def build_model(
    settings: ModelSettings, shape: tuple[int, ...], outputs: int, *, vocabulary: int | None = None
) -> nn.Module:
    """Build a network that maps (batch, *shape) to (batch, outputs), with its initial values set.

    They come from torch's global random state. A network of the user's own (`target`) keeps the values that
    it sets itself, unless `init` names others. `output_bias` needs the data: see initial.set_output_bias.

    Args:
        settings: of the model.
        shape: of one sample.
        outputs: number of classes, or 1 for values.
        vocabulary: number of tokens where the samples are sequences of them (int64, 0 is padding).

    Raises:
        UserError: a name that does not exist, a number out of range, a shape the network cannot take, or a
            target whose output does not fit.
    """
    _check(settings)
    if settings.target is not None:
        model = build_target(settings, shape, outputs, vocabulary)
        if settings.init != AUTO:
            initialize(model, settings)
        return model
    if settings.name not in MODELS:
        hint = nearest(settings.name, MODELS)
        raise UserError(f"there is no name '{settings.name}'", key="model.name", hint=hint)
    model = MODELS[settings.name](settings, shape, outputs, vocabulary)
    initialize(model, settings)
    return model


def mlp(
    settings: ModelSettings, shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> nn.Sequential:
    """Build a multi-layer perceptron of `depth` hidden layers; depth 0 is linear."""
    layers, inputs = _flat(settings, shape, vocabulary)
    for number in range(settings.depth):
        width = settings.first_width if number == 0 and settings.first_width else settings.width
        layers += _dense(settings, inputs, width)
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def highway(
    settings: ModelSettings, shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> nn.Sequential:
    """Build a highway network: one plain layer to `width`, then `depth` - 1 highway layers."""
    layers, inputs = _flat(settings, shape, vocabulary)
    if settings.depth:
        layers += _dense(settings, inputs, settings.width)
        inputs = settings.width
    for _ in range(settings.depth - 1):
        layers.append(Highway(settings, gate_bias(settings.depth)))
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout))
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def cnn(
    settings: ModelSettings, shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> nn.Sequential:
    """Build a convolutional network of `depth` blocks; pooling stops when a side is down to one pixel."""
    _check_image(settings.name, shape, vocabulary)
    channels, *sides = shape
    layers: list[nn.Module] = [nn.Dropout(settings.input_dropout)] if settings.input_dropout else []
    for block in range(settings.depth):
        width = settings.width * 2**block
        wide = width * pieces(settings.activation)
        pad = settings.kernel // 2
        layers.append(nn.Conv2d(channels, wide, settings.kernel, padding=pad, bias=not settings.batch_norm))
        if settings.batch_norm:
            layers.append(nn.BatchNorm2d(wide))
        layers.append(ACTIVATIONS[settings.activation]())
        if min(sides) >= 2:
            layers.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
        if settings.dropout:
            layers.append(nn.Dropout2d(settings.dropout))
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * math.prod(sides), outputs))


def _residual(
    settings: ModelSettings, shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> nn.Sequential:
    _check_image(settings.name, shape, vocabulary)
    return residual(settings, shape, outputs)


def _recurrent(
    settings: ModelSettings, shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> nn.Module:
    if settings.depth < 1:
        raise UserError(f"{settings.depth} is below 1 for {settings.name}", key="model.depth")
    return Recurrent(settings, shape, outputs, vocabulary)


MODELS: dict[str, Callable[[ModelSettings, tuple[int, ...], int, int | None], nn.Module]] = {
    "mlp": mlp,
    "highway": highway,
    "cnn": cnn,
    "residual": _residual,
    "lstm": _recurrent,
    "gru": _recurrent,
}


class MeanEmbedding(nn.Module):
    """The mean of a sample's embedded tokens, padding left out: (n, length) int64 to (n, embedding)."""

    def __init__(self, vocabulary: int, embedding: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(vocabulary, embedding, mode="mean", padding_idx=PADDING)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (n, embedding) of (n, length)."""
        mean: Tensor = self.table(tokens)
        return mean


def _flat(
    settings: ModelSettings, shape: tuple[int, ...], vocabulary: int | None
) -> tuple[list[nn.Module], int]:
    """Return what makes one row of a sample, and the row's length."""
    if vocabulary is None:
        first: nn.Module = nn.Flatten()
        inputs = math.prod(shape)
    else:
        first, inputs = MeanEmbedding(vocabulary, settings.embedding), settings.embedding
    return [first, *([nn.Dropout(settings.input_dropout)] if settings.input_dropout else [])], inputs


def _dense(settings: ModelSettings, inputs: int, width: int) -> list[nn.Module]:
    """Return a hidden layer: weights, normalization, activation, dropout."""
    wide = width * pieces(settings.activation)
    layers: list[nn.Module] = [nn.Linear(inputs, wide, bias=not settings.batch_norm)]
    if settings.batch_norm:
        layers.append(nn.BatchNorm1d(wide))
    layers.append(ACTIVATIONS[settings.activation]())
    if settings.dropout:
        layers.append(nn.Dropout(settings.dropout))
    return layers


def _check(settings: ModelSettings) -> None:
    for key, least in (("width", 1), ("depth", 0), ("embedding", 1), ("first_width", 1)):
        value = getattr(settings, key)
        if value is not None and value < least:
            raise UserError(f"{value} is below {least}", key=f"model.{key}")
    for key in ("dropout", "input_dropout"):
        if not 0 <= getattr(settings, key) < 1:
            raise UserError(f"{getattr(settings, key)} is not from 0 to below 1", key=f"model.{key}")
    if settings.kernel not in KERNELS:
        raise UserError(f"{settings.kernel} is not 3 or 5", key="model.kernel")
    check_activation(settings.activation)
    check_init(settings)


def _check_image(name: str, shape: tuple[int, ...], vocabulary: int | None) -> None:
    if len(shape) == 3 and vocabulary is None:
        return
    got, hint = f"a sample's shape is {shape}", "Use mlp for tables"
    if vocabulary is not None:
        got, hint = "the samples are tokens", "Use lstm or gru for them"
    raise UserError(f"{name} takes images (channels, height, width), and {got}", key="model.name", hint=hint)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def choose_device(name: str) -> torch.device:
    """Return a device by name; "auto" is the GPU where there is one.

    Raises:
        UserError: CUDA is asked for and there is none, or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        hint = nearest(name, ("auto", "cpu", "cuda"))
        raise UserError(f"there is no device '{name}'", key="device", hint=hint) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("CUDA is asked for, and this machine has none", key="device", hint="Say device=auto")
    return device
