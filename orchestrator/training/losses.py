"""The loss that is minimized: for classes cross_entropy, ldam and focal; for values mse, mae and huber.

Targets of classes are numbers (n,) int64, or probabilities (n, classes) where samples are mixed; every loss
for classes takes both, weighs classes and smooths labels. A weight is for the classes' unequal counts, and is
scaled so that its mean over the training samples is 1: the learning rate keeps its meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.data.source import CLASSIFICATION
from orchestrator.errors import UserError, nearest
from orchestrator.training.settings import LossSettings

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) to the batch's mean, a scalar."""

CLASS_LOSSES = ("cross_entropy", "ldam", "focal")
VALUE_LOSSES: dict[str, Loss] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    # Its knee is at 1: the loop standardizes targets, so that is one deviation of them.
    "huber": functional.huber_loss,
}
CLASS_WEIGHTS = ("none", "inverse", "inverse_sqrt", "effective")

EFFECTIVE_BETA = 0.999
"""Cui et al. 2019: each further sample of a class adds this much of what the one before added."""


def build_loss(settings: LossSettings, *, task: str, counts: Tensor | None, device: torch.device) -> Loss:
    """Build the loss of a job.

    Args:
        settings: the job's `loss`.
        task: CLASSIFICATION or REGRESSION.
        counts: training samples of each class (classes,), for weights and margins; None where unknown.
        device: where outputs and targets will be.

    Returns:
        The loss of outputs (n, classes) and targets (n,) int64 or (n, classes); for values of outputs (n,) or
        (n, 1) and targets (n,).

    Raises:
        UserError: a name that does not exist or is for the other task, a number out of range, or counts that
            are needed and missing.
    """
    classes = task == CLASSIFICATION
    name = _name(settings.name, classes)
    _check_numbers(settings)
    if not classes:
        if settings.class_weights != "none":
            raise UserError("values have no classes to weigh", key="loss.class_weights", hint="Say none")
        return _of_values(VALUE_LOSSES[name])
    weights = None
    if settings.class_weights != "none":
        weights = class_weights(_counted(counts, "class_weights"), settings.class_weights).to(device)
    if name == "cross_entropy":
        return _cross_entropy(weights, settings.label_smoothing)
    if name == "focal":
        return _focal(weights, settings.label_smoothing, settings.focus)
    margin = margins(_counted(counts, "name"), settings.margin).to(device)
    return _ldam(weights, settings.label_smoothing, margin, settings.scale)


def wants_normalized(settings: LossSettings) -> bool:
    """Say whether the loss is meant for a last layer that gives cosines, -1 to 1, instead of free logits.

    With one that doesn't, ldam works too, but a network can then reach any margin by larger weights alone.
    """
    return settings.name == "ldam"


def logit_scale(settings: LossSettings) -> float:
    """Return what outputs are multiplied by to be logits whose softmax is the network's probabilities."""
    return settings.scale if settings.name == "ldam" else 1.0


def class_weights(counts: Tensor, rule: str) -> Tensor:
    """Weigh each class by its count: (classes,) float32, with mean 1 over the samples that were counted.

    - inverse: 1 / n, so that all classes weigh the same together.
    - inverse_sqrt: 1 / sqrt(n), half way on a logarithmic scale.
    - effective: (1 - b) / (1 - b^n), b = 0.999 (Cui et al. 2019, "Class-balanced loss based on effective
      number of samples"): as inverse for small classes, equal for those of thousands.

    A class without samples counts as one with a single one.
    """
    known = counts.double()
    floor = known.clamp(min=1)
    if rule == "inverse":
        raw = 1 / floor
    elif rule == "inverse_sqrt":
        raw = floor.rsqrt()
    else:
        raw = (1 - EFFECTIVE_BETA) / -torch.expm1(floor * math.log(EFFECTIVE_BETA))
    return (raw * known.sum() / (raw * known).sum()).float()


def margins(counts: Tensor, largest: float) -> Tensor:
    """Return the margin of each class, proportional to n^(-1/4): (classes,) float32.

    Cao et al. 2019, "Learning imbalanced datasets with label-distribution-aware margin loss", eq. 13; the
    constant is such that the rarest class has `largest`.
    """
    known = counts.double()
    raw = known.clamp(min=1) ** -0.25
    # A class without samples has no say in what the rarest one is, and no larger margin than that one.
    return (largest * raw / raw[known > 0].max()).clamp(max=largest).float()


