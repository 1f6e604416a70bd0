"""What a loss gives to outputs that say nothing, and to outputs that are right: the scale of all losses.

No loss is known by its name here. Outputs are made, the job's own loss is asked, and so weighted, smoothed,
focal and margin losses have a scale too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

LOGITS, LOG_PROBABILITIES, PROBABILITIES = "logits", "log probabilities", "probabilities"
BINARY, VALUES, UNKNOWN = "one logit", "values", "unknown"
CLASSES = (LOGITS, LOG_PROBABILITIES, PROBABILITIES)
# Sizes of right logits that are tried: a smoothed loss, or one with a margin, is least at some middle one.
_SIZES = (1.0, 3.0, 10.0, 30.0)
_SURE = 0.999

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The scale of a loss on some targets.

    Attributes:
        kind: what the loss takes outputs for: logits, ..., or unknown.
        ignorant: the loss of outputs that say nothing: alike for all classes, or the targets' mean.
        perfect: the least loss of outputs that are right.
    """

    kind: str
    ignorant: float = float("nan")
    perfect: float = float("nan")

    @property
    def known(self) -> bool:
        """Whether the loss has a scale, and right outputs are the better ones."""
        return self.kind != UNKNOWN and self.perfect < self.ignorant

    def left(self, loss: float) -> float:
        """Return a loss between 0, perfect, and 1, ignorant."""
        return (loss - self.perfect) / (self.ignorant - self.perfect)


def are_classes(targets: Tensor, outputs: Tensor) -> bool:
    """Say whether targets are numbers of classes, (n, ...), and outputs one value for each, (n, C, ...)."""
    whole = not targets.is_floating_point() and targets.dtype != torch.bool
    if not whole or outputs.ndim != targets.ndim + 1 or outputs.shape[2:] != targets.shape[1:]:
        return False
    return bool(targets.min() >= 0 and targets.max() < outputs.shape[1])


def yardstick(loss: Loss, outputs: Tensor, targets: Tensor) -> Yardstick:
    """Ask a loss for its scale.

    Args:
        loss: takes outputs and targets, gives a scalar.
        outputs: of the model, for these targets; of their values only what kind they are is used.
        targets: as the loss takes them.
    """
    outputs = outputs.detach().float()
    if are_classes(targets, outputs):
        return _of_classes(loss, outputs, targets)
    if targets.is_floating_point() and targets.numel() == outputs.numel():
        return _of_values(loss, outputs, targets)
    return Yardstick(UNKNOWN)


def asked(loss: Loss, outputs: Tensor, targets: Tensor) -> float:
    """Return a loss as a number."""
    with torch.no_grad():
        return float(loss(outputs, targets))


def sum_to_one(values: Tensor) -> bool:
    """Say whether outputs (n, C, ...) are probabilities of classes."""
    inside = bool((values >= 0).all() and (values <= 1 + 1e-4).all())
    return inside and bool(torch.allclose(values.sum(1), torch.ones_like(values.sum(1)), atol=1e-3))


def _of_classes(loss: Loss, outputs: Tensor, targets: Tensor) -> Yardstick:
    classes = outputs.shape[1]
    right = one_hot(targets.long(), classes).movedim(-1, 1).to(outputs)
    zeros = torch.zeros_like(outputs)
    alike = asked(loss, zeros, targets)
    # Where the loss takes the softmax itself, it does not matter what is added to all of a sample's outputs.
    moved = [(asked(loss, right + by, targets), asked(loss, right, targets)) for by in (1.0, -3.0)]
    if all(abs(one - other) <= 1e-3 * max(1.0, abs(other)) for one, other in moved):
        perfect = min(asked(loss, size * right, targets) for size in _SIZES)
        return Yardstick(LOGITS, alike, perfect)
    sure = right * _SURE + (1 - right) * (1 - _SURE) / max(1, classes - 1)
    even = zeros + 1 / classes
    if sum_to_one(outputs.exp()):
        return Yardstick(
            LOG_PROBABILITIES, asked(loss, even.log(), targets), asked(loss, sure.log(), targets)
        )
    if sum_to_one(outputs):
        return Yardstick(PROBABILITIES, asked(loss, even, targets), asked(loss, sure, targets))
    return Yardstick(UNKNOWN)


def _of_values(loss: Loss, outputs: Tensor, targets: Tensor) -> Yardstick:
    values = targets.reshape(outputs.shape).to(outputs)
    right = asked(loss, values, targets)
    if bool(((values == 0) | (values == 1)).all()):
        sure = asked(loss, 20 * (2 * values - 1), targets)
        if sure < right:
            return Yardstick(BINARY, asked(loss, torch.zeros_like(values), targets), sure)
    mean = values.mean(0, keepdim=True).expand_as(values)
    return Yardstick(VALUES, asked(loss, mean, targets), right)
