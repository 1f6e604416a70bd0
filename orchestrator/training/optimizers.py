"""The optimizers, by name: torch's own, with the defaults of practice (practice, C1).

`lr` is what torch takes: for adadelta, whose steps have their own scale, 1 is usual, for adagrad 0.01.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from orchestrator.errors import UserError, nearest
from orchestrator.training.settings import OptimizerSettings

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


def sgd(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum, Nesterov's if wanted (Sutskever et al. 2013)."""
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov and settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )


def adam(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015): betas 0.9 and 0.999, eps 1e-8; weight decay is L2 in the gradient."""
    return torch.optim.Adam(
        parameters,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=_eps(settings, 1e-8),
        weight_decay=settings.weight_decay,
    )


def adamw(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=_eps(settings, 1e-8),
        weight_decay=settings.weight_decay,
    )


def rmsprop(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """RMSProp (Hinton 2012): alpha 0.99, eps 1e-8, without momentum."""
    return torch.optim.RMSprop(
        parameters,
        lr=settings.lr,
        alpha=settings.alpha,
        eps=_eps(settings, 1e-8),
        weight_decay=settings.weight_decay,
    )


def adagrad(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Adagrad (Duchi et al. 2011): eps 1e-10."""
    return torch.optim.Adagrad(
        parameters, lr=settings.lr, eps=_eps(settings, 1e-10), weight_decay=settings.weight_decay
    )


def adadelta(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Adadelta (Zeiler 2012): rho 0.95, eps 1e-6."""
    return torch.optim.Adadelta(
        parameters,
        lr=settings.lr,
        rho=settings.rho,
        eps=_eps(settings, 1e-6),
        weight_decay=settings.weight_decay,
    )


OPTIMIZERS: dict[str, Callable[[Parameters, OptimizerSettings], torch.optim.Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adadelta": adadelta,
}
# Those that scale each weight's step themselves, so that their rates are not of the size of plain SGD's.
ADAPTIVE = ("adam", "adamw", "rmsprop", "adagrad", "adadelta")


def build_optimizer(parameters: Parameters, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Build an optimizer for a model's parameters.

    Args:
        parameters: of the model, or groups of them, each with keys of its own (`params`, `lr`, ...).
        settings: what holds for the keys that a group does not have.

    Raises:
        UserError: a name that does not exist, a number out of range, or no parameters.
    """
    check_optimizer(settings)
    given = list(parameters)
    if not given:
        raise UserError("the model has nothing to train: no parameters", key="model")
    return OPTIMIZERS[settings.name](given, settings)  # type: ignore[arg-type]


def check_optimizer(settings: OptimizerSettings) -> None:
    """Check names and ranges.

    Raises:
        UserError: naming the key.
    """
    if settings.name not in OPTIMIZERS:
        hint = nearest(settings.name, OPTIMIZERS)
        raise UserError(f"there is no optimizer '{settings.name}'", key="optimizer.name", hint=hint)
    for key in ("lr", "weight_decay", "momentum"):
        if not getattr(settings, key) >= 0:
            raise UserError(f"{getattr(settings, key)} is negative", key=f"optimizer.{key}")
    for key in ("momentum", "momentum_start", "beta1", "beta2", "rho", "alpha"):
        value = getattr(settings, key)
        if value is not None and not 0 <= value < 1:
            raise UserError(f"{value} is not from 0 to below 1", key=f"optimizer.{key}")
    for key in ("eps", "clip"):
        value = getattr(settings, key)
        if value is not None and not value > 0:
            raise UserError(f"{value} is not above 0", key=f"optimizer.{key}")
    if settings.momentum_start is not None and settings.name != "sgd":
        raise UserError(
            f"grows the momentum of sgd, and the optimizer is {settings.name}",
            key="optimizer.momentum_start",
            hint="Say null, or optimizer.name=sgd",
        )


def _eps(settings: OptimizerSettings, usual: float) -> float:
    return usual if settings.eps is None else settings.eps


# The first optimizer of a process makes torch import its compiler, which takes more than a second. Doing it
# here puts it into the task's one import, where the children of a fork server share it.
build_optimizer([nn.Parameter(torch.zeros(1))], OptimizerSettings())