def _of_values(function: Loss) -> Loss:
    """Return a loss of (n,) or (n, 1) outputs: without this (n, 1) and (n,) would spread to (n, n)."""
    return lambda outputs, targets: function(outputs.reshape(targets.shape), targets)


def _cross_entropy(weights: Tensor | None, smoothing: float) -> Loss:
    """Return the mean of cross-entropies, weighted; torch's own mean would divide by the batch's weights."""
    if weights is None:
        return lambda outputs, targets: functional.cross_entropy(outputs, targets, label_smoothing=smoothing)
    return lambda outputs, targets: functional.cross_entropy(
        outputs, targets, weights, reduction="none", label_smoothing=smoothing
    ).mean()


def _focal(weights: Tensor | None, smoothing: float, focus: float) -> Loss:
    """Return the focal loss: -(1 - p)^focus log p (Lin et al. 2017, eq. 4), of each class by its target."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        log_chance = functional.log_softmax(outputs, dim=1)
        # 1 - p at p = 1 is 0, where a power below 1 has no gradient.
        rest = (-torch.expm1(log_chance)).clamp(min=torch.finfo(log_chance.dtype).tiny)
        wanted = _probabilities(targets, outputs, smoothing)
        each = wanted * rest**focus * -log_chance
        return (each if weights is None else each * weights).sum(dim=1).mean()

    return loss


def _ldam(weights: Tensor | None, smoothing: float, margin: Tensor, scale: float) -> Loss:
    """Return cross-entropy of scaled outputs, the true class's lowered by its margin (Cao et al. 2019).

    Of mixed samples each class is lowered by its share of its margin.
    """
    plain = _cross_entropy(weights, smoothing)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        lowered = outputs - margin * _probabilities(targets, outputs, 0.0)
        return plain(scale * lowered, targets)

    return loss


def _probabilities(targets: Tensor, outputs: Tensor, smoothing: float) -> Tensor:
    """Return targets as smoothed probabilities (n, classes), in the outputs' type."""
    classes = outputs.shape[1]
    soft = targets if targets.is_floating_point() else functional.one_hot(targets, classes)
    return soft.to(outputs.dtype) * (1 - smoothing) + smoothing / classes


def _name(name: str, classes: bool) -> str:
    """Resolve auto, and refuse a loss that does not exist or is for the other task."""
    if name == "auto":
        return "cross_entropy" if classes else "mse"
    mine, others = (CLASS_LOSSES, VALUE_LOSSES) if classes else (VALUE_LOSSES, CLASS_LOSSES)
    if name in others:
        wrong, right = ("values", "classes") if classes else ("classes", "values")
        raise UserError(
            f"'{name}' is a loss for {wrong}, and these data have {right}",
            key="loss.name",
            hint=f"Valid: auto, {', '.join(mine)}",
        )
    if name not in mine:
        raise UserError(f"there is no loss '{name}'", key="loss.name", hint=nearest(name, ("auto", *mine)))
    return name


def _check_numbers(settings: LossSettings) -> None:
    """Refuse numbers out of range and rules that do not exist."""
    if settings.class_weights not in CLASS_WEIGHTS:
        hint = nearest(settings.class_weights, CLASS_WEIGHTS)
        raise UserError(f"there is no rule '{settings.class_weights}'", key="loss.class_weights", hint=hint)
    if not 0 <= settings.label_smoothing < 1:
        raise UserError(f"{settings.label_smoothing} is not from 0 to below 1", key="loss.label_smoothing")
    for key, zero_too in (("margin", True), ("scale", False), ("focus", True)):
        value = getattr(settings, key)
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero_too):
            raise UserError(f"{value} is not {'0 or ' if zero_too else ''}above 0", key=f"loss.{key}")


def _counted(counts: Tensor | None, key: str) -> Tensor:
    """Return the counts that a setting needs."""
    if counts is None or not counts.sum():
        raise UserError("needs to know how many samples each class has", key=f"loss.{key}")
    return counts
