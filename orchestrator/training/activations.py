"""Activations, by name (practice, C7), and what initial values they want.

There is no sigmoid: inside a network it saturates at both ends and its mean is not 0, and tanh does what it
does without the second fault (LeCun et al. 1998, Efficient BackProp, 4.4).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from orchestrator.errors import UserError, nearest

LEAK = 0.01
MAXOUT_PIECES = 2


class Maxout(nn.Module):
    """The largest of each two neighbouring features (Goodfellow et al. 2013, with two pieces).

    It maps (n, 2k, ...) to (n, k, ...). The layer before it has twice the features, which are the pieces.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (n, k, ...) of (n, 2k, ...)."""
        return torch.unflatten(inputs, 1, (-1, MAXOUT_PIECES)).amax(dim=2)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(LEAK),
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "maxout": Maxout,
}


def pieces(activation: str) -> int:
    """Return how many features the layer before has for each one after the activation."""
    return MAXOUT_PIECES if activation == "maxout" else 1


def slope(activation: str) -> float:
    """Return the slope below zero, which He et al. 2015 (eq. 15) take into account.

    Maxout's is 1, as the larger of two equal normal features has the second moment of one of them.
    """
    return {"leaky_relu": LEAK, "prelu": 0.25, "maxout": 1.0}.get(activation, 0.0)


def check_activation(name: str) -> None:
    """Check that there is an activation of this name.

    Raises:
        UserError: there is none, or it is the sigmoid.
    """
    if name == "sigmoid":
        raise UserError(
            "sigmoid saturates inside a network", key="model.activation", hint="Say tanh, or relu"
        )
    if name not in ACTIVATIONS:
        raise UserError(
            f"there is no activation '{name}'", key="model.activation", hint=nearest(name, ACTIVATIONS)
        )
