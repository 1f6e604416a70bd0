"""The built-in networks.

- `mlp`: layers of equal width; images are flattened.
- `cnn`: blocks of a 3x3 convolution with same padding and 2x2 pooling; channels double from block to block.

Each layer or block is: weights, batch normalization if wanted, activation, dropout. Initial values follow
the activation: He et al. 2015 for the rectifiers, Glorot and Bengio 2010 (Xavier) for tanh and the last
layer, so that the first loss is near log(classes).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from orchestrator.errors import UserError, nearest
from orchestrator.training.settings import ModelSettings

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


def build_model(settings: ModelSettings, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Build a network that maps (batch, *shape) to logits (batch, num_classes).

    Its initial values come from torch's global random state.

    Raises:
        UserError: a name that does not exist, a number out of range, a shape the network cannot take.
    """
    for key, least in (("width", 1), ("depth", 0)):
        if getattr(settings, key) < least:
            raise UserError(f"{getattr(settings, key)} is below {least}", key=f"model.{key}")
    if not 0 <= settings.dropout < 1:
        raise UserError(f"{settings.dropout} is not from 0 to below 1", key="model.dropout")
    for key, choices in (("name", MODELS), ("activation", ACTIVATIONS)):
        value = getattr(settings, key)
        if value not in choices:
            raise UserError(f"there is no {key} '{value}'", key=f"model.{key}", hint=nearest(value, choices))
    model = MODELS[settings.name](settings, shape, num_classes)
    _initialize(model, settings.activation)
    return model


def mlp(settings: ModelSettings, shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Build a multi-layer perceptron of `depth` hidden layers; depth 0 is softmax regression."""
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = math.prod(shape)
    for _ in range(settings.depth):
        layers.append(nn.Linear(inputs, settings.width, bias=not settings.batch_norm))
        if settings.batch_norm:
            layers.append(nn.BatchNorm1d(settings.width))
        layers.append(ACTIVATIONS[settings.activation]())
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout))
        inputs = settings.width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))


def cnn(settings: ModelSettings, shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Build a convolutional network of `depth` blocks; pooling stops when a side is down to one pixel."""
    if len(shape) != 3:
        raise UserError(
            f"cnn takes images (channels, height, width), and a sample's shape is {shape}",
            key="model.name",
            hint="Use mlp for tables",
        )
    channels, *sides = shape
    layers: list[nn.Module] = []
    for block in range(settings.depth):
        width = settings.width * 2**block
        layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not settings.batch_norm))
        if settings.batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(ACTIVATIONS[settings.activation]())
        if min(sides) >= 2:
            layers.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
        if settings.dropout:
            layers.append(nn.Dropout2d(settings.dropout))
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * math.prod(sides), num_classes))


MODELS: dict[str, Callable[[ModelSettings, tuple[int, ...], int], nn.Module]] = {"mlp": mlp, "cnn": cnn}


def _initialize(model: nn.Module, activation: str) -> None:
    """Set weights by activation and biases to zero."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for layer in layers:
        if layer is layers[-1] or activation == "tanh":
            nn.init.xavier_uniform_(layer.weight)
        else:
            slope = 0.01 if activation == "leaky_relu" else 0.0
            nn.init.kaiming_normal_(layer.weight, a=slope, nonlinearity="leaky_relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


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
