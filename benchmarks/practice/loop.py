"""A plain loop over arrays, for experiments that are about one piece: the order, the loss or the inputs.

It counts updates, not passes, so that variants with longer or shorter passes train equally long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.data.source import CLASSIFICATION
from orchestrator.data.transforms import Transform
from orchestrator.training.augment import build_augment
from orchestrator.training.balance import epoch_order
from orchestrator.training.losses import build_loss, wants_normalized
from orchestrator.training.models import build_model, normalize_last
from orchestrator.training.optimizers import build_optimizer
from orchestrator.training.settings import (
    AugmentationSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
)

Inputs = NDArray[np.float32]


def transformed(names: str | Sequence[str], train: Inputs, *others: Inputs) -> list[Tensor]:
    """Fit transforms to the first array and return all arrays transformed."""
    fitted = Transform(names).fit(train)
    return [torch.from_numpy(fitted(each)) for each in (train, *others)]


def train(
    inputs: Tensor,
    labels: Tensor,
    tested: Tensor,
    *,
    classes: int,
    updates: Sequence[int],
    seed: int,
    model: ModelSettings,
    lr: float = 1e-3,
    batch_size: int = 64,
    balance: str = "none",
    loss: LossSettings | None = None,
    augmentation: AugmentationSettings | None = None,
    cosine: bool = True,
    replaced: tuple[type[nn.Module], type[nn.Module]] | None = None,
) -> list[Tensor]:
    """Train with Adam and return the outputs (k, classes) for `tested` after each number of updates.

    Args:
        inputs, labels: training samples.
        tested: inputs (k, ...).
        updates: ascending.
        cosine: whether a loss that wants a normalized last layer gets one.
        replaced: layers of one kind become ones of another, for activations that the models don't offer.
    """
    torch.manual_seed(seed)
    chosen = loss or LossSettings()
    shape = tuple(inputs.shape[1:])
    network = build_model(model, shape, classes)
    if wants_normalized(chosen) and cosine:
        network = normalize_last(network)
    if replaced is not None:
        _replace(network, *replaced)
    optimizer = build_optimizer(network.parameters(), OptimizerSettings(lr=lr))
    counts = torch.bincount(labels, minlength=classes)
    objective = build_loss(chosen, task=CLASSIFICATION, counts=counts, device=torch.device("cpu"))
    augment = build_augment(augmentation or AugmentationSettings(), shape, classes)
    shuffle = torch.Generator().manual_seed(seed)
    order, outputs, done = torch.empty(0, dtype=torch.int64), [], 0
    for moment in updates:
        network.train()
        for _ in range(moment - done):
            if len(order) < min(batch_size, len(labels)):
                order = torch.cat([order, epoch_order(labels, balance, shuffle)])
            batch, order = order[:batch_size], order[batch_size:]
            x, y = inputs[batch], labels[batch]
            if augment is not None:
                x, y = augment(x, y)
            optimizer.zero_grad()
            objective(network(x), y).backward()
            optimizer.step()
        done = moment
        network.eval()
        with torch.inference_mode():
            outputs.append(torch.cat([network(piece) for piece in tested.split(500)]))
    return outputs


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs.argmax(1) == labels).double().mean())


def recalls(outputs: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the recall of each class: (classes,) float64."""
    right = torch.bincount(labels[outputs.argmax(1) == labels], minlength=classes)
    return right.double() / torch.bincount(labels, minlength=classes)


def _replace(network: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    for name, child in network.named_children():
        if isinstance(child, old):
            setattr(network, name, new())
        _replace(child, old, new)
