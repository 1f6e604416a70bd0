"""What is measured after each pass, and which of two epochs is the better one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from orchestrator.data.source import CLASSIFICATION
from orchestrator.errors import UserError, nearest

CLASSIFIED = (
    "train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/balanced_accuracy", "val/worst_recall"
)  # fmt: skip
REGRESSED = ("train/loss", "val/loss", "val/mae", "val/r2")


def names(task: str) -> tuple[str, ...]:
    """Return the metrics that are reported for a task after each pass."""
    return CLASSIFIED if task == CLASSIFICATION else REGRESSED


def plain_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return mean cross-entropy (nats) for classes, mean squared error for values.

    It is the same whatever loss is minimized, so that trials with different ones can be compared.
    """
    if targets.dtype == torch.int64:
        return cross_entropy(outputs.float(), targets)
    return mse_loss(outputs.float().flatten(), targets)


def measure(outputs: Tensor, targets: Tensor, deviation: float = 1.0) -> dict[str, float]:
    """Measure outputs for the validation part.

    Args:
        outputs: logits (n, classes), or (n, 1) values in units of `deviation`.
        targets: (n,) int64 classes, or float32 values in the same units as `outputs`.
        deviation: one unit, in the data's own units.

    Returns:
        For classes: loss, accuracy, balanced accuracy (mean recall of the classes that occur) and the
        lowest recall of a class. For values: loss (mean squared error in the outputs' units), mean absolute
        error in the data's units, and the share of variance explained (NaN where the targets are all equal).
    """
    measured = {"val/loss": plain_loss(outputs, targets).item()}
    if targets.dtype == torch.int64:
        right = outputs.argmax(1) == targets
        counts = torch.bincount(targets, minlength=outputs.shape[1])
        recalls = torch.bincount(targets[right], minlength=outputs.shape[1])[counts > 0] / counts[counts > 0]
        return measured | {
            "val/accuracy": right.sum().item() / len(targets),
            "val/balanced_accuracy": recalls.double().mean().item(),
            "val/worst_recall": recalls.min().item(),
        }
    errors = (outputs.float().flatten() - targets).double()
    spread = (targets.double() - targets.double().mean()).square().sum().item()
    return measured | {
        "val/mae": errors.abs().mean().item() * deviation,
        "val/r2": 1 - errors.square().sum().item() / spread if spread > 0 else math.nan,
    }


def selected(select: str | None, task: str) -> str:
    """Return the metric that decides which epoch is best.

    Raises:
        UserError: it is not reported for this task.
    """
    if select is None:
        return "val/accuracy" if task == CLASSIFICATION else "val/loss"
    if select not in names(task):
        hint = nearest(select, names(task))
        raise UserError(f"'{select}' is not measured in {task}", key="select", hint=hint)
    return select


def lower_is_better(name: str) -> bool:
    """Say in which direction a metric improves."""
    return name.endswith(("loss", "mae"))


def gain(metrics: Mapping[str, float], before: Mapping[str, float], name: str) -> float:
    """Return by how much a metric improved; of equals, the one with the lower validation loss by a hair."""
    difference = metrics[name] - before[name]
    if difference == 0:
        return math.ulp(0.0) if metrics["val/loss"] < before["val/loss"] else 0.0
    return -difference if lower_is_better(name) else difference
