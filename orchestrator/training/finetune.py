"""Fine-tuning: from a checkpoint, smaller rates for earlier layers, frozen layers (practice, C10).

A layer here is what a reader of the model would call one: a child of the model or of its sequences that has
weights, together with the normalizations and activations after it that have some; a residual block or a stack
of recurrent layers is one. Layers count from the input on.

The loop calls `load` once after building the model (not on taking a run up again), `parameter_groups` for the
optimizer, `unfreeze` before each epoch, and `hold_frozen` after each `model.train()`. None of them keeps a
state: what is frozen follows from the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.errors import UserError
from orchestrator.training.checkpoints import UnreadableCheckpoint
from orchestrator.training.settings import FinetuneSettings
from orchestrator.training.weights import plain_names, read_weights

_KEY = "finetune.checkpoint"


def load(model: nn.Module, path: Path | str) -> tuple[str, ...]:
    """Fill a model from a checkpoint: a member of ours, or any file of a state dict.

    Args:
        model: changed in place. A module of it that is not in the file, or whose sizes differ there (the last
            layer, with other classes), keeps its own initial values as a whole.
        path: the file; only tensors and plain values are read from it, never code.

    Returns:
        The names of the modules that kept their own values.

    Raises:
        UserError: the file is missing or damaged, holds values that are not finite, or nothing in it fits.
    """
    try:
        saved = plain_names(read_weights(Path(path)).state)
    except UnreadableCheckpoint as error:
        raise UserError(str(error), key=_KEY) from error
    own = model.state_dict()
    modules: dict[str, list[str]] = {}
    for name in own:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    kept = tuple(
        module
        for module, names in modules.items()
        if not all(name in saved and saved[name].shape == own[name].shape for name in names)
    )
    fitting = [name for module, names in modules.items() if module not in kept for name in names]
    if not any(name in dict(model.named_parameters()) for name in fitting):
        raise UserError(
            f"nothing in it fits the model: it holds {_shapes(saved)}, and the model {_shapes(own)}",
            file=path,
            key=_KEY,
            hint="Use the settings of the model that wrote it",
        )
    for name in fitting:
        if not bool(torch.isfinite(saved[name]).all()):
            raise UserError(f"'{name}' holds values that are not finite", file=path, key=_KEY)
    # It copies to wherever the model is.
    model.load_state_dict({**own, **{name: saved[name] for name in fitting}})
    return kept


def layers(model: nn.Module) -> list[list[nn.Module]]:
    """Return the model's layers from the input on, each as the modules that belong to it."""
    found: list[list[nn.Module]] = []
    for unit in _units(model):
        weighty = any(each.ndim > 1 for each in unit.parameters())
        if found and (not weighty or _only_normalizes(found[-1])):
            found[-1].append(unit)
        else:
            found.append([unit])
    return found


def parameter_groups(model: nn.Module, settings: FinetuneSettings, lr: float) -> list[dict[str, Any]]:
    """Return the optimizer's groups, one for each layer, the last one at the full rate.

    A group for each layer is there even with `layer_decay` 1, and for frozen layers, too: their rate counts
    once they are no longer frozen. Parameters of the model itself go with the first layer.

    Args:
        model: whose layers they are.
        settings: layer_decay; its nth layer from the end has lr * layer_decay ** n.
        lr: the rate of the last layer.

    Raises:
        UserError: a layer_decay that is not above 0, or a number of frozen layers that leaves none.
    """
    if not 0 < settings.layer_decay < math.inf:
        raise UserError(f"{settings.layer_decay} is not above 0", key="finetune.layer_decay")
    found = layers(model)
    _check_freeze(settings, len(found))
    if settings.layer_decay == 1 and settings.freeze == 0:
        return [{"params": list(model.parameters()), "lr": lr}]
    taken: dict[nn.Parameter, int] = {}  # weights that two layers share go with the first
    for number, layer in enumerate(found):
        for module in layer:
            for each in module.parameters():
                taken.setdefault(each, number)
    groups: list[dict[str, Any]] = []
    for number in range(len(found)):
        members = [each for each in model.parameters() if taken.get(each, 0) == number]
        groups.append({"params": members, "lr": lr * settings.layer_decay ** (len(found) - 1 - number)})
    return [group for group in groups if group["params"]]


def frozen_layers(settings: FinetuneSettings, epoch: int) -> int:
    """Return how many layers from the input on are frozen during an epoch (from 0)."""
    if settings.unfreeze_epochs is None:
        return settings.freeze
    return max(0, settings.freeze - math.floor(epoch / settings.unfreeze_epochs))


def unfreeze(model: nn.Module, settings: FinetuneSettings, epoch: int) -> int:
    """Freeze and unfreeze layers as it is to be during an epoch; return how many are frozen.

    Args:
        model: its parameters' `requires_grad` is set; nothing is changed where `freeze` is 0.
        settings: freeze and unfreeze_epochs.
        epoch: passes done, from 0.

    Raises:
        UserError: a number of frozen layers that leaves none.
    """
    if settings.freeze == 0:
        return 0
    found = layers(model)
    _check_freeze(settings, len(found))
    frozen = frozen_layers(settings, epoch)
    for number, layer in enumerate(found):
        for module in layer:
            module.requires_grad_(number >= frozen)
    return frozen


def hold_frozen(model: nn.Module, settings: FinetuneSettings, epoch: int) -> None:
    """Keep batch normalization in frozen layers at its statistics; to call after each `model.train()`."""
    for layer in layers(model)[: frozen_layers(settings, epoch)]:
        for module in layer:
            for each in module.modules():
                if isinstance(each, _BatchNorm):
                    each.eval()


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """Yield modules with parameters: children of the model or of its sequences, in their order."""
    children = [child for child in module.children() if next(child.parameters(), None) is not None]
    if not children:
        yield module
        return
    for child in children:
        # A single child with weights and children of its own has a wrapper around it.
        wrapped = len(children) == 1 and next(child.children(), None) is not None
        if wrapped or isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _units(child)
        else:
            yield child


def _only_normalizes(layer: list[nn.Module]) -> bool:
    """Say whether a layer has no weights but scales: a normalization in front of the first one."""
    return all(each.ndim <= 1 for module in layer for each in module.parameters())


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    named = [f"{name} {tuple(value.shape)}" for name, value in tensors.items() if value.ndim]
    return f"{', '.join(named[:2])}{', ...' if len(named) > 2 else ''}" or "no tensors"


def _check_freeze(settings: FinetuneSettings, count: int) -> None:
    if settings.freeze < 0:
        raise UserError(f"{settings.freeze} is negative", key="finetune.freeze")
    if settings.freeze and settings.freeze >= count:
        raise UserError(
            f"freezes {settings.freeze} of the model's {count} layers, which leaves none to train",
            key="finetune.freeze",
            hint=f"Say {count - 1} or less",
        )
    if settings.unfreeze_epochs is not None and not settings.unfreeze_epochs > 0:
        raise UserError(f"{settings.unfreeze_epochs} is not above 0", key="finetune.unfreeze_epochs")
