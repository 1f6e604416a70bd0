"""The optimizers, by name: torch's own, with the defaults of practice."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from orchestrator.errors import UserError, nearest
from orchestrator.training.settings import OptimizerSettings

Parameters = Iterable[nn.Parameter]


def sgd(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum, Nesterov's if wanted."""
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov and settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )


def adam(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015): betas 0.9 and 0.999, eps 1e-8; weight decay is L2 in the gradient."""
    return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def adamw(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def rmsprop(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """RMSProp (Hinton 2012): decay 0.99, eps 1e-8, without momentum."""
    return torch.optim.RMSprop(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


OPTIMIZERS: dict[str, Callable[[Parameters, OptimizerSettings], torch.optim.Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
}


def build_optimizer(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Build an optimizer for a model's parameters.

    Raises:
        UserError: a name that does not exist, or a number out of range.
    """
    if settings.name not in OPTIMIZERS:
        hint = nearest(settings.name, OPTIMIZERS)
        raise UserError(f"there is no optimizer '{settings.name}'", key="optimizer.name", hint=hint)
    for key in ("lr", "weight_decay", "momentum"):
        if not getattr(settings, key) >= 0:
            raise UserError(f"{getattr(settings, key)} is negative", key=f"optimizer.{key}")
    return OPTIMIZERS[settings.name](parameters, settings)


# The first optimizer of a process makes torch import its compiler, which takes more than a second. Doing it
# here puts it into the task's one import, where the children of a fork server share it.
build_optimizer([nn.Parameter(torch.zeros(1))], OptimizerSettings())
