"""The last layer of a network: finding it, and a cosine classifier in its place."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from orchestrator.errors import UserError


class CosineLinear(nn.Module):
    """Cosines of the angles between features and each class's weights, as LDAM wants them (Cao et al. 2019).

    Args:
        weight: (classes, features), to begin with.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return cosines (n, classes) of (n, features)."""
        weight = functional.normalize(self.weight, dim=-1)
        return functional.linear(functional.normalize(inputs, dim=-1), weight)


def normalize_last(model: nn.Module) -> nn.Module:
    """Put a cosine classifier in place of the last linear layer; return the model.

    Args:
        model: changed in place, unless it is a linear layer itself.

    Raises:
        UserError: it has no linear layer.
    """
    last = last_layer(model)
    if not isinstance(last, nn.Linear):
        raise UserError("ldam wants a last linear layer, and the model has none", key="loss.name")
    cosine = CosineLinear(last.weight)
    if last is model:
        return cosine
    path = next(name for name, module in model.named_modules() if module is last)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, cosine)
    return model


def last_layer(model: nn.Module) -> nn.Linear | CosineLinear | None:
    """Return the last linear layer in the order of definition, None where there is none."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear | CosineLinear)]
    return linear[-1] if linear else None
