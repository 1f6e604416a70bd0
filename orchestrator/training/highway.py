"""Highway networks: layers that learn how much of their input they let pass (Srivastava et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchestrator.training.activations import ACTIVATIONS, pieces
from orchestrator.training.settings import ModelSettings


class Highway(nn.Module):
    """y = g h(x) + (1 - g) x, with the gate g = sigmoid(W x + b): (n, width) to (n, width).

    Args:
        settings: width, activation, batch_norm.
        gate_bias: how b begins; below zero, so that at first the input passes (section 2.3 of the paper).
    """

    def __init__(self, settings: ModelSettings, gate_bias: float) -> None:
        super().__init__()
        width, wide = settings.width, settings.width * pieces(settings.activation)
        self.gate_bias = gate_bias
        self.gate = nn.Linear(width, width)
        layers: list[nn.Module] = [nn.Linear(width, wide, bias=not settings.batch_norm)]
        if settings.batch_norm:
            layers.append(nn.BatchNorm1d(wide))
        self.change = nn.Sequential(*layers, ACTIVATIONS[settings.activation]())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (n, width) of (n, width)."""
        return torch.lerp(inputs, self.change(inputs), torch.sigmoid(self.gate(inputs)))


def gate_bias(depth: int) -> float:
    """Return -1, -2 or -3 for up to 10, up to 20 and more layers, as the paper's experiments have it."""
    return -float(min(3, 1 + (depth - 1) // 10))
