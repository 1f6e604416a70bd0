"""The weights in a checkpoint file: found, and put back into a file that the same code can read.

Ours are `{"epoch": ..., "model": state_dict}`. A user's own may be a state dict alone, or one below a key of
a mapping that holds more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.training.checkpoints import UnreadableCheckpoint, load, save

# Where a state dict lies in a mapping that holds more: the first of these that is there.
KEYS = ("model", "state_dict", "model_state_dict")
# What wrappers (compiling, several GPUs) put in front of all names.
PREFIXES = ("_orig_mod.", "module.")

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Weights:
    """What a checkpoint file holds of a model.

    Attributes:
        state: its parameters and buffers, by the names in the file, on the CPU.
        wrap: puts other values of the same names into a copy of the file's content.
    """

    state: State
    wrap: Callable[[Mapping[str, Tensor]], dict[str, Any]]


def read_weights(path: Path) -> Weights:
    """Read the weights of a checkpoint; only tensors and plain values are read from it, never code.

    Raises:
        UnreadableCheckpoint: the file is missing or damaged, or there is no state dict in it.
    """
    content = load(path, torch.device("cpu"))
    key = _place(content, path)
    found = content if key is None else content[key]
    state = {str(name): value.detach() for name, value in found.items() if isinstance(value, Tensor)}

    def wrap(values: Mapping[str, Tensor]) -> dict[str, Any]:
        # A shallow copy keeps what torch hangs on a state dict (its modules' versions).
        inner = copy.copy(found)
        inner.update(values)
        if key is None:
            return inner
        return {**content, key: inner}

    return Weights(state, wrap)


def write_weights(path: Path, weights: Weights, state: Mapping[str, Tensor]) -> None:
    """Write a checkpoint as the one that `weights` was read from, with other values, whole or not at all."""
    save(path, weights.wrap(state))


def plain_names(state: Mapping[str, Tensor]) -> State:
    """Return a state dict without what wrappers put in front of all its names."""
    found = dict(state)
    for prefix in PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def fill(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Give a model the weights of a file.

    Raises:
        UnreadableCheckpoint: they are of a model of another build.
    """
    try:
        model.load_state_dict(plain_names(state))
    except RuntimeError as error:
        raise UnreadableCheckpoint(f"{path}: {' '.join(str(error).split())[:300]}") from error


def parameters_of(state: Mapping[str, Tensor]) -> int:
    """Count the numbers that a model learns, as far as a state dict tells: statistics are left out."""
    kept = ("running_mean", "running_var", "num_batches_tracked")
    return sum(
        value.numel()
        for name, value in state.items()
        if value.is_floating_point() and name.rpartition(".")[2] not in kept
    )


def _place(content: Mapping[Any, Any], path: Path) -> Any:
    """Return the key of the state dict in a checkpoint; None where the whole of it is one.

    Raises:
        UnreadableCheckpoint: there is none, or there are several.
    """
    for key in KEYS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and any(isinstance(each, Tensor) for each in inner.values()):
            return key
    if any(isinstance(value, Tensor) for value in content.values()):
        return None
    others = [key for key, value in content.items() if _is_state(value)]
    if len(others) == 1:
        return others[0]
    keys = ", ".join(str(key) for key in content) or "nothing"
    raise UnreadableCheckpoint(f"{path}: holds {keys}, and no one state dict; save it as 'model'")


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(each, Tensor) for each in value.values())
    )
