"""Checkpoints: whole or absent, and read back without running what they contain.

- `last.pt`, to continue from: model, optimizer, schedule, random states, epoch, best results so far.
- `epoch-0042.pt` and `best.pt`, members for an ensemble: the model alone.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.sweep.files import replace_atomic

_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError)


class UnreadableCheckpoint(Exception):
    """A checkpoint that is missing, cut short, or of another model."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    replace_atomic(path, lambda temporary: torch.save(content, temporary))


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint onto a device; only tensors and plain values, never code.

    Raises:
        UnreadableCheckpoint: it is missing or damaged.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableCheckpoint(f"{path}: {reason}") from error
    if not isinstance(content, dict):
        raise UnreadableCheckpoint(f"{path}: holds {type(content).__name__}")
    return content


def save_member(path: Path, model: nn.Module, epoch: int) -> None:
    """Write a model alone, as a member for an ensemble."""
    save(path, {"epoch": epoch, "model": model.state_dict()})


def load_member(path: Path, model: nn.Module, device: torch.device) -> None:
    """Fill a model of the same build from a member's file.

    Raises:
        UnreadableCheckpoint: it is missing, damaged, or of a model of another build.
    """
    try:
        model.load_state_dict(load(path, device)["model"])
    except (KeyError, RuntimeError) as error:
        raise UnreadableCheckpoint(f"{path}: {str(error).splitlines()[0]}") from error
