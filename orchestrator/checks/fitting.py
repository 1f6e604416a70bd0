"""A small batch, and a model fitted to it (Karpathy 2019: "overfit one batch")."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam

from orchestrator.checks.seeding import seeded
from orchestrator.checks.yardstick import CLASSES, Loss, Yardstick, yardstick

SAMPLES, FEWEST = 10, 2
UPDATES = 250
# An attempt ends early after so many updates in which hardly any of the first loss went.
STILL, HARDLY = 60, 1e-3
RATES = (1e-2, 1e-1, 1e-3, 1e-4)
# The rate of an attempt in evaluation mode.
IN_EVALUATION = 1e-3
# The share of the ignorant loss that is as good as none.
NEAR_ZERO = 0.05
# Without a scale of the loss: the share of the first loss that is to go.
FALL = 0.5


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A model fitted to a few samples.

    Attributes:
        model: as it is then, in the mode that it was fitted in.
        inputs, targets: of those samples.
        scale: of the loss on them.
        first, last: loss before and after.
        right: the share of samples that it classifies right; 1 where there are no classes.
        updates: of the last attempt.
        rate: of the last attempt.
        enough: the loss is near the least there is.
    """

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    scale: Yardstick
    first: float
    last: float
    right: float
    updates: int
    rate: float
    enough: bool


def small_batch(inputs: Tensor, targets: Tensor, size: int = SAMPLES) -> tuple[Tensor, Tensor]:
    """Choose samples that differ in input and in target.

    Args:
        inputs: (n, ...).
        targets: (n, ...); classes in turn, or values from the least to the most.
        size: of the batch, at most.
    """
    look = min(len(inputs), 2000)
    flat = inputs[:look].reshape(look, -1)
    # Equal inputs with different targets can't be fitted, and say nothing against a model.
    _, place = torch.unique(flat, dim=0, return_inverse=True)
    seen: set[int] = set()
    distinct = [row for row, key in enumerate(place.tolist()) if not (key in seen or seen.add(key))]  # type: ignore[func-returns-value]
    if len(distinct) < 2:
        distinct = list(range(look))
    if targets.ndim > 1 or len(distinct) <= size:
        chosen = distinct[:size]
    elif targets.is_floating_point():
        by_value = sorted(distinct, key=lambda row: float(targets[row]))
        chosen = [by_value[round(step * (len(by_value) - 1) / (size - 1))] for step in range(size)]
    else:
        chosen = _in_turn(distinct, [int(targets[row]) for row in distinct])[:size]
    rows = torch.tensor(sorted(chosen), device=inputs.device)
    return inputs[rows], targets[rows.to(targets.device)]


def quiet(model: nn.Module) -> nn.Module:
    """Put a model into training mode without its dropout; changes the model."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def fit_small_batch(make: Callable[[], nn.Module], loss: Loss, inputs: Tensor, targets: Tensor) -> Fitted:
    """Fit a model to a few samples with Adam at a few rates, until one is enough.

    Args:
        make: gives the model as it is before training.
        loss: of outputs and targets.
        inputs: (k, ...).
        targets: (k, ...).

    Returns:
        The first attempt that is enough, else the one with the least loss.
    """
    attempts = []
    for rate in RATES:
        attempts.append(_attempt(quiet(make()), loss, inputs, targets, rate))
        if attempts[-1].enough:
            return attempts[-1]
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in attempts[0].model.modules()):
        # In a batch this small, values may be normalized to nothing.
        attempts.append(_attempt(quiet(make()).eval(), loss, inputs, targets, IN_EVALUATION))
    return min(attempts, key=lambda attempt: (not attempt.enough, _comparable(attempt.last)))


def _attempt(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, rate: float) -> Fitted:
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = Adam(parameters or [torch.zeros(1, requires_grad=True)], lr=rate)
    with seeded(inputs.device):
        with torch.no_grad():
            outputs = model(inputs)
        scale = yardstick(loss, outputs, targets)
        losses: list[float] = []
        last = float("nan")
        right, done = 0.0, 0
        for done in range(UPDATES + 1):
            outputs = model(inputs)
            value = loss(outputs, targets)
            last = float(value.detach())
            losses.append(last)
            right = _right(scale, outputs, targets)
            if _enough(scale, losses[0], last, right) or _hopeless(losses) or done == UPDATES:
                break
            optimizer.zero_grad()
            if not value.requires_grad:
                break
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return Fitted(
        model=model,
        inputs=inputs,
        targets=targets,
        scale=scale,
        first=losses[0],
        last=last,
        right=right,
        updates=done,
        rate=rate,
        enough=_enough(scale, losses[0], last, right),
    )


def _enough(scale: Yardstick, first: float, last: float, right: float) -> bool:
    if scale.known:
        return right == 1.0 and scale.left(last) <= NEAR_ZERO
    return right == 1.0 and last <= first - FALL * abs(first)


def _hopeless(losses: list[float]) -> bool:
    """Say whether the last loss is not finite, or no longer falls."""
    if not math.isfinite(losses[-1]):
        return True
    return len(losses) > STILL and losses[-STILL] - min(losses[-STILL:]) < HARDLY * abs(losses[0])


def _right(scale: Yardstick, outputs: Tensor, targets: Tensor) -> float:
    if scale.kind not in CLASSES:
        return 1.0
    return float((outputs.argmax(1) == targets).float().mean())


def _comparable(loss: float) -> float:
    return loss if loss == loss else float("inf")


def _in_turn(rows: list[int], keys: list[int]) -> list[int]:
    """Return rows ordered so that each key comes once before any comes twice."""
    count: dict[int, int] = {}
    turns = []
    for row, key in zip(rows, keys, strict=True):
        count[key] = count.get(key, 0) + 1
        turns.append((count[key], key, row))
    return [row for _, _, row in sorted(turns)]
