"""The states of all random generators, to go on from exactly where a run was."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch


def seed_all(seed: int, device: torch.device) -> None:
    """Seed torch, NumPy and Python, and choose deterministic kernels on a GPU."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    if device.type == "cuda":
        # What cuBLAS wants for the same bits each time; it is read when a first matrix is multiplied.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def seed_of(*numbers: int) -> int:
    """Return a seed of 63 bits for numbers from 0 up, such as seed, fold and rank; each its own."""
    words = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def capture(device: torch.device) -> dict[str, Any]:
    """Return the states as tensors and plain values, which a checkpoint can hold without code."""
    numpy = np.random.get_state(legacy=False)
    keys, place = numpy["state"]["key"], numpy["state"]["pos"]
    version, words, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [
            torch.from_numpy(keys.astype(np.int64)),
            int(place),
            int(numpy["has_gauss"]),
            float(numpy["gauss"]),
        ],
        "python": [version, torch.tensor(words), gauss_next],
    }


def restore(states: dict[str, Any], device: torch.device) -> None:
    """Put the generators into states that `capture` gave."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    keys, place, has_gauss, gauss = states["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), place, has_gauss, gauss))
    version, words, gauss_next = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss_next))
