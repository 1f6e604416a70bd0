"""What the checks look at: a job's model, its loss, and training samples just as they go into the model.

A job's YAML names a function of its own, `setup: my_train.setup`. It gets the config that its training
function gets, and it is deterministic from the config's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.errors import UserError, nearest

KEY = "jobs.setup"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a training run begins with.

    Attributes:
        model: as it is before its first update.
        loss: takes outputs and targets, gives their mean loss as a scalar.
        inputs: (n, ...), training samples just as they go into the model, on its device.
        targets: (n, ...), theirs, as the loss takes them.
        optimizer: builds the optimizer that training begins with; None: the checks take Adam.
        validation: inputs and targets, as those of training.
        class_names: empty where there are no classes.
        frozen: layers that don't learn do so on purpose, as in fine-tuning.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    validation: tuple[Tensor, Tensor] | None = None
    class_names: tuple[str, ...] = ()
    frozen: bool = False


def mixed(setup: Setup, most: int) -> Setup:
    """Return a set-up with its samples in a random order, the same each time; at most so many of each part.

    Some are sorted by class: their first samples would not stand for all.
    """
    inputs, targets = _some(setup.inputs, setup.targets, most)
    validation = _some(*setup.validation, most) if setup.validation is not None else None
    return replace(setup, inputs=inputs, targets=targets, validation=validation)


def _some(inputs: Tensor, targets: Tensor, most: int) -> tuple[Tensor, Tensor]:
    rows = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:most]
    return inputs[rows.to(inputs.device)], targets[rows.to(targets.device)]


_NAMES = tuple(field.name for field in fields(Setup))
_NEEDED = ("model", "loss", "inputs", "targets")


def as_setup(value: Any) -> Setup:
    """Take what a job's `setup` returned: a Setup, a mapping, or an object with its attributes.

    Arrays count as tensors.

    Raises:
        UserError: something is missing, is not what it should be, or there are no samples.
    """
    given = _given(value)
    for name in _NEEDED:
        if given.get(name) is None:
            raise UserError(f"returned no `{name}`", key=KEY, hint=f"It returns {', '.join(_NEEDED)}")
    if not isinstance(given["model"], nn.Module):
        raise UserError(f"`model` is {type(given['model']).__name__}, not a torch.nn.Module", key=KEY)
    if not callable(given["loss"]):
        raise UserError(
            f"`loss` is {type(given['loss']).__name__}, not a function of outputs and targets", key=KEY
        )
    validation = given.get("validation")
    return Setup(
        model=given["model"],
        loss=given["loss"],
        optimizer=given.get("optimizer"),
        class_names=tuple(str(name) for name in given.get("class_names") or ()),
        frozen=bool(given.get("frozen", False)),
        validation=None if validation is None else _pair(*_two(validation), "validation "),
        **dict(zip(("inputs", "targets"), _pair(given["inputs"], given["targets"], ""), strict=True)),
    )


def _given(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        for name in value:
            if name not in _NAMES:
                raise UserError(f"returned an unknown `{name}`", key=KEY, hint=nearest(str(name), _NAMES))
        return dict(value)
    if value is None or isinstance(value, tuple | list | str | int | float | Tensor):
        raise UserError(
            f"returned {type(value).__name__}", key=KEY, hint=f"Return a mapping with {', '.join(_NEEDED)}"
        )
    return {name: getattr(value, name) for name in _NAMES if hasattr(value, name)}


def _two(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UserError("`validation` is not a pair of inputs and targets", key=KEY)
    return value[0], value[1]


def _pair(inputs: Any, targets: Any, which: str) -> tuple[Tensor, Tensor]:
    tensors = []
    for name, value in ((f"{which}inputs", inputs), (f"{which}targets", targets)):
        try:
            tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"`{name}` are {type(value).__name__}, not a tensor", key=KEY) from error
        if tensor.ndim == 0:
            raise UserError(f"`{name}` are one number, not a tensor of samples", key=KEY)
        tensors.append(tensor.detach())
    if len(tensors[0]) != len(tensors[1]):
        raise UserError(f"there are {len(tensors[0])} {which}inputs and {len(tensors[1])} targets", key=KEY)
    if len(tensors[0]) == 0:
        raise UserError(f"there are no {which}samples", key=KEY)
    return tensors[0], tensors[1]
