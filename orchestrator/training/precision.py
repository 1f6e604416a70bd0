"""Mixed precision: in which numbers a model computes, and the scaling that float16's gradients need.

Weights, and what the optimizer keeps, are float32 in any case (Micikevicius et al. 2018).
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from orchestrator.errors import UserError, nearest

PRECISIONS = ("float32", "bfloat16", "float16", "auto")


def choose_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """Return what to compute in by name, None for float32 as it is.

    auto is bfloat16 on a GPU that has it, and float32 elsewhere: a CPU without matrix instructions for
    bfloat16 is slower with it.

    Raises:
        UserError: there is no precision of that name, or not on this device.
    """
    if name not in PRECISIONS:
        hint = nearest(name, PRECISIONS)
        raise UserError(f"there is no precision '{name}'", key="precision", hint=hint)
    if name == "float16" and device.type != "cuda":
        raise UserError("float16 is for GPUs", key="precision", hint="Use bfloat16 or auto")
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return None if name == "float32" else getattr(torch, name)


def computing(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which a model's forward pass and loss run; one context serves many passes."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def build_scaler(dtype: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler | None:
    """Return what keeps small gradients from vanishing in float16; None for the others."""
    return torch.amp.GradScaler(device.type) if dtype is torch.float16 else None
